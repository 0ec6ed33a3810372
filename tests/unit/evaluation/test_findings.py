from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from example_run import example_run
from rich.console import Console

from tuneloop.evaluation.findings import BLIND, Finding, findings, next_steps
from tuneloop.terminal import show_verdict


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def difference(other: str, value: float, low: float, high: float, metric: str = "accuracy",
               **more: Any) -> dict[str, Any]:
    return {"metric": metric, "from": other, "to": "tuned", **interval(value, low, high), **more}


def certificate(**more: Any) -> dict[str, Any]:
    return {"verdict": "met", "sentence": "MET: it rose.", "metric": "accuracy", "task": "labels", "checks": [],
            "scores": {name: {"accuracy": interval(value, value - 0.1, value + 0.1)}
                       for name, value in (("base", 0.5), ("few_shot", 0.7), ("tuned", 0.75))}} | more


def found(key: str, **more: Any) -> Finding:
    return next(one for one in findings(certificate(**more)) if one.key == key)


def check(what: str, verdict: str, bound: float, more_rows: int | None = None) -> dict[str, Any]:
    return {"what": what, "verdict": verdict, **interval(0.1, 0, 0.2), "bound": bound, "more_rows": more_rows}


@pytest.mark.parametrize(("low", "high", "p", "answer", "tone"), [
    (0.01, 0.2, 0.001, "Yes", "good"), (0.01, 0.2, 0.2, "Likely", "open"), (-0.01, 0.2, 0.001, "Not certain", "open"),
    (0.0, 0.2, None, "Not certain", "open"), (-0.2, -0.01, None, "No, worse", "bad"),
    (-0.2, -0.01, 0.4, "Likely worse", "bad")])
def test_an_answer_is_what_the_interval_allows(low: float, high: float, p: float | None, answer: str,
                                               tone: str) -> None:
    one = found("few_shot", differences=[difference("few_shot", (low + high) / 2, low, high, p_holm=p)])
    assert (one.answer, one.tone) == (answer, tone)
    assert "75.0% against 70.0%" in one.text
    assert ("corrected" in one.text) == (answer.startswith("Likely"))


def test_what_the_goal_asked_before_training_needs_no_correction() -> None:
    entry = difference("few_shot", 0.05, 0.01, 0.09, p_holm=0.3)
    asked = check("accuracy of tuned − few_shot > 0.00", "met", 0)
    assert found("few_shot", differences=[entry], checks=[asked]).answer == "Yes"
    assert found("few_shot", differences=[entry]).text == (
        "+5.0 points (+1.0 to +9.0), 75.0% against 70.0%; p = 0.300 once corrected for all that was compared.")


def test_where_lower_is_better_a_fall_is_good() -> None:
    scores = {name: {"ece": interval(0.1, 0.05, 0.15)} for name in ("base", "tuned")}
    fell = difference("base", -0.05, -0.08, -0.02, "ece")
    one = found("base", metric="ece", scores=scores, differences=[fell])
    assert one.answer == "Yes"
    assert one.text.startswith("−5.0 points (−8.0 to −2.0)")


@pytest.mark.parametrize(("drop", "verdict", "answer", "text"), [
    (interval(0.03, 0.01, 0.05), None, "Some is lost", "3.0 points lost (interval of the loss +1.0 to +5.0)"),
    (interval(0.004, -0.01, 0.02), None, "Not certain", "0.4 points lost"),
    (interval(-0.03, -0.05, -0.01), None, "Nothing is lost", "3.0 points gained (interval of the loss −5.0 to −1.0)"),
    (interval(0.0, -0.01, 0.01), None, "Not certain", "0.0 points lost or gained"),
    (interval(0.01, 0.001, 0.02), "met", "Within 2 points", "1.0 points lost"),
    (interval(0.05, 0.03, 0.07), "not met", "Too much", "5.0 points lost"),
    (interval(0.01, -0.01, 0.03), "undecided", "Not certain", "whether it is within 2 points is not certain"),
    (interval(0.03, 0.01, 0.05), "undecided", "Some is lost", "whether it is within 2 points is not certain")])
def test_words_for_a_loss(drop: dict[str, float], verdict: str | None, answer: str, text: str) -> None:
    checks = [check("forgetting ≤ 0.02", verdict, 0.02)] if verdict else []
    one = found("forgetting", checks=checks, forgetting={
        "drop": drop, "by_suite": {"knowledge": 0.1, "instructions": 0.0, "fluency": 0.0}, "items": 1200})
    assert one.answer == answer
    assert text in one.text
    assert "1,200 items of knowledge, instructions and fluency" in one.text
    suites = [{"suite": "harmful", "drop": drop}, {"suite": "benign", "drop": drop}, {"suite": "x", "drop": None}]
    safe = {"suites": suites, "worst": "harmful", "drop": drop}
    checks = [check("drop in safety ≤ 0.02", verdict, 0.02)] if verdict else []
    one = found("safety", checks=checks, safety=safe)
    assert one.answer == answer
    assert f"the {'least' if drop['value'] < 0 else 'most'} of 2 suites: harmful requests declined" in one.text


