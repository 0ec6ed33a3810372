"""Whether the base meets the goal without training: decided on the interval, about bounds that the user wrote."""

from __future__ import annotations

import pytest

from tuneloop.evaluation.enough import enough
from tuneloop.evaluation.goal import Goal
from tuneloop.types import Answers

REFERENCES = ["yes", "no"] * 200


def right(name: str, share: float) -> Answers:
    other = {"yes": "no", "no": "yes"}
    return Answers(name, [r if i < share * 400 else other[r] for i, r in enumerate(REFERENCES)])


def told(goal: Goal, few_shot: float, name: str = "few_shot") -> str:
    return enough(goal, "labels", REFERENCES, right("base", 0.5), [right("rival", 1.0), right(name, few_shot)],
                  resamples=500, seed=0)


@pytest.mark.parametrize(("goal", "few_shot", "met"), [
    ({"at_least": 0.8}, 0.9, True),
    ({"at_least": 0.8}, 0.82, False),           # the interval includes the bound
    ({"at_least": 0.8}, 0.7, False),
    ({"better_than_base_by": 0.1}, 0.8, True),
    ({"better_than_base_by": 0.1}, 0.6, False),
    ({"at_least": 0.8, "better_than_base_by": 0.45}, 0.9, False),       # one of two bounds
    ({}, 0.9, False),                                                   # nothing that the user asked for
    ({"metric": "accuracy"}, 0.9, False),
    ({"at_least": 0.8, "better_than_few_shot_by": 0.0}, 0.9, False),    # more than examples was asked for
    ({"at_least": 0.8, "max_forgetting": 0.01}, 0.9, True),             # what does not change forgets nothing
])
def test_when_training_is_not_needed(goal: dict[str, float], few_shot: float, met: bool) -> None:
    assert bool(told(Goal(**goal), few_shot)) == met      # type: ignore[arg-type]


def test_it_is_said_with_numbers() -> None:
    said = told(Goal(at_least=0.8), 0.9)
    assert said.startswith("Fine-tuning is not needed for this goal: the base with examples in its prompt meets it "
                           "already, with accuracy 90.0% (8")
    assert "on 400 test rows" in said
    assert "a better prompt" in told(Goal(at_least=0.8), 0.9, "optimised_prompt")


def test_a_rival_that_was_trained_does_not_count() -> None:
    found = enough(Goal(at_least=0.8), "labels", REFERENCES, right("base", 0.5), [right("rival", 1.0)], resamples=500,
                   seed=0)
    assert found == ""
