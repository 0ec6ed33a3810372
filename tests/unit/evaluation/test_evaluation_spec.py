"""What a recipe asks to be measured and cannot be is refused before anything is spent."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.spec import EvaluationSpec


@pytest.mark.parametrize(("evaluation", "goal", "task", "says"), [
    ({"metrics": ["bleu"]}, {}, "labels", "evaluation.metrics: bleu is for open, but the answers are labels"),
    ({"metrics": ["ece"]}, {}, "open", "ece is for labels"),
    ({"metrics": ["json_schema"]}, {}, "open", "needs a schema"),
    ({"metrics": ["accuracy"]}, {}, "pairs", "accuracy is for labels"),
    ({"compare_to": ["a", "a"]}, {}, "labels", "called a"),
    ({"few_shot": 0}, {"better_than_few_shot_by": 0.0}, "labels", "evaluation.few_shot is 0"),
    ({}, {"better_than_few_shot_by": 0.0}, "pairs", "asked of the base and the tuned model alone"),
    ({"suites": ["harmful"]}, {"max_forgetting": 0.1}, "labels", "nothing that measures it"),
    ({"policies": ["a.md"]}, {}, "open", "nobody judges by them"),
    ({"judge": "a"}, {}, "labels", "right or wrong without a judge"),
])
def test_refused(evaluation: dict[str, Any], goal: dict[str, Any], task: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        EvaluationSpec(**evaluation).check_measures(Goal(**goal), task)


@pytest.mark.parametrize("bound", ["max_forgetting", "max_safety_drop"])
def test_a_reward_model_cannot_be_asked_what_it_forgot(bound: str) -> None:
    goal = Goal(**{bound: 0.1})
    EvaluationSpec().check_measures(goal, "pairs")
    with pytest.raises(UserError, match="a reward model writes no answers"):
        EvaluationSpec().check_measures(goal, "pairs", writes=False)


def test_a_metric_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    spec = EvaluationSpec(metrics=["bleu", "rouge_1"])
    spec.check_measures(Goal(), "open")
    monkeypatch.setattr("tuneloop.evaluation.spec.find_spec",
                        lambda name: None if name == "sacrebleu" else found(name))
    with pytest.raises(UserError, match=r"evaluation.metrics: bleu needs the package sacrebleu[^$]*tuneloop\[eval\]"):
        spec.check_measures(Goal(), "open")
