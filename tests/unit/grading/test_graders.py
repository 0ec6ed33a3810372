from __future__ import annotations

import pytest

from tuneloop.errors import UserError
from tuneloop.grading.graders import Code, Grader, JsonSchema, Numeric, StringCheck, TextSimilarity, ToolCalls, Weighted
from tuneloop.types import Conversation, Message, Origin, Prompt, ToolCall

SAMPLE = Prompt((Message("user", "q"),), ("Paris",), Origin("questions.jsonl", 1))


def score(grader: Grader, reference: str, answer: str) -> float:
    return grader(reference, answer, SAMPLE)


@pytest.mark.parametrize(("operation", "same", "inside", "other_case"), [
    ("eq", 1, 0, 0), ("ne", 0, 1, 1), ("like", 1, 1, 0), ("ilike", 1, 1, 1)])
def test_string_checks(operation: str, same: float, inside: float, other_case: float) -> None:
    grader = StringCheck(operation)     # type: ignore[arg-type]
    found = [score(grader, "Paris", answer) for answer in ("Paris", "It is Paris.", "it is PARIS")]
    assert found == [same, inside, other_case]


def test_graders_are_the_metrics_of_one_row() -> None:
    assert score(TextSimilarity("token_f1"), "the year 1889", "1889") == pytest.approx(2 / 3)
    assert score(Numeric(), "7", "so it is 7") == 1
    assert score(Numeric(tolerance=0.1), "7", "7.5") == 1
    assert score(Code(), "assert f(2) == 4", "def f(x): return 2 * x") == 1
    assert score(Code(), "assert f(3) == 9", "def f(x): return 2 * x") == 0


def test_json_schema_grader() -> None:
    pytest.importorskip("jsonschema")
    grader = JsonSchema({"type": "array"})
    assert [score(grader, "", answer) for answer in ("[1]", "{}", "[1")] == [1, 0, 0]


def test_tool_calls_come_from_the_sample() -> None:
    sample = Conversation((Message("user", "q"), Message("assistant", "", calls=(ToolCall("f", "{}"),))), Origin("", 1))
    assert ToolCalls()("", '{"name": "f", "arguments": {}}', sample) == 1
    assert ToolCalls()("", "no", sample) == 0


def test_weights_count_by_proportion() -> None:
    grader = Weighted(((3, StringCheck("like")), (1, Numeric())))
    assert score(grader, "7", "7 or 8") == 0.75
    assert score(Weighted(((1, grader), (1, StringCheck("ne")))), "7", "7 or 8") == pytest.approx(0.875)


@pytest.mark.parametrize("make", [
    lambda: StringCheck("is"),      # type: ignore[arg-type]
    lambda: TextSimilarity("rogue"), lambda: TextSimilarity("length"), lambda: TextSimilarity("accuracy"),
    lambda: TextSimilarity("code"), lambda: Numeric(-1), lambda: Numeric(float("nan")), lambda: Weighted(()),
    lambda: Weighted(((-1, Numeric()), (2, Numeric()))), lambda: Weighted(((0, Numeric()),)),
    lambda: JsonSchema({"type": "text"})])
def test_wrong_settings_are_refused_when_made(make: object) -> None:
    with pytest.raises(UserError):
        make()      # type: ignore[operator]
