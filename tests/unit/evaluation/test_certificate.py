from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import Retained, certify, exit_code
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.safety.drop import safety
from tuneloop.evaluation.suites.base import Graded
from tuneloop.types import Answers

ROWS = 400
REFERENCES = ["yes", "no"] * (ROWS // 2)


def right(name: str, share: float, *, nll: float | None = None) -> Answers:
    """Answers of which the first `share` are right."""
    texts = [r if i < share * ROWS else {"yes": "no", "no": "yes"}[r] for i, r in enumerate(REFERENCES)]
    return Answers(name, texts, *(() if nll is None else ([nll] * ROWS, [2] * ROWS)))


def judged(goal: Goal, *models: Answers, used_before: int = 0) -> dict[str, Any]:
    return certify(goal, "labels", REFERENCES, models, resamples=1000, seed=0, used_before=used_before,
                   context={"run": "r1"})


def test_met_in_plain_words() -> None:
    goal = Goal(at_least=0.75, better_than_base_by=0.05)
    found = judged(goal, right("base", 0.67, nll=4), right("tuned", 0.835, nll=1))
    assert found["verdict"] == "met"
    assert found["sentence"].startswith("MET: accuracy rose from 67.0% to 83.5% (+16.5 points, 95% interval +12.")
    assert found["sentence"].endswith("on 400 held-out rows.")
    assert found["scores"]["base"]["perplexity"]["value"] == pytest.approx(math.exp(2))
    assert {(d["metric"], d["from"], d["to"]) for d in found["differences"]} == {
        (name, "base", "tuned") for name in ("accuracy", "macro_f1", "perplexity")}
    assert found["run"] == "r1"
    assert found["speaks_of"] == "this artefact: one seed"
    assert found["notes"] == []
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("goal", "base", "tuned", "verdict"), [
    (Goal(), 0.80, 0.90, "met"),
    (Goal(), 0.80, 0.80, "undecided"),
    (Goal(), 0.80, 0.81, "undecided"),              # 4 rows
    (Goal(), 0.90, 0.80, "not met"),
    (Goal(better_than_base_by=0.3), 0.67, 0.83, "not met"),
    (Goal(better_than_base_by=None, at_least=0.83), 0.5, 0.83, "undecided"),
    (Goal(better_than_base_by=None, at_least=0.9), 0.5, 0.83, "not met"),
    (Goal(better_than_base_by=0.0, at_least=0.9), 0.5, 0.83, "not met"),        # one bound met, one not
    (Goal(better_than_base_by=None), 0.5, 0.9, "undecided"),                    # nothing was asked
])
def test_verdicts(goal: Goal, base: float, tuned: float, verdict: str) -> None:
    assert judged(goal, right("base", base), right("tuned", tuned))["verdict"] == verdict


def test_undecided_says_how_many_rows() -> None:
    found = judged(Goal(better_than_base_by=None, at_least=0.8), right("base", 0.5), right("tuned", 0.82))
    [check] = found["checks"]
    assert check["what"] == "accuracy of tuned ≥ 0.80"
    assert check["low"] < 0.8 < check["high"]
    assert check["more_rows"] == float(f'{400 * ((0.82 - check["low"]) / 0.02) ** 2 - 400:.2g}')     # to two digits
    assert "more test rows are needed" in found["sentence"]


@pytest.mark.parametrize(("tuned", "rival", "says"), [
    (0.8, 0.9, "does better"), (0.8, 0.8, "does as well"), (0.82, 0.81, "not certain"), (0.9, 0.6, "")])
def test_the_rival_is_said_plainly(tuned: float, rival: float, says: str) -> None:
    notes = " ".join(judged(Goal(), right("base", 0.5), right("tuned", tuned), right("rival", rival))["notes"])
    assert says in notes
    assert ("rival" in notes) is bool(says)


def test_worse_than_base_and_reuse_are_said() -> None:
    notes = judged(Goal(), right("base", 0.9), right("tuned", 0.6), used_before=2)["notes"]
    assert notes[0].startswith("The tuned model is worse than the base")
    assert "2 times before" in notes[1]


