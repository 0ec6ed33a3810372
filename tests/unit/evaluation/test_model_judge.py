from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.cost import Price
from tuneloop.evaluation.judged import (
    Policy,
    asked,
    case_of,
    choose,
    grade_answers,
    judged,
    mean_grade,
    preferred,
    read_policies,
)
from tuneloop.grading.judge import HELPFUL, Judge
from tuneloop.types import Conversation, Media, Message, Origin, ToolCall

NONSENSE = "I like both of them."
STYLE = Policy("style.md", "Be short.", "abc")


def part(shown: str, name: str) -> str:
    """What stands between a pair of tags of the judge's prompt; nothing where there is none."""
    found = re.search(rf"<{name}>\n(.*?)\n</{name}>", shown, re.DOTALL)
    return found[1] if found else ""


def by_words(grades: dict[str, str], prefers: Callable[[str, str], str] = lambda a, b: "TIE") -> Scripted:
    """A judge that grades an answer by its text, and of two prefers A, B or TIE."""
    def reply(shown: str) -> str:
        if answer := part(shown, "answer"):
            return f"GRADE: {grades[answer]}" if answer in grades else NONSENSE
        return f"VERDICT: {prefers(part(shown, 'answer_a'), part(shown, 'answer_b'))}"
    return Scripted(reply, name="the judge")


def rows(count: int) -> list[Conversation]:
    return [Conversation((Message("user", f"q{i}"), Message("assistant", f"r{i}")), Origin("a.jsonl", i + 1))
            for i in range(count)]


def heard(judge: Scripted, base: list[str], tuned: list[str], *policies: Policy, **more: Any) -> dict[str, Any]:
    case = case_of(rows(len(base)), [f"r{i}" for i in range(len(base))], {"base": base, "tuned": tuned})
    return judged(judge, case, policies or [Policy()], resamples=400, **more)


def test_grades_before_and_after_are_those_of_the_rows_that_were_read_both_times() -> None:
    """The means, by hand: base (1 + 3 + 5) / 3, tuned (4 + 4 + 5) / 3; the last row has no readable grade of base."""
    judge = by_words({"one": "1", "three": "3", "five": "5", "four": "4"})
    found = heard(judge, ["one", "three", "five", "?"], ["four", "four", "five", "one"])
    [policy] = found["result"]["policies"]
    grade, passed = policy["grade"], policy["passed"]
    assert (policy["policy"], policy["rows"], policy["unreadable"]) == ("helpful", 3, {"base": 1, "tuned": 0})
    assert policy["grades"] == {"base": [1, 0, 1, 0, 1], "tuned": [1, 0, 0, 2, 1]}
    assert (grade["from"], grade["to"]) == ("base", "tuned")
    assert [grade["scores"][name]["value"] for name in ("base", "tuned")] == pytest.approx([3, 13 / 3])
    assert grade["value"] == pytest.approx(4 / 3)
    assert (grade["wins"], grade["losses"], grade["ties"]) == (2, 0, 1)
    assert [passed["scores"][name]["value"] for name in ("base", "tuned")] == pytest.approx([1 / 3, 1])
    for one, ends in ((grade, (1, 5)), (passed, (0, 1))):
        assert one["low"] <= one["value"] <= one["high"]
        assert all(ends[0] <= of["low"] <= of["value"] <= of["high"] <= ends[1] for of in one["scores"].values())
    assert [row["grades"]["helpful"] for row in found["rows"]] == [
        {"base": 1, "tuned": 4}, {"base": 3, "tuned": 4}, {"base": 5, "tuned": 5}, {"base": None, "tuned": 1}]


def test_an_interval_of_grades_that_are_all_alike_is_not_a_point() -> None:
    """The rule of three: among 30 grades of 5 about 3 / 30 of the range may be unseen."""
    grades = Judge(by_words({"good": "5"})).grade(["q"] * 30, ["good"] * 30)
    found = mean_grade(grades, resamples=4000)
    assert found["grade"]["value"] == found["grade"]["high"] == 5
    assert found["grade"]["low"] == pytest.approx(5 - 4 * 3 / 30, abs=0.15)
    assert found["passed"]["low"] == pytest.approx(1 - 3 / 30, abs=0.04)


