"""Few-shot requests, the search for a better prompt, and rivals: what is asked, and what never may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from fake_api import serving
from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.contenders import (
    FOR_LABELS,
    PROPOSALS,
    Contender,
    RemoteRival,
    answers_file,
    few_shot,
    optimised_prompt,
    requests_of,
    require_apart,
    rival,
    template,
)
from tuneloop.evaluation.cost import Price
from tuneloop.types import Conversation, Message, Origin, Request, Sampling

LABELS = ["bad", "good", "rare"]


def row(asked: str, answer: str, system: str = "", line: int = 1) -> Conversation:
    head = (Message("system", system),) if system else ()
    return Conversation((*head, Message("user", asked), Message("assistant", answer)), Origin("rows", line))


def always(request: Request) -> bool:
    return True


def accuracy(references: Sequence[str], texts: Sequence[str]) -> float:
    return sum(r == t for r, t in zip(references, texts, strict=True)) / len(references)


TRAIN = [row(f"train {i}", "rare" if i == 0 else LABELS[i % 2], "sys") for i in range(30)]
TEST = [row(f"test {i}", LABELS[i % 2], "sys") for i in range(10)]


# --- examples --------------------------------------------------------------------------------------------------------


def test_every_row_gets_the_same_examples_as_earlier_turns() -> None:
    found = few_shot(TEST, TRAIN, 4, 0, always)
    begins = {request.messages[:-1] for request in found.requests}
    assert len(begins) == 1         # so that their tokens are computed once
    [begin] = begins
    assert [turn.role for turn in begin] == ["system", *["user", "assistant"] * 4]
    assert [turn.content for turn in begin[1:]] == [t.content for r in found.examples for t in r.messages[1:]]
    assert [request.messages[-1].content for request in found.requests] == [f"test {i}" for i in range(10)]
    assert not {request.messages[-1].role for request in found.requests} - {"user"}


def test_the_seed_draws_the_examples() -> None:
    drawn = [few_shot(TEST, TRAIN, 4, seed, always).examples for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("seed", range(5))
def test_labels_take_turns(seed: int) -> None:
    found = few_shot(TEST, TRAIN, 7, seed, always, labels=LABELS)
    assert Counter(r.answer for r in found.examples) == {"good": 3, "bad": 3, "rare": 1}
    assert {r.answer for r in few_shot(TEST, TRAIN, 3, seed, always, labels=LABELS).examples} == set(LABELS)


def test_a_test_row_is_never_an_example_whatever_its_answer() -> None:
    leaky = [*TRAIN[:2], *(row(f"test {i}", "other", "another system") for i in range(10))]
    found = few_shot(TEST, leaky, 8, 0, always)
    assert {r.prompt[-1].content for r in found.examples} == {"train 0", "train 1"}
    with pytest.raises(UserError, match="No training row is left"):
        few_shot(TEST, leaky[2:], 8, 0, always)


def test_fewer_examples_where_more_do_not_fit_in_front_of_the_longest_row() -> None:
    rows = [*TEST, row("test of many more words than all others", "good")]

    def fits(request: Request) -> bool:
        return sum(len(turn.content) for turn in request.messages) <= 80

    found = few_shot(rows, TRAIN, 8, 0, fits)
    assert 0 < len(found.examples) < 8
    assert all(map(fits, found.requests))
    longest = [r.content for e in [*found.examples, few_shot(rows, TRAIN, 8, 0, always).examples[len(found.examples)]]
               for r in e.messages[1:]]
    assert sum(map(len, [*longest, rows[-1].prompt[-1].content])) > 80       # one more would not have
    with pytest.raises(UserError, match="Not even one example fits"):
        few_shot(rows, TRAIN, 8, 0, lambda request: False)


# --- a better prompt -------------------------------------------------------------------------------------------------


class Trainable(Scripted):
    """Answers rightly only where the magic word stands before the question, and proposes it when asked."""

    def __init__(self, magic: str = "MAGIC", proposes: str = 'The instruction was: "Think MAGIC."') -> None:
        super().__init__(self.reply)
        self.magic, self.proposes = magic, proposes

    def reply(self, asked: str) -> str:
        if asked.startswith("Somebody got an instruction"):
            return self.proposes
        return asked[-1] if self.magic in asked else "?"


def numbered(count: int, what: str) -> list[Conversation]:
    return [row(f"{what} {i}", str(i)[-1]) for i in range(count)]


def test_the_instruction_that_helps_is_found_and_put_before_the_question() -> None:
    found = optimised_prompt(numbered(5, "test"), numbered(9, "train"), numbered(40, "validation"), Trainable(),
                             accuracy, always)
    assert found.instruction == "Think MAGIC."
    assert [r.messages[-1].content for r in found.requests] == [f"Think MAGIC.\n\ntest {i}" for i in range(5)]
    assert found.tried[0].score == 1.0
    assert {one.score for one in found.tried[1:]} == {0.0}
    # the prompt as it was, three written instructions, and the one that the base proposes four times
    assert len({one.instruction for one in found.tried}) == len(found.tried) == 5


def test_the_prompt_as_it_was_wins_ties() -> None:
    found = optimised_prompt(numbered(5, "test"), numbered(9, "train"), numbered(40, "validation"),
                             Trainable(magic="nothing has this"), accuracy, always)
    assert found.instruction == ""
    assert found.requests == requests_of(numbered(5, "test"))


@pytest.mark.parametrize("budget", [30, 100, 400])
def test_the_budget_is_kept_and_test_rows_are_never_looked_at(budget: int) -> None:
    backend = Trainable()
    test = numbered(5, "test")
    leaky = [*numbered(40, "validation"), *test]
    optimised_prompt(test, [*numbered(9, "train"), *test], leaky, backend, accuracy, always, budget=budget)
    asked = [r.messages[-1].content for r in backend.requests]
    proposals = [text for text in asked if text.startswith("Somebody")]
    assert len(proposals) == PROPOSALS
    assert len(asked) - len(proposals) <= budget
    assert not any(re.search(r"\btest \d", text) for text in asked)
    with pytest.raises(UserError, match="No validation row is left"):
        optimised_prompt(test, [], test, backend, accuracy, always)


def test_better_instructions_are_measured_on_more_rows() -> None:
    found = optimised_prompt(numbered(5, "test"), numbered(9, "train"), numbered(400, "validation"), Trainable(),
                             accuracy, always, budget=300)
    # three rounds of 100 answers among 5, 3 and 2 candidates
    assert sorted(Counter(one.rows for one in found.tried).items()) == [(20, 2), (33, 1), (50, 2)]


def test_instructions_name_the_labels_and_must_fit() -> None:
    backend = Scripted(likes=lambda asked, answer: 0.0 if ("separates" in asked) == (answer == "good") else -1.0)
    rows = [row("x", "good"), row("y", "good")]
    options: dict[str, Any] = {"labels": ["bad", "good"]}
    found = optimised_prompt(rows, [], [row("z", "good")], backend, accuracy, always, **options)
    named = "Answer with exactly one of these labels and nothing else: bad, good."
    assert found.instruction == FOR_LABELS[2].format(labels=named)
    found = optimised_prompt(rows, [], [row("z", "good")], backend, accuracy,
                             lambda request: "separates" not in request.messages[-1].content, **options)
    assert found.instruction == ""


def test_what_does_not_fit_is_not_proposed_from() -> None:
    backend = Trainable()
    optimised_prompt(numbered(2, "test"), numbered(9, "train"), numbered(4, "validation"), backend, accuracy,
                     lambda request: not request.messages[-1].content.startswith("Somebody"))
    assert not any(r.messages[-1].content.startswith("Somebody") for r in backend.requests)


# --- rivals ----------------------------------------------------------------------------------------------------------


def open_base(name: str) -> Scripted:
    return Scripted(name=name)


def no_template(name: str) -> Any:
    raise AssertionError("no tokenizer is named")


def opened(given: str | RemoteRival, others: Sequence[str] = (), template_of: Any = no_template) -> Contender:
    return rival(given, TEST, open_base, template_of, others)


def test_a_rival_is_a_base_by_name_or_a_remote_model() -> None:
    here = opened("qwen3-1.7b")
    with serving(models=("large",)) as api:
        there = opened(RemoteRival(url=api.url, price=Price(machine_usd_per_hour=2)))
        assert there.backend.generate(there.requests[:1], Sampling())[0].text == "test 0"
    assert (here.name, here.is_remote, here.price) == ("qwen3-1.7b", False, None)
    assert (there.name, there.is_remote) == ("large", True)
    assert there.price == Price(machine_usd_per_hour=2)
    assert here.requests == there.requests == requests_of(TEST)


def test_a_remote_rival_with_a_template_scores() -> None:
    class Tokenizer:
        end_of_turn = "#"

        def prompt_text(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> str:
            return f"{messages[-1].content}>"

    with serving(models=("large",)) as api:
        found = opened(RemoteRival(url=api.url, tokenizer="some-base"),
                       template_of=lambda name: template(Tokenizer()))     # type: ignore[arg-type]
        assert found.backend.score(found.requests[:1], ["ok"])[0].tokens == 3


def test_rivals_that_cannot_be_asked_or_told_apart() -> None:
    with serving(models=("base", "large")) as api:
        url = api.url
        for given, why in ((RemoteRival(url=url, model="base"), "called base"), ("tuned", "called tuned"),
                           ("a", "called a"), (RemoteRival(url=url, model="huge"), "no model huge")):
            with pytest.raises(UserError, match=why):
                opened(given, ["a"])
    with pytest.raises(UserError, match="cannot be reached"):
        opened(RemoteRival(url=url, model="large"))


@pytest.mark.parametrize("compare_to", [["a", "b", "a"], ["base"], ["few_shot"],
                                        [RemoteRival(url="x", model="a"), "a"]])
def test_names_that_two_would_have_are_refused_before_anything_runs(compare_to: list[Any]) -> None:
    require_apart(["a", "b", RemoteRival(url="x"), RemoteRival(url="y")])
    with pytest.raises(UserError, match="Two of the models"):
        require_apart(compare_to)


def test_every_contender_has_a_file_of_its_own() -> None:
    """Ids that end alike, and folders that are called as one of ours, too."""
    names = ["base", "tuned", "rival", "few_shot", "one/model", "two/model", "model", "folder/base", "folder/judged",
             "a:b", "a_b", "x" * 300]
    files = [answers_file(name) for name in names]
    assert len(set(files)) == len(files)
    assert files[0] == "base.json"
    assert all(re.fullmatch(r"[\w.-]{1,80}", file) for file in files)
    assert not {"judged.json", "contenders.json"} & set(files)
