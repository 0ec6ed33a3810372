"""Graders that ask a model: what it is asked, and how its replies are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fake_api import completion, serving
from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case, Grader, Mark, Means
from tuneloop.grading.graders.catalog import Reader
from tuneloop.grading.graders.judged import REPLY, number_in
from tuneloop.inference.remote import Remote
from tuneloop.types import Completion, Sampling

SCORE = {"type": "score_model", "name": "close", "model": "small", "range": [0, 10], "input": [
    {"role": "developer", "content": "Compare {{ item.reference_answer }}."},
    {"role": "user", "content": [{"type": "input_text", "text": "with "}, "{{ sample.output_text }}"]}]}


def grader(given: dict[str, Any], root: Path | None = None) -> Grader:
    reader = Reader(root)
    made = reader.grader(given)
    assert made is not None, reader.flaws
    return made


def means(backend: Any, opened: list[tuple[str, str]] | None = None) -> Means:
    def opener(name: str, key_env: str) -> Any:
        (opened if opened is not None else []).append((name, key_env))
        return backend

    return Means(opener)


def replies(reply: str) -> Mark:
    case = Case("q", "r", "Paris", {"reference_answer": "Rome"})
    [mark] = grader(SCORE).grade([case], means(Scripted(lambda _: reply)))
    return mark


# ── score_model ──────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("reply", "number"), [
    ("0.7", 0.7), (" 3 \n", 3), ("-1e2", -100), ('{"result": 0.5}', 0.5), ('{"steps": [], "result": 2}', 2),
    ('```json\n{"result": 4}\n```', 4), ("```\n5\n```", 5)])
def test_numbers_are_read(reply: str, number: float) -> None:
    assert number_in(reply) == number


@pytest.mark.parametrize("reply", [
    "", "seven", "0.7 of 1", "Score: 0.7", "0.7, or 0.8", "true", '{"score": 1}', '{"result": "1"}', '{"result": true}',
    "NaN", "Infinity", "[1]", "1e999", "{", "1 2"])
def test_what_is_no_number_alone_is_not_guessed(reply: str) -> None:
    assert number_in(reply) is None


def test_the_messages_and_the_score() -> None:
    asked = Scripted(lambda text: "8" if "Paris" in text else "0")
    cases = [Case("q", "", answer, {"reference_answer": "Rome"}) for answer in ("Paris", "Oslo")]
    using = means(asked)
    assert [mark.score for mark in grader(SCORE).grade(cases, using)] == [8, 0]
    assert [(turn.role, turn.content) for turn in asked.requests[0].messages] == [
        ("system", "Compare Rome."), ("user", "with Paris")]
    assert (using.prompt_tokens, using.new_tokens) == ({"small": 2}, {"small": 4})


@pytest.mark.parametrize(("reply", "said"), [
    ("I cannot say.", "holds no number alone"), ("11", "11, outside of the range 0 to 10"), ("-1", "-1, outside")])
def test_other_replies_are_faults(reply: str, said: str) -> None:
    mark = replies(reply)
    assert math.isnan(mark.score)
    assert mark.fault is not None
    assert (mark.fault.flag, mark.fault.of_answer) == ("model_grader_parse_error", False)
    assert said in mark.fault.what


def test_a_reply_that_was_cut_says_so() -> None:
    class Cut(Scripted):
        def generate(self, requests: Any, sampling: Any, *, progress: Any = None) -> list[Completion]:
            return [Completion('{"steps": [', (), False, new_tokens=7) for _ in requests]

    [mark] = grader(SCORE).grade([Case("", "", "x", {"reference_answer": "y"})], means(Cut()))
    assert mark.fault is not None
    assert "cut after 7 tokens" in mark.fault.what


def test_a_row_without_a_variable_asks_nothing() -> None:
    asked = Scripted(lambda _: "1")
    good, bad = grader(SCORE).grade([Case("", "", "x", {"reference_answer": "y"}), Case("", "", "x", {})], means(asked))
    assert (good.score, len(asked.requests)) == (1, 1)
    assert bad.fault is not None
    assert bad.fault.flag == "invalid_variable_error"


def test_how_it_is_sampled() -> None:
    seen: list[Sampling] = []

    class Watched(Scripted):
        def generate(self, requests: Any, sampling: Any, *, progress: Any = None) -> list[Completion]:
            seen.append(sampling)
            return super().generate(requests, sampling, progress=progress)

    case = Case("", "", "x", {"reference_answer": "y"})
    grader(SCORE).grade([case], means(Watched(lambda _: "1")))
    params = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_completions_tokens": 9}
    grader(SCORE | {"sampling_params": params}).grade([case], means(Watched(lambda _: "1")))
    assert (seen[0].temperature, seen[0].max_new_tokens, seen[0].seed) == (0, 1024, 0)
    assert (seen[1].temperature, seen[1].top_p, seen[1].seed, seen[1].max_new_tokens) == (0.5, 0.9, 3, 9)


def test_a_server_is_held_to_the_documented_form() -> None:
    said = json.dumps({"steps": [{"description": "compare", "conclusion": "the same"}], "result": 10})
    with serving(lambda body: said) as api:
        [mark] = grader(SCORE).grade([Case("", "", "x", {"reference_answer": "y"})], means(Remote(api.url, "small")))
    assert mark.score == 10
    [(_, _, body)] = api.seen
    assert body["response_format"]["json_schema"]["schema"] == json.loads(REPLY)
    assert body["temperature"] == 0


def test_a_server_that_is_down_is_an_error_and_no_score() -> None:
    def refuse(handler: Any, body: Any) -> bool:
        handler.say({"error": {"message": "no"}}, 400)
        return True

    with serving(misbehave=refuse) as api, pytest.raises(UserError):
        grader(SCORE).grade([Case("", "", "x", {"reference_answer": "y"})], means(Remote(api.url, "small")))
    assert completion("x")["object"] == "chat.completion"


def test_without_models_there_is_no_judge() -> None:
    with pytest.raises(UserError, match="models cannot be asked here"):
        grader(SCORE).grade([Case("", "", "x", {"reference_answer": "y"})], Means())


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_a_judge_by_a_rubric(tmp_path: Path) -> None:
    (tmp_path / "style.md").write_text("Be short.")
    asked = Scripted(lambda text: "GRADE: 5" if "hello" in text.partition("<answer>")[2] else "No idea.")
    opened: list[tuple[str, str]] = []
    made = grader({"kind": "judge", "model": "http://x#m", "rubric": "style.md", "key_env": "KEY"}, tmp_path)
    good, unread = made.grade([Case("q1", "right", "hello"), Case("q2", " ", "bye")], means(asked, opened))
    assert (good.score, opened) == (1, [("http://x#m", "KEY")])
    assert unread.fault is not None
    assert unread.fault.what == "the judge's reply holds no clear grade: 'No idea.'"
    first, second = (request.messages[0].content for request in asked.requests)
    assert "Be short." in first
    assert ("right" in first, "<reference>" in second) == (True, False)
    assert len(made.files["rubric"]) == 64


def test_a_judge_that_sees_no_reference(tmp_path: Path) -> None:
    asked = Scripted(lambda _: "GRADE: 3")
    [mark] = grader({"kind": "judge", "model": "m", "shows_reference": False}, tmp_path).grade(
        [Case("q", "right", "a")], means(asked))
    assert mark.score == 0.5
    assert "right" not in asked.requests[0].messages[0].content.partition("<request>")[2]


def test_a_missing_rubric_is_refused(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.grader({"kind": "judge", "model": "m", "rubric": "none.md"}, ("rewards", "0")) is None
    [flaw] = reader.flaws
    assert (flaw.path, "cannot be read" in flaw.found) == (("rewards", "0", "rubric"), True)


def test_a_reward_model_is_asked_once_for_all(tmp_path: Path) -> None:
    made = grader({"kind": "reward_model", "run": "runs/rm"}, tmp_path)
    asked: list[str] = []

    def open_scorer(run: str) -> Any:
        asked.append(run)
        return lambda cases: [len(case.answer) - 3.5 for case in cases]

    using = Means(None, open_scorer)
    for _ in range(2):
        assert [mark.score for mark in made.grade([Case("", "", "a"), Case("", "", "abcd")], using)] == [-2.5, 0.5]
    assert asked == ["runs/rm"]
    with pytest.raises(UserError, match="reward models cannot be asked here"):
        made.grade([Case("", "", "a")], Means())