def test_pairs_count_a_win_only_in_both_orders_and_leave_out_what_is_the_same() -> None:
    def longer(a: str, b: str) -> str:
        return "A" if "placed" in (a + b) or len(a) > len(b) else "TIE" if len(a) == len(b) else "B"

    base = ["long one", "s", "same", "placed", "abc", "s"]
    tuned = ["short", "longer", " same", "other", "xyz", "longest"]
    found = heard(by_words({}, longer), base, tuned)
    pairs = found["result"]["pairs"]
    assert (pairs["pairs"], pairs["same_answers"], pairs["judged"]) == (5, 1, 5)
    assert (pairs["wins"], pairs["losses"], pairs["ties"]) == (2, 1, 2)
    assert pairs["win_rate"]["value"] == pytest.approx(2 / 3)
    assert pairs["ties_as_half"]["value"] == pytest.approx(3 / 5)
    assert pairs["position_bias"] == pytest.approx(1 / 5)       # the one that always had A
    assert (pairs["verdict"], pairs["replies"], pairs["unreadable"]) == ("undecided", 10, 0)
    assert [row["winner"] for row in found["rows"]] == ["base", "tuned", "same answer", "tie", "tie", "tuned"]


def test_a_win_rate_has_the_exact_interval() -> None:
    """Clopper and Pearson of n wins of n: from 0.025 ** (1 / n) to 1."""
    judge = by_words({}, lambda a, b: "A" if len(a) > len(b) else "B")
    pairs = heard(judge, ["a"] * 7, ["longer"] * 7)["result"]["pairs"]
    assert pairs["win_rate"] == pytest.approx({"value": 1, "low": 0.025 ** (1 / 7), "high": 1})
    assert pairs["verdict"] == "better"
    case = case_of(rows(2), ["", ""], {"a": ["x", "y"], "b": ["x", "y"]})
    nothing = preferred(case, choose(Judge(by_words({})), case))
    assert (nothing["pairs"], nothing["win_rate"], nothing["ties_as_half"]) == (0, None, None)
    assert nothing["usable"]


def test_nonsense_is_counted_and_makes_a_judge_unusable() -> None:
    result = heard(Scripted(lambda shown: NONSENSE), ["a"] * 4, ["b"] * 4)["result"]
    [policy] = result["policies"]
    assert (result["replies"], result["unreadable"], result["usable"]) == (16, 16, False)
    assert (policy["rows"], policy["grade"], policy["passed"], policy["usable"]) == (0, None, None, False)
    pairs = result["pairs"]
    assert (pairs["judged"], pairs["win_rate"], pairs["position_bias"], pairs["usable"]) == (0, None, None, False)


def test_a_third_of_nonsense_is_the_most_that_is_usable() -> None:
    judge = by_words({"read": "4"})
    third = mean_grade(Judge(judge).grade(["q"] * 3, ["read", "read", "?"]))
    more = mean_grade(Judge(judge).grade(["q"] * 5, ["read", "read", "read", "?", "!"]))
    assert (third["unreadable"], third["usable"]) == (1, True)
    assert (more["unreadable"], more["usable"]) == (2, False)
    assert third["grade"]["value"] == 4


def test_each_policy_grades_alone_and_pairs_are_judged_once_by_all() -> None:
    tone = Policy("tone.md", "Be kind.", "def")
    judge = by_words({"a": "2", "b": "4"}, lambda a, b: "A" if a == "b" else "B")
    result = heard(judge, ["a"] * 3, ["b"] * 3, STYLE, tone)["result"]
    shown = [request.messages[-1].content for request in judge.requests]
    grading = [text for text in shown if "<answer>" in text]
    assert [sum(policy.text in text for text in grading) for policy in (STYLE, tone)] == [6, 6]
    pairs = [text for text in shown if "<answer_a>" in text]
    assert len(pairs) == 6
    assert all(text in one for one in pairs for text in (HELPFUL, "Be short.", "Be kind."))
    assert result["pairs"]["by"] == ["style.md", "tone.md"]
    # 3 of 3 rows better: of the 4 ways to flip signs (up to all) one is as extreme; Holm multiplies by the 4 compared
    ps = [policy[key]["p"] for policy in result["policies"] for key in ("grade", "passed")]
    assert ps == [0.25] * 4
    assert [policy[key]["p_holm"] for policy in result["policies"] for key in ("grade", "passed")] == [1.0] * 4


def test_the_right_answer_is_shown_only_where_correctness_counts() -> None:
    case = case_of(rows(1), ["the reference"], {"m": ["a"]})
    judge = Scripted(lambda shown: "GRADE: 3")
    for policy, shows in ((Policy(), True), (STYLE, False)):
        grade_answers(Judge(judge, policy.text), policy, case, "m")
        assert ("the reference" in judge.requests[-1].messages[-1].content) == shows


