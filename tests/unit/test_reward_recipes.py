"""The `rewards:` of a recipe: where they are used, where they are refused, and what a run folder's copy says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from toy import labels_csv
from tuneloop.errors import UserError
from tuneloop.grading.reward_spec import Reward
from tuneloop.recipe import Recipe, parse, schema

LEAST = "base: some-base\ndata: {train: rows.csv}\n"
GRPO = f"{LEAST}objective: grpo\n"
SOURCE = "def grade(sample, item):\n    return 1\n"


def made(text: str, *overrides: str, root: Path = Path(), **options: Any) -> Recipe:
    return parse(text, shown="my.yaml", root=root, overrides=overrides, **options)


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        made(text, *overrides)
    return caught.value.text


def test_rewards_are_graders_with_weights() -> None:
    recipe = made(f"{GRPO}rewards: [exact, {{kind: length, high: 5, weight: 0.5}}]")
    assert [(one.name, one.weight) for one in recipe.rewards] == [("exact", 1), ("length", 0.5)]
    assert all(isinstance(one, Reward) for one in recipe.rewards)
    assert recipe.rewards_record[1]["high"] == 5
    assert made(LEAST).rewards == ()


@pytest.mark.parametrize("objective", ["ppo", "grpo", "rloo", "dpo", "{kind: orpo}"])
def test_objectives_that_sample_use_them(objective: str) -> None:
    assert made(f"{LEAST}objective: {objective}\nrewards: [exact]").rewards


@pytest.mark.parametrize("objective", ["sft", "reward", "kto", "{kind: distill, teacher: t}"])
def test_what_nothing_uses_is_refused(objective: str) -> None:
    text = f"{LEAST}objective: {objective}\nrewards: [exact]"
    assert "my.yaml line 4: 'rewards' is given, but this objective samples no answers" in refusal(text)
    assert made(f"{text}\ngoal: {{metric: reward}}").goal.metric == "reward"
    assert made(f"{text}\nevaluation: {{metrics: [reward]}}").rewards


@pytest.mark.parametrize(("more", "where"), [("goal: {metric: reward}", "goal.metric"),
                                             ("evaluation: {metrics: [reward]}", "evaluation.metrics")])
def test_a_metric_without_graders_is_refused(more: str, where: str) -> None:
    assert f"my.yaml line 4: '{where}' names the metric reward, and there are no `rewards`" in refusal(f"{GRPO}{more}")


def test_what_is_wrong_is_told_with_its_line() -> None:
    text = refusal(f"{GRPO}rewards:\n  - exact\n  - kind: lenght\n  - type: multi\n    name: m\n"
                   "    calculate_output: a + b\n    graders:\n      a:\n        type: string_check\n        name: a\n"
                   "        input: x\n        reference: y\n        operation: is\n")
    assert "my.yaml line 6: 'rewards.1.kind' is 'lenght'" in text
    assert "did you mean 'length'?" in text
    assert "my.yaml line 16: 'rewards.2.graders.a.operation' is 'is'" in text


def test_a_list_on_the_command_line() -> None:
    assert made(GRPO, "rewards=[exact, token_f1]").rewards[1].name == "token_f1"
    assert "rewards on the command line: 'rewards' is 'exact'" in refusal(GRPO, "rewards=exact")


@pytest.mark.parametrize("rewards", ["3", "{kind: exact}", "[]", "[[exact]]"])
def test_what_is_no_list_of_graders_is_refused(rewards: str) -> None:
    assert "my.yaml line 4: 'rewards" in refusal(f"{GRPO}rewards: {rewards}")


def test_a_file_is_found_from_the_recipe_and_from_its_copy(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(SOURCE)
    (tmp_path / "rows.csv").write_text(labels_csv())
    recipe = made(f"{GRPO}rewards: ['./reward.py:grade']", root=tmp_path)
    copy = yaml.safe_dump(recipe.portable())
    assert made(copy, root=tmp_path / "elsewhere").rewards_record[0]["sha256"] == recipe.rewards_record[0]["sha256"]
    (tmp_path / "reward.py").unlink()
    assert "reward.py cannot be read" in refusal(copy)
    assert made(copy, run_own_code=False).rewards == ()       # whoever uses the result needs no graders


def test_the_schema_has_the_list() -> None:
    validators = pytest.importorskip("jsonschema.validators")
    validator = validators.Draft202012Validator(schema())
    for rewards, valid in (([{"kind": "exact", "weight": 2}], True), (["exact"], True), (["exat"], False),
                           ("exact", False)):
        recipe = {"base": "b", "data": {"train": "r.csv"}, "objective": "grpo", "rewards": rewards}
        assert validator.is_valid(recipe) == valid


@pytest.mark.parametrize(("key", "said"), [
    ("reward_funcs", "did you mean 'rewards'?"), ("reward_weights", "use rewards"),
    ("reward", "did you mean 'rewards'?"), ("graders", "did you mean 'rewards'?")])
def test_names_of_other_tools(key: str, said: str) -> None:
    assert said in refusal(f"{GRPO}{key}: [exact]")
