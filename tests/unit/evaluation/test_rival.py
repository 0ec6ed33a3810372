from __future__ import annotations

import sys

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.rival import rival
from tuneloop.types import Conversation, Message, Origin


def row(text: str, label: str) -> Conversation:
    turns = (Message("system", "Be brief."), Message("user", f"Good or bad?\n\n{text}"), Message("assistant", label))
    return Conversation(turns, Origin("rows.csv", 2))


TRAIN = [row(f"{word} film {i}", label) for i in range(10)
         for word, label in (("lovely", "good"), ("superb", "good"), ("awful", "bad"), ("boring", "bad"))]


def test_learns_words() -> None:
    answers = rival(TRAIN, [row("a superb plot", "good"), row("so boring", "bad")])
    assert (answers.name, answers.texts, answers.nll) == ("rival", ["good", "bad"], None)


def test_one_label_in_training() -> None:
    assert rival([row("x", "good")] * 3, [row("y", "bad")]).texts == ["good"]


def test_texts_without_words() -> None:
    assert len(rival([row("!!!", "good"), row("???", "bad")], [row("?", "bad")]).texts) == 1


def test_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(UserError, match=r"tuneloop\[eval\]"):
        rival(TRAIN, TRAIN)