def test_a_question_names_the_row_whose_texts_stand_in_it() -> None:
    """So that the judge's replies go when a row is purged."""
    samples = [Conversation(row.messages, Origin("a.jsonl", i + 1, f"hash {i}")) for i, row in enumerate(rows(4))]
    judge = by_words({"a": "4", "b": "4"})
    judged(judge, case_of(samples, [""] * 4, {"base": ["a", "b"] * 2, "tuned": ["b"] * 4}), [Policy()])
    for request in judge.requests:
        [number] = re.findall(r"<request>\nq(\d)\n", request.messages[-1].content)
        assert request.rows == (f"hash {number}",)
    assert len(judge.requests) == 2 * 4 + 2 * 2


def test_what_the_judge_cost() -> None:
    """4 grades and 4 verdicts; the script takes a token for each question, and for two words and their end three."""
    price = Price(prompt_usd_per_million=1, answer_usd_per_million=10)
    judge = by_words({"a": "4", "b": "4"})
    cost = heard(judge, ["a", "a"], ["b", "b"], price=price)["result"]["cost"]
    assert (cost["prompt_tokens"], cost["new_tokens"]) == (8, 24)
    assert cost["usd"] == pytest.approx((8 * 1 + 24 * 10) / 1e6)
    assert cost["machine_seconds"] == pytest.approx(0.08)
    assert heard(judge, ["a"], ["b"])["result"]["cost"]["usd"] is None


def test_rows_are_drawn_by_the_seed() -> None:
    answers = {"base": [f"b{i}" for i in range(50)], "tuned": [f"t{i}" for i in range(50)]}
    first, again, other = (case_of(rows(50), [""] * 50, answers, 10, seed) for seed in (3, 3, 4))
    assert first == again
    assert first.rows != other.rows
    assert (len(set(first.rows)), sorted(first.rows)) == (10, first.rows)
    assert first.prompts == [f"q{i}" for i in first.rows]
    assert first.answers["tuned"] == [f"t{i}" for i in first.rows]
    assert first.questions([Policy(), STYLE]) == 2 * 2 * 10 + 2 * 10
    assert len(case_of(rows(50), [""] * 50, answers, 99).rows) == 50


def test_what_was_asked_as_the_judge_reads_it() -> None:
    assert asked((Message("user", "Where?"),)) == "Where?"
    turns = (Message("system", "Be kind."), Message("user", "What is it?", media=(Media("image", "a.png"),)),
             Message("assistant", "", calls=(ToolCall("find", '{"id": 1}'),)), Message("tool", "none"))
    shown = asked(turns)
    assert shown.startswith("system: Be kind.\n\nuser: What is it?\n[image, which is not shown to you]\n\nassistant: ")
    assert '{"name": "find", "arguments": {"id": 1}}' in shown
    assert shown.endswith("\n\ntool: none")


def test_policies_from_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "style.md").write_text(f"\nStyle {folder}.\n")
    (tmp_path / "tone.md").write_text("Be kind.")
    found = read_policies(["a/style.md", "b/style.md", "tone.md"], tmp_path)
    assert [(policy.name, policy.text) for policy in found] == [
        ("a/style.md", "Style a."), ("b/style.md", "Style b."), ("tone.md", "Be kind.")]
    assert found[2].sha256 == hashlib.sha256(b"Be kind.").hexdigest()
    assert read_policies([], tmp_path) == [Policy("helpful", HELPFUL, "")]
    (tmp_path / "empty.md").write_text(" ")
    with pytest.raises(UserError) as caught:
        read_policies(["none.md", "empty.md", "tone.md", str(tmp_path / "tone.md")], tmp_path)
    assert all(text in caught.value.text for text in ("none.md cannot be read", "empty.md is empty",
                                                     "tone.md is named twice"))


def test_numbers_are_json() -> None:
    """A certificate is signed as JSON, which has no nan."""
    def numbers(value: Any) -> list[float]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if isinstance(value, float) else [number for one in inner for number in numbers(one)]

    for reply in (NONSENSE, "VERDICT: A", "GRADE: 3"):
        assert all(map(math.isfinite, numbers(heard(Scripted(lambda shown, r=reply: r), ["a"], ["b"]))))
