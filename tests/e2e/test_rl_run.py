"""Reinforcement learning from a recipe to a certificate: graders, and a reward model that was trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import tiny_base
from toy import ALONE, Interrupting, judged_rows, metrics, open_rows, resume, run, same_bits, write_jsonl
from tuneloop.errors import UserError
from tuneloop.recipe import Recipe, parse
from tuneloop.record import RunFolder
from tuneloop.types import Preference

ARM = {"kind": "regex", "pattern": r"^\s*[a-mA-M]"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("rl") / "base", initializer_range=0.3)


def policy(folder: Path, base: Path, rewards: Any, **changes: Any) -> Recipe:
    write_jsonl(folder / "rows.jsonl", open_rows(60))
    given = {"base": str(base), "data": {"train": "rows.jsonl"}, "objective": "grpo", "rewards": rewards,
             "method": {"kind": "lora", "rank": 4}, "goal": {"metric": "reward", "better_than_base_by": 0.1},
             "rollouts": {"per_prompt": 8, "max_new_tokens": 3, "look_prompts": 4},
             "training": {"max_steps": 30, "batch_size": 4, "learning_rate": 0.03, "evaluate_every": 10,
                          "sample_prompts": 1} | changes.pop("training", {}),
             "evaluation": {"max_new_tokens": 3, **ALONE}} | changes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(given))
    return parse(yaml.safe_dump(given), shown="recipe.yaml", root=folder)


def test_a_policy_learns_what_a_grader_rewards(base: Path, tmp_path: Path) -> None:
    certificate = run(policy(tmp_path, base, [ARM]), tmp_path / "run")
    assert certificate["metric"] == "reward"
    before, after = (certificate["scores"][name]["reward"]["value"] for name in ("base", "tuned"))
    assert after > before + 0.2
    steps = [line for line in metrics(tmp_path / "run") if line["event"] == "step"]
    assert {"reward_regex", "rollout_kl", "rollout_entropy", "rollout_stop_rate", "drift", "clip_fraction",
            "grad_norm"} <= steps[0].keys()
    assert steps[-1]["rollout_reward_mean"] > steps[0]["rollout_reward_mean"]
    record = RunFolder(tmp_path / "run").read("record.json")
    assert record["rewards"][0]["kind"] == "regex"
    held_out = [line for line in RunFolder(tmp_path / "run").lines("metrics.jsonl") if line["event"] == "held_out"]
    assert [line["step"] for line in held_out][:2] == [10, 20]


@pytest.mark.slow
def test_a_run_that_is_cut_off_goes_on_with_its_answers(base: Path, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    recipe = {name: policy(tmp_path / name, base, [ARM], training={"max_steps": 6, "checkpoint_every": 1})
              for name in ("whole", "cut")}
    run(recipe["whole"], tmp_path / "whole" / "run")
    with pytest.raises(Cut):
        run(recipe["cut"], tmp_path / "cut" / "run", watch=Interrupting(4, cut))
    resume(recipe["cut"], tmp_path / "cut" / "run")
    assert same_bits(tmp_path / "whole" / "run", tmp_path / "cut" / "run")
    told = [[line["rollout_reward_mean"] for line in metrics(tmp_path / name / "run")] for name in ("whole", "cut")]
    assert told[0] == told[1]


class Cut(Exception):
    """The machine goes off."""


def cut() -> None:
    raise Cut


@pytest.mark.parametrize("objective", ["ppo", "dpo"])
def test_a_reward_model_rewards_on_the_base_of_the_policy(objective: str, base: Path, tmp_path: Path) -> None:
    """Collected judgements become a reward model, and that a policy; the policy's adapter is saved alone."""
    write_jsonl(tmp_path / "pairs.jsonl", judged_rows(Preference))
    given = {"base": str(base), "data": {"train": "pairs.jsonl"}, "objective": "reward",
             "method": {"kind": "lora", "rank": 4},
             "training": {"max_steps": 10, "batch_size": 8, "learning_rate": 0.01}}
    run(parse(yaml.safe_dump(given), shown="reward.yaml", root=tmp_path), tmp_path / "runs" / "judge")
    reward = [{"kind": "reward_model", "run": str(tmp_path / "runs" / "judge")}]
    certificate = run(policy(tmp_path, base, reward, objective=objective, training={"max_steps": 4}), tmp_path / "run")
    before, after = (certificate["scores"][name]["reward"]["value"] for name in ("base", "tuned"))
    assert before != after
    adapter = tmp_path / "run" / "adapter"
    assert not (adapter / "tuneloop_reward").exists()
    steps = [line for line in metrics(tmp_path / "run") if line["event"] == "step"]
    assert all(line["drift"] < 1e-4 for line in steps)


def test_a_reward_model_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", judged_rows(Preference))
    other = tiny_base(tmp_path / "other", seed=7)
    given = {"base": str(other), "data": {"train": "pairs.jsonl"}, "objective": "reward",
             "method": {"kind": "lora", "rank": 4}, "training": {"max_steps": 2}}
    run(parse(yaml.safe_dump(given), shown="reward.yaml", root=tmp_path), tmp_path / "runs" / "judge")
    reward = [{"kind": "reward_model", "run": str(tmp_path / "runs" / "judge")}]
    with pytest.raises(UserError, match="another base"):
        run(policy(tmp_path, base, reward, training={"max_steps": 2}), tmp_path / "run")
