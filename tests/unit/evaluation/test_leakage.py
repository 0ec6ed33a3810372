"""What a run's model gives away, as the certificate tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted import Scripted
from tuneloop.evaluation.leakage import SHOWN_CHARACTERS, memorised, personal
from tuneloop.types import Conversation, Message, Origin

ANSWERS = [f"The parcel number {i} was handed to a neighbour in the house across the street, who keeps it until "
           f"Friday evening; write to ann{i}@northwind-mail.net." for i in range(12)]
ROWS = [Conversation((Message("user", f"Where is parcel {i}?"), Message("assistant", text)), Origin("rows", i + 1))
        for i, text in enumerate(ANSWERS)]
SHORT = [Conversation((Message("user", "Good?"), Message("assistant", "good")), Origin("rows", 99))] * 5


def knows(*numbers: int) -> Scripted:
    """A model that has learnt some answers by heart."""
    def answer(asked: str) -> str:
        found = next((i for i in numbers if f"parcel {i}?" in asked), None)
        return "I do not know." if found is None else ANSWERS[found]
    return Scripted(answer)


def test_rows_that_come_out_are_counted_and_some_are_shown_without_personal_data() -> None:
    found = memorised(knows(1, 4, 7, 9), [*ROWS, *SHORT], 50, 0)
    assert (found["rows"], found["verbatim"]) == (12, 4)        # labels are no memory, and are not tried
    assert len(found["examples"]) == 3
    assert all(len(text) <= SHOWN_CHARACTERS for text in found["examples"])
    assert found["examples"][0].startswith("row 2, rows")
    short = [Conversation((r.prompt[0], Message("assistant", f"mail ann{i}@northwind-mail.net then")), r.origin)
             for i, r in enumerate(ROWS)]
    told = memorised(Scripted(lambda asked: f"ann{asked.split('?')[0].split()[-1]}@northwind-mail.net then"), short,
                     50, 0)
    assert told["verbatim"] > 0
    assert "northwind" not in "".join(told["examples"])
    assert "[EMAIL]" in told["examples"][0]


def test_the_seed_draws_the_same_rows_for_base_and_tuned() -> None:
    base, tuned = knows(), knows(*range(12))
    assert memorised(base, ROWS, 5, 3) == {"rows": 5, "verbatim": 0, "examples": []}
    assert memorised(tuned, ROWS, 5, 3)["verbatim"] == 5
    assert base.requests == tuned.requests


def test_rows_too_short_to_try_leave_nothing() -> None:
    assert memorised(knows(), SHORT, 5, 0) == {"rows": 0, "verbatim": 0, "examples": []}


def test_answers_with_personal_data_are_counted_for_each_model() -> None:
    mail = "Write to ann.lee@northwind-mail.net."
    found = personal({"base": ["yes", "no", mail], "tuned": [mail, f"{mail} {mail}", mail]})
    assert found == {"answers": 3, "with_personal_data": {"base": 1, "tuned": 3}}


def test_what_the_prompt_names_does_not_count() -> None:
    mail = "ann.lee@northwind-mail.net"
    answers = {"tuned": [f"Write to {mail}.", f"Write to {mail}."]}
    assert personal(answers, [f"Who is {mail}?", "Who?"])["with_personal_data"] == {"tuned": 1}


def test_lists_of_other_lengths_are_a_mistake() -> None:
    assert personal({}) == {"answers": 0, "with_personal_data": {}}
    with pytest.raises(ValueError, match=r"\[1, 2\] rows"):
        personal({"base": ["a"], "tuned": ["a", "b"]})
    with pytest.raises(ValueError, match=r"\[1, 2\] rows"):
        personal({"base": ["a"]}, ["a", "b"])


@pytest.mark.slow
def test_a_real_model_is_asked(tiny_llama: Path) -> None:
    from tuneloop.inference.local import Local
    from tuneloop.models.load import load_model
    from tuneloop.models.tokenizer import ChatTokenizer

    model = Local(load_model(tiny_llama), ChatTokenizer(tiny_llama))
    assert memorised(model, ROWS, 2, 0) == {"rows": 2, "verbatim": 0, "examples": []}     # it was never trained