def test_safety_that_could_not_be_compared_is_not_called_safe() -> None:
    one = found("safety", safety={"suites": [{"suite": "harmful", "drop": None}], "worst": "", "drop": None})
    assert (one.answer, one.tone) == ("Not measured", "open")


def test_the_weakest_part_and_where_it_fell() -> None:
    entry = {"slice": "label: refund", "from": "base", "to": "tuned", "rows": 82,
             "scores": {"base": interval(0.7, 0.6, 0.8), "tuned": interval(0.61, 0.5, 0.71)}}
    report: dict[str, Any] = {"metric": "accuracy", "slices": [entry], "worst": ["label: refund"], "fell": []}
    one = found("slices", slices=report)
    assert (one.answer, one.text) == ("", "label: refund, Accuracy 61.0% (50.0% to 71.0%) on 82 rows.")
    one = found("slices", slices=report | {"fell": ["label: refund"]})
    assert (one.answer, one.tone) == ("Worse in 1 part", "bad")
    assert one.text.endswith("Worse than the base in: label: refund.")


def test_cost_of_right_answers_in_money_or_time() -> None:
    def cost(usd: float | None, seconds: float | None, correct: float = 5) -> dict[str, Any]:
        return {"correct": correct, "usd_per_1000_correct": usd, "machine_seconds_per_1000_correct": seconds,
                "usd_per_1000": usd and usd / 2, "machine_seconds_per_1000": 61.0}
    both = {"base": cost(0.61, 120), "tuned": cost(0.4, 65), "few_shot": cost(None, 300)}
    assert found("cost", costs=both).text == "$0.400 for 1,000 right answers (base $0.610)."
    assert found("cost", costs=both, task="open").text == "$0.200 for 1,000 answers (base $0.305)."
    both["tuned"] = cost(None, 65)
    assert found("cost", costs=both).text == (
        "1 min 5 s of the machine for 1,000 right answers (base 2 min, with examples 5 min).")
    assert "No answer was right" in found("cost", costs={"tuned": cost(None, None, 0)}).text


def test_people_are_asked_where_no_metric_is_honest() -> None:
    assert found("people", task="open").text == BLIND
    judged = {"verdict": "undecided", "win_rate": interval(0.6, 0.4, 0.8), "wins": 12, "losses": 8, "judged": 25}
    one = found("people", blind=judged)
    assert (one.answer, one.text) == ("Not certain", "win rate 60.0% (40.0% to 80.0%), 12 won and 8 lost of 25 blind "
                                                     "pairs.")
    assert found("people", blind=judged | {"verdict": "worse", "win_rate": None}).answer == "No"
    assert not [one for one in findings(certificate()) if one.key == "people"]


def judged(*, low: float, high: float, verdict: str, grades: tuple[float, float] = (0.1, 0.5),
           unreadable: int = 2) -> dict[str, Any]:
    usable = unreadable <= 20
    policy = {"policy": "style.md", "usable": usable, "grade": interval(0.31, *grades)}
    return {"judge": {"name": "large"}, "replies": 60, "unreadable": unreadable, "usable": usable, "policies": [policy],
            "pairs": {"verdict": verdict, "usable": usable, "win_rate": interval(0.6, low, high)}}


def test_what_a_judge_prefers_is_called_an_opinion() -> None:
    one = found("judge", judged=judged(low=0.55, high=0.7, verdict="better"))
    assert (one.answer, one.tone) == ("Yes", "good")
    assert one.text == ("The opinion of large, a model and no person: win rate 60.0% (55.0% to 70.0%); mean grade "
                        "+0.31 by style.md (+0.10 to +0.50).")
    assert found("judge", judged=judged(low=0.4, high=0.7, verdict="undecided")).answer == "Not certain"
    assert found("judge", judged=judged(low=0.2, high=0.4, verdict="worse")).answer == "No"
    fell = found("judge", judged=judged(low=0.55, high=0.7, verdict="better", grades=(-0.9, -0.1)))
    assert (fell.answer, fell.tone) == ("Worse by style.md", "bad")
    one = found("judge", judged=judged(low=0.55, high=0.7, verdict="better", unreadable=21))
    assert (one.answer, one.tone) == ("Judge not usable", "open")
    assert "21 of 60 replies have no clear verdict" in one.text
    gone = found("judge", judged={"judge": {"name": "large"}, "left_out": "It cannot be reached."})
    assert (gone.answer, gone.text) == ("Not asked", "large was left out: It cannot be reached.")


