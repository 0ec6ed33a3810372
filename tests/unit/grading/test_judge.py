from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tests.scripted import Scripted

from tuneloop.errors import UserError
from tuneloop.grading.judge import Judge, read_rubric


def answer_a(asked: str) -> str:
    return asked.split("<answer_a>\n")[1].split("\n</answer_a>")[0]


def answer_b(asked: str) -> str:
    return asked.split("<answer_b>\n")[1].split("\n</answer_b>")[0]


def by_length(asked: str) -> str:
    """An honest judge that likes the longer answer."""
    a, b = len(answer_a(asked)), len(answer_b(asked))
    return f"Because it is longer.\nVERDICT: {'TIE' if a == b else 'A' if a > b else 'B'}"


def test_a_win_needs_both_orders() -> None:
    found = Judge(Scripted(by_length)).compare(["q"] * 3, ["long one", "s", "same"], ["short", "longer", "4321"])
    assert found.winners == ["first", "second", "tie"]
    assert found.scores.tolist() == [1, 0, 0.5]
    assert (found.unreadable, found.position_bias) == (0, 0)


def test_a_judge_that_follows_the_place_decides_nothing() -> None:
    found = Judge(Scripted(lambda asked: "VERDICT: A")).compare(["q"] * 4, ["x"] * 4, ["y"] * 4)
    assert found.winners == ["tie"] * 4
    assert found.position_bias == 1


def test_nonsense_is_counted_and_not_guessed() -> None:
    replies = {"one": "I like both.", "two": "VERDICT: A\nVERDICT: B", "three": "VERDICT: C", "four": "VERDICT: A or B",
               "five": "VERDICT: A, VERDICT: B, or VERDICT: TIE", "six": ""}

    def judge(asked: str) -> str:
        first = answer_a(asked)
        return replies.get(first, "**Verdict: B.**")

    names = [*replies, "fine"]
    found = Judge(Scripted(judge)).compare(["q"] * 7, names, ["other"] * 7)
    assert found.winners == [None] * 6 + ["tie"]
    assert found.unreadable == 6
    assert np.isnan(found.scores).tolist() == [True] * 6 + [False]
    assert found.position_bias == 1         # of the one pair that can be read, won by its place
    assert math.isnan(Judge(Scripted(lambda asked: "")).compare(["q"], ["a"], ["b"]).position_bias)


@pytest.mark.parametrize(("reply", "grade"), [
    ("It is fine.\nGRADE: 4", 4), ("grade: 5.", 5), ("**GRADE: 2/5**", 2), ("3", 3), ("GRADE: 3\nGRADE: 3", 3),
    ("GRADE: 3\nGRADE: 4", None), ("GRADE: 6", None), ("GRADE: 4.5", None), ("GRADE: 1-2", None), ("", None),
    ("It deserves a 4", None), ("GRADE: 0", None), ("GRADE: 10/5", None)])
def test_grades_are_read_strictly(reply: str, grade: int | None) -> None:
    found = Judge(Scripted(lambda asked: reply)).grade(["q"], ["a"])
    assert (found.grades, found.unreadable) == ([grade], int(grade is None))
    assert found.scores == pytest.approx([np.nan if grade is None else (grade - 1) / 4], nan_ok=True)


def test_what_the_judge_is_shown() -> None:
    backend = Scripted(lambda asked: "GRADE: 1")
    Judge(backend, rubric="Say {please}.").grade(["Where {is} it?"], ["Here."], ["There."])
    [request] = backend.requests
    shown = request.messages[-1].content
    assert all(text in shown for text in ("Say {please}.", "Where {is} it?", "Here.", "There."))
    Judge(backend).grade(["q"], ["a"])
    assert "<reference>" not in backend.requests[-1].messages[-1].content


def test_a_rubric_from_a_file(tmp_path: Path) -> None:
    policy = tmp_path / "policy.md"
    policy.write_text("\nNever promise refunds.\n", encoding="utf-8")
    assert read_rubric(policy) == "Never promise refunds."
    policy.write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        read_rubric(policy)
    with pytest.raises(UserError, match="cannot be read"):
        read_rubric(tmp_path / "none.md")