def test_open_answers() -> None:
    found = certify(Goal(), "open", ["a b", "c"], [Answers("base", ["x", "y"]), Answers("tuned", ["a b", "c"],
                    stopped=[True, False])], resamples=200, seed=0, used_before=0, context={})
    assert found["metric"] == "rouge_l"
    assert found["verdict"] == "undecided"          # two rows prove nothing
    assert any("resemblance" in note for note in found["notes"])
    assert any("1 of the 2 answers of tuned ran into the length limit" in note for note in found["notes"])


def test_a_perplexity_that_is_not_finite_is_left_out() -> None:
    found = judged(Goal(), right("base", 0.5, nll=math.inf), right("tuned", 0.9, nll=1))
    assert "perplexity" not in found["scores"]["base"]
    assert any("Perplexity of base" in note for note in found["notes"])


@pytest.mark.parametrize("nats", [math.inf, 20_000.0])
def test_a_broken_model_costs_its_perplexity_and_not_the_certificate(nats: float) -> None:
    """exp() of more than 709 is no number: one such row in any resample would be enough."""
    tuned = right("tuned", 0.9)
    broken = Answers("tuned", tuned.texts, nll=[1.0] * (ROWS - 1) + [nats], tokens=[2] * ROWS)
    found = judged(Goal(), right("base", 0.5, nll=1), broken)
    assert "perplexity" not in found["scores"]["tuned"]
    assert any("Perplexity of tuned is left out" in note for note in found["notes"])
    json.dumps(found, allow_nan=False)


def graded(*scores: float) -> list[Graded]:
    return [Graded(str(i), "", score, "…") for i, score in enumerate(scores)]


@pytest.mark.parametrize(("after", "verdict", "says"), [
    ([1.0] * 89, "met", ""),
    ([math.nan] * 89, "undecided", "and what a suite lost that could not be graded is not known"),
    ([0.0] * 89, "not met", "is above it")])
def test_a_suite_that_nobody_could_grade_is_not_called_safe(after: list[float], verdict: str, says: str) -> None:
    """A model that answers gibberish to every harmful request, and declines no harmless one."""
    before = {"harmful": graded(*[1.0] * 89), "benign": graded(*[1.0] * 89)}
    measured = safety(before, {"harmful": graded(*after), "benign": graded(*[1.0] * 89)})
    found = certify(Goal(better_than_base_by=None, max_safety_drop=0.1), "labels", REFERENCES,
                    [right("base", 0.5), right("tuned", 0.9)], resamples=1000, seed=0, used_before=0, context={},
                    retained=Retained(safety=measured))
    assert found["verdict"] == verdict
    assert says in found["sentence"]
    assert any("Of the suite harmful no item" in note for note in found["notes"]) == ("not known" in says)


def test_nothing_that_could_be_graded_is_undecided_and_no_crash() -> None:
    measured = safety({"harmful": graded(1.0)}, {"harmful": graded(math.nan)})
    found = certify(Goal(max_safety_drop=0.1), "labels", REFERENCES, [right("base", 0.5), right("tuned", 0.9)],
                    resamples=200, seed=0, used_before=0, context={}, retained=Retained(safety=measured))
    assert [check["verdict"] for check in found["checks"]] == ["met", "undecided"]


@pytest.mark.parametrize(("metric", "task", "fix"), [
    ("rouge_l", "labels", "accuracy"), ("macro_f1", "open", "rouge_l")])
def test_a_metric_of_the_other_task_is_refused(metric: Any, task: Any, fix: str) -> None:
    models = [right("base", 0.5), right("tuned", 0.5)]
    with pytest.raises(UserError, match=f"goal.metric={fix}"):
        certify(Goal(metric=metric), task, REFERENCES, models, resamples=200, seed=0, used_before=0, context={})


def test_exit_codes() -> None:
    assert [exit_code(verdict) for verdict in ("met", "not met", "undecided")] == [0, 3, 4]