def test_memory() -> None:
    assert found("memory", memorised={"rows": 10, "verbatim": 0}).answer == "None found"
    assert found("memory", memorised={"rows": 10, "verbatim": 2}).tone == "bad"
    assert found("memory", memorised={"rows": 0, "verbatim": 0}).answer == "Not measured"
    planted = {"canaries": 4, "extracted": {"before": 0, "after": 0}, "beyond_chance": False,
               "exposure": {"before": 1.2, "after": 1.3, "chance": 1.4, "most": 9.0}}
    assert found("memory", canaries=planted).answer == "None found"
    one = found("memory", canaries=planted | {"beyond_chance": True})
    assert (one.answer, one.tone) == ("It may know planted secrets", "open")
    assert one.text == "0 of 4 planted secrets were said, exposure 1.3 bits (chance 1.4)."
    assert found("memory", canaries=planted | {"extracted": {"before": 0, "after": 1}}).tone == "bad"
    personal = {"answers": 9, "with_personal_data": {"base": 1, "tuned": 3}}
    one = found("memory", personal=personal)
    assert (one.answer, one.text) == ("More personal data", "3 answers hold personal data (base 1).")
    for base, tuned, answer in ((3, 3, "No more personal data than the base"), (3, 0, "None found")):
        one = found("memory", personal={"answers": 9, "with_personal_data": {"base": base, "tuned": tuned}})
        assert (one.answer, one.tone) == (answer, "good")


def steps(verdict: str, *checks: dict[str, Any], **more: Any) -> str:
    return " ".join(next_steps(certificate(verdict=verdict, checks=list(checks), **more)))


def test_what_to_do_next_follows_from_what_was_found() -> None:
    worse = [difference("base", -0.1, -0.2, -0.01)]
    assert steps("not met", differences=worse).startswith("Do not use this model: it is worse than the base.")
    assert "tuneloop mend" in steps("not met", check("forgetting ≤ 0.02", "not met", 0.02))
    assert "worst safety suite" in steps("not met", check("drop in safety ≤ 0.05", "not met", 0.05))
    assert "tuneloop mend" not in steps("not met", check("accuracy of tuned ≥ 0.80", "not met", 0.8))
    undecided = steps("undecided", check("accuracy of tuned ≥ 0.80", "undecided", 0.8, 400),
                      check("accuracy of tuned − base > 0.00", "undecided", 0, 1900))
    assert "about 1,900 more test rows" in undecided
    assert "goal.at_least" in steps("undecided")
    unsettled = check("drop in safety ≤ 0.05", "undecided", 0.05)
    assert "further suites" in steps("undecided", unsettled)
    gibberish = {"suites": [{"suite": "harmful", "drop": None}], "worst": "", "drop": None}
    assert "nothing of it could be graded" in steps("undecided", unsettled, safety=gibberish)
    assert "settle the forgetting" in steps("undecided", check("forgetting ≤ 0.02", "undecided", 0.02))
    assert "40 blind pairs" in steps("met", task="open")
    unsure = [difference("few_shot", 0, -0.1, 0.1)]
    assert "needs no training, and it is not certain" in steps("met", differences=unsure)
    assert "trains in seconds, and does better" in steps("met", differences=[difference("rival", -0.1, -0.2, -0.01)])
    assert steps("met", differences=[difference("few_shot", 0.1, 0.05, 0.2)]).startswith("It is shown for rows like")


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert findings({}) == []
    nothing = dict.fromkeys(("differences", "slices", "forgetting", "safety", "costs", "memorised", "personal", "blind",
                             "judged", "checks", "scores"))
    assert [one.key for one in findings(certificate(**nothing))] == ["next"]


def shown(certificate: dict[str, Any]) -> list[str]:
    written = io.StringIO()
    show_verdict(Console(file=written, width=1000), certificate)
    return [line.strip() for line in written.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("kind", [{"labels": 20, "lost": 0.4}, {"task": "open"}, {"task": "pairs"}])
def test_the_terminal_says_it_in_seven_lines(tmp_path: Path, kind: dict[str, Any]) -> None:
    certificate = example_run(tmp_path / "run", audit=True, **kind).read("certificate.json")
    lines = shown(certificate)
    models, notes = len(certificate["scores"]), len(certificate["notes"])
    assert lines[0] == certificate["sentence"]
    said = lines[2 + models:len(lines) - notes]
    assert [line.split("  ")[0] for line in said] == ["better than few-shot", "a judge prefers it", "forgetting",
                                                      "safety", "weakest", "cost", "next"]
    texts = {one.key: one for one in findings(certificate)}
    assert said[0].endswith(f"{texts['few_shot'].answer.lower()}: {texts['few_shot'].text}")
    value = certificate["scores"]["tuned"][certificate["metric"]]["value"]
    assert lines[1 + models].split()[:2] == ["Tuned", f"{value:.1%}"]


def test_the_terminal_takes_a_certificate_of_old(tmp_path: Path) -> None:
    certificate = example_run(tmp_path / "run").read("certificate.json")
    lines = shown(certificate)
    assert lines[0] == certificate["sentence"]
    assert [line.split("  ")[0] for line in lines[5:]] == ["next", *certificate["notes"]]
