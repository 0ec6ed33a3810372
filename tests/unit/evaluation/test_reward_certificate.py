"""A goal on the reward, from answers that bring their rewards along: no grader is asked again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import certify, goal_metric, stacks_of
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.report_sections import check, score_table
from tuneloop.evaluation.text import change, score
from tuneloop.types import Answers

ROWS = 60
REFERENCES = [f"r{i}" for i in range(ROWS)]


def models(scale: float = 1.0) -> list[Answers]:
    base = np.linspace(0, 1, ROWS) * scale
    return [Answers("base", [f"a{i}" for i in range(ROWS)], rewards=base.tolist()),
            Answers("tuned", [f"b{i}" for i in range(ROWS)], rewards=(base + 0.25 * scale).tolist())]


def certified(scale: float = 1.0, **goal: Any) -> dict[str, Any]:
    return certify(Goal(metric="reward", **goal), "open", REFERENCES, models(scale), resamples=400, seed=0,
                   used_before=0, context={})


def test_the_gain_is_decided_on_its_interval() -> None:
    found = certified(better_than_base_by=0.05)
    [entry] = [one for one in found["differences"] if one["metric"] == "reward"]
    assert (found["verdict"], found["metric"]) == ("met", "reward")
    assert entry["value"] == pytest.approx(0.25)
    assert found["scores"]["tuned"]["reward"]["value"] == pytest.approx(0.75)
    assert certified(better_than_base_by=0.3)["verdict"] == "not met"


def test_rewards_are_numbers_and_no_shares() -> None:
    found = certified(10, better_than_base_by=0.5)
    assert "reward rose from 5.00 to 7.50 (+2.50, 95% interval +2.50 to +2.50)" in found["sentence"]
    assert found["scores"]["tuned"]["reward"]["high"] > 1
    row = check(found["checks"][0])
    assert (row["value_text"], row["bound_text"]) == ("+2.50", "+0.50")
    assert row["title"] == "Reward more than 0.50 above that of the base model"
    assert "%" not in "".join(text for text, _ in row["ticks"])
    at_least = check(certified(10, at_least=0.5)["checks"][0])
    assert (at_least["title"], at_least["value_text"]) == ("Reward of at least 0.50", "7.50")
    assert [row["value"] for row in score_table(found) if row["metric"] == "reward"] == ["5.00", "7.50"]
    assert (score("reward", 0.5), change("reward", 0.5), score("accuracy", 0.5)) == ("0.50", "+0.50", "50.0%")


def test_it_is_measured_wherever_answers_have_it() -> None:
    stacks, _ = stacks_of("labels", REFERENCES, models())
    assert [stack.metric for stack in stacks] == ["accuracy", "macro_f1", "reward"]
    without = [Answers(model.name, model.texts) for model in models()]
    assert "reward" not in [stack.metric for stack in stacks_of("labels", REFERENCES, without)[0]]


def test_a_goal_may_name_it_for_all_but_pairs() -> None:
    assert (goal_metric(Goal(metric="reward"), "open"), goal_metric(Goal(metric="reward"), "labels")) == ("reward",) * 2
    with pytest.raises(UserError):
        goal_metric(Goal(metric="reward"), "pairs")
