"""Questions and answers about passages: kept where the passage supports them, refused with a reason where not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from document_files import read_document

from tuneloop.data.documents.grounded import BATCH, grounded_rows
from tuneloop.data.read import Row
from tuneloop.errors import UserError
from tuneloop.types import Message

TEXT = ("Goods may be sent back within 14 days of delivery. Refunds above 1,000 euros are paid by bank transfer; "
        "smaller ones go to the card that was used. Shipping costs are never refunded.")
PASSAGE = Row(40, {"text": TEXT, "source": "handbook.md, Refunds, lines 40-43", "title": "Handbook"},
              "docs/handbook.md")


class Model:
    """Answers every prompt with these pairs, and keeps the prompts."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.reply = "\n".join(json.dumps({"question": question, "answer": answer}) for question, answer in pairs)
        self.calls: list[list[str]] = []

    def __call__(self, prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        self.calls.append([prompt[-1].content for prompt in prompts])
        return [self.reply] * len(prompts)


def test_a_row_cites_its_passage() -> None:
    model = Model(("Until when can goods be sent back?", "Within 14 days of delivery."))
    made = grounded_rows([PASSAGE], model, 3)
    assert made.rows == [Row(40, {
        "prompt": "Until when can goods be sent back?", "completion": "Within 14 days of delivery.", "context": TEXT,
        "source": "handbook.md, Refunds, lines 40-43"}, "docs/handbook.md")]
    assert made.refused.lines() == ["1 kept"]
    prompt, = model.calls[0]
    assert "Write 3 questions" in prompt
    assert f'Passage from "Handbook":\n---\n{TEXT}\n---' in prompt


@pytest.mark.parametrize(("question", "answer", "why"), [
    ("Until when can goods be sent back?", "Within 30 days of delivery.",
     "the answer has a number that the passage has not"),
    ("How are refunds above 1000 euros paid?", "Those above 1000 euros are paid by bank transfer.", ""),
    ("How long does delivery take in winter?", "Parcels travel slowly because of snow and ice.",
     "the passage does not support the answer"),
    ("Are shipping costs ever refunded?", "No.", "the passage does not support the answer"),
    ("Shipping costs are never refunded?", "They are never refunded.",
     "the question is copied from the passage or from its answer"),
    ("Which card is used for refunds?", "Which card is used for refunds",
     "the question is copied from the passage or from its answer"),
    ("Why so?", "Goods may be sent back.", "the question has fewer than 4 or more than 60 words"),
    ("Until when can goods be sent back?", "...", "the answer has fewer than 1 or more than 200 words"),
    ("Where do smaller refunds go in the end?", "To the card that was used.", ""),
])
def test_which_pairs_are_kept(question: str, answer: str, why: str) -> None:
    made = grounded_rows([PASSAGE], Model((question, answer)), 1)
    assert (len(made.rows), list(made.refused.why)) == ((1, []) if not why else (0, [why]))


def test_support_is_a_share_of_the_words_that_say_something() -> None:
    # content words: refunds, go, card, quickly, honestly, pleasantly: 3 of 6, then 4 of 6 with "paid"
    refused = grounded_rows([PASSAGE], Model(("Where do the refunds go to then?",
                                              "The refunds go to the card quickly, honestly, pleasantly.")), 1)
    kept = grounded_rows([PASSAGE], Model(("Where do the refunds go to then?",
                                           "The refunds paid go to the card quickly, honestly.")), 1)
    assert (len(refused.rows), len(kept.rows)) == (0, 1)


def test_the_same_question_is_kept_once_over_all_passages() -> None:
    other = Row(50, {**PASSAGE.values, "source": "handbook.md, More, lines 50-53"}, PASSAGE.file)
    made = grounded_rows([PASSAGE, other], Model(("Until when can goods be sent back?", "Within 14 days."),
                                                 ("Until when can the goods be sent back?", "Within 14 days.")), 2)
    assert [row.line for row in made.rows] == [40]
    assert made.refused.why == {"nearly the same question as another": 3}


def test_no_more_than_asked_for_and_replies_of_no_use() -> None:
    pairs = [(f"Until when can goods number {word} be sent back by buyers?", "Within 14 days of delivery.")
             for word in ("one", "two")]
    assert len(grounded_rows([PASSAGE], Model(*pairs), 1).rows) == 1
    made = grounded_rows([PASSAGE], Model(), 1)
    assert made.refused.why == {"no question and answer in the reply": 1}


def test_passages_are_sent_in_batches() -> None:
    model = Model()
    grounded_rows((PASSAGE for _ in range(BATCH + 3)), model, 1)
    assert [len(call) for call in model.calls] == [BATCH, 3]


def test_rows_of_documents_are_passages_and_others_are_refused(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, f"# Handbook\n\n{TEXT}\n", "handbook.md")
    made = grounded_rows(rows, Model(("Until when can goods be sent back?", "Within 14 days.")), 1)
    assert made.rows[0].values["source"] == "handbook.md lines 1-3"
    values: dict[str, Any] = {"prompt": "a"}
    with pytest.raises(UserError, match=r"rows\.csv line 2 has no text"):
        grounded_rows([Row(2, values, "rows.csv")], Model(), 1)
