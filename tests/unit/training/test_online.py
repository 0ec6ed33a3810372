"""Policies that learn from their own answers: a bandit with a known best arm, exact resumes, what is told and stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import tiny_base
from tuneloop.compute.model import ForestModel
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.grading.rewards import Rewarded
from tuneloop.inference.local import Local, in_use
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.objectives import dpo, grpo, ppo, rloo
from tuneloop.training.loop import Settings, fit
from tuneloop.training.online import Online
from tuneloop.training.online import Settings as Rounds
from tuneloop.training.rollout_spec import RolloutSpec
from tuneloop.types import Conversation, Message, Origin

PROMPTS = [Conversation((Message("user", f"arm {i}?"), Message("assistant", "")), Origin("arms", i + 1))
           for i in range(8)]
Lines = list[dict[str, Any]]


def arm(samples: Sequence[Conversation], answers: Sequence[str]) -> Rewarded:
    """1 for an answer that begins with a letter of the first half of the alphabet, else 0."""
    return Rewarded(np.array([float(answer[:1].lower() in tuple("abcdefghijklm")) for answer in answers]))


class Bandit:
    """A tiny policy and how it is trained; every one begins alike."""

    def __init__(self, folder: Path, objective: Any, spec: RolloutSpec, reward: Any = None, **changes: Any) -> None:
        self.objective = objective
        model = load_model(folder)
        scalar = torch.nn.Linear(model.config.hidden_size, 1, bias=False) if "values" in objective.needs else None
        if scalar is not None:
            torch.nn.init.zeros_(scalar.weight)
        method = Method(rank=4)
        tuned = method.apply(model, 0)
        self.model = ForestModel(tuned, "forest", scalar)
        self.tokenizer = ChatTokenizer(folder)
        self.local = Local(tuned, self.tokenizer, adapter=in_use(tuned))
        self.method, self.spec = method, spec
        self.reward = reward or arm
        self.settings = Settings(**{  # type: ignore[arg-type]
            "steps": 12, "batch_size": 4, "learning_rate": 0.03, "schedule": "constant", "warmup": 0.0,
            "weight_decay": 0.0, "max_grad_norm": 1.0, "token_budget": 2000, "evaluate_every": 4,
            "checkpoint_every": 1, "patience": 9, "share": True, "checkpointing": False, "memory_bytes": 2**40,
            "seed": 0} | changes)

    def train(self, folder: Path, stop_after: int | None = None) -> Lines:
        lines: Lines = []

        def report(line: dict[str, Any]) -> None:
            lines.append(line)
            if line["event"] == "step" and line["step"] == stop_after:
                raise Cut

        rounds = Rounds(self.spec, self.settings.batch_size, 2000, True, 0)
        online = Online(self.local, self.model, lambda: self.method.reference(self.model.model), self.objective,
                        PROMPTS[:6], PROMPTS[6:], self.reward, rounds, folder / "rollouts", report=report)
        fit(self.model, self.objective, online, [], self.settings, folder / "checkpoints", report=report,
            look=lambda step: None)
        return lines

    def weights(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}


class Cut(Exception):
    """The machine goes off."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("online") / "base", initializer_range=0.3)


SPEC = RolloutSpec(per_prompt=8, max_new_tokens=2, look_prompts=2)
OBJECTIVES = {"ppo": ppo.Objective(beta=0.0), "grpo": grpo.Objective(beta=0.01), "rloo": rloo.Objective(beta=0.01),
              "dpo": dpo.Objective(), "drgrpo": grpo.Objective(beta=0.0, scale_rewards="none", aggregation="dr_grpo",
                                                               max_completion_tokens=2)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_bandit_is_solved(name: str, base: Path, tmp_path: Path) -> None:
    """The best arms are known: a fresh policy takes one about every other time."""
    steps = [line for line in Bandit(base, OBJECTIVES[name], SPEC, steps=30).train(tmp_path) if line["event"] == "step"]
    rewards = [line["rollout_reward_mean"] for line in steps]
    assert np.mean(rewards[:2]) < 0.75
    assert np.mean(rewards[-5:]) > 0.85
    assert max(line["drift"] for line in steps) < 1e-4      # sampling and training are one policy


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("name", "spec"), [
    pytest.param("grpo", SPEC, marks=SLOW),
    ("ppo", RolloutSpec(per_prompt=4, max_new_tokens=3, steps=2, passes=2, look_prompts=2)),
    pytest.param("grpo", RolloutSpec(per_prompt=4, max_new_tokens=3, passes=3, kl_target=0.1, look_prompts=2),
                 marks=SLOW)])
def test_a_training_that_is_cut_off_goes_on_bit_for_bit(name: str, spec: RolloutSpec, base: Path,
                                                        tmp_path: Path) -> None:
    """Rollouts, their log-probs and values, the controller: after any step, within a round as between two."""
    whole = Bandit(base, OBJECTIVES[name], spec, steps=7)
    told = [line for line in whole.train(tmp_path / "whole") if line["event"] == "step"]
    for step in (1, 4, 5):
        folder = tmp_path / f"cut-{step}"
        with pytest.raises(Cut):
            Bandit(base, OBJECTIVES[name], spec, steps=7).train(folder, stop_after=step + 1)    # before it is kept
        again = Bandit(base, OBJECTIVES[name], spec, steps=7)
        lines = [line for line in again.train(folder) if line["event"] == "step"]
        assert [line["step"] for line in lines] == list(range(step + 1, 8))
        for one, other in zip(told[step:], lines, strict=True):
            assert one.keys() == other.keys()
            assert {k: one[k] for k in one.keys() - TIMED} == {k: other[k] for k in one.keys() - TIMED}
        for key, value in whole.weights().items():
            assert torch.equal(value, again.weights()[key])


TIMED = {"seconds", "memory_bytes", "tokens_per_second", "utilisation", "rollout_seconds"}


def test_a_round_of_several_steps_keeps_the_log_probs_of_its_policy(base: Path, tmp_path: Path) -> None:
    """By the first step of a round the ratio is 1; by its last the policy has moved, and the old log-probs have not."""
    spec = RolloutSpec(per_prompt=4, max_new_tokens=3, steps=1, passes=3, look_prompts=2)
    steps = [line for line in Bandit(base, OBJECTIVES["ppo"], spec, steps=3).train(tmp_path) if line["event"] == "step"]
    assert steps[0]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert steps[2]["approx_kl"] > 1e-4
    assert max(line["drift"] for line in steps) < 1e-4


def test_the_reference_is_the_base_itself(base: Path, tmp_path: Path) -> None:
    """A fresh adapter changes nothing, so the divergence begins at 0; then it grows, and is told in nats per token."""
    bandit = Bandit(base, OBJECTIVES["grpo"], SPEC, steps=6)
    steps = [line for line in bandit.train(tmp_path) if line["event"] == "step"]
    assert steps[0]["rollout_kl"] == pytest.approx(0, abs=1e-6)
    assert steps[-1]["rollout_kl"] > 0.01
    kept = json.loads((tmp_path / "rollouts" / "round-5.json").read_text())
    branch = kept["branches"][0]
    with bandit.method.reference(bandit.model.model), torch.no_grad():
        logits = bandit.model.model(torch.tensor([branch["ids"]])).logits[0].log_softmax(-1)
    begins = branch["prompt_tokens"]
    expected = [logits[i - 1, branch["ids"][i]].item() for i in range(begins, len(branch["ids"]))]
    assert len(branch["sampled_logprobs"]) == len(expected)         # the token that ends the answer among them


def test_the_weight_of_the_divergence_follows_its_target(base: Path, tmp_path: Path) -> None:
    """By hand: beta grows by at most 2 % a round where the divergence is above the target, and shrinks below it."""
    for target, factor in ((1e-6, 1.02), (1e6, 0.98)):
        spec = RolloutSpec(per_prompt=8, max_new_tokens=2, kl_target=target, look_prompts=2)
        folder = tmp_path / str(target)
        steps = [line for line in Bandit(base, OBJECTIVES["grpo"], spec, steps=4).train(folder)
                 if line["event"] == "step"]
        assert steps[0]["beta"] == 0.01
        assert steps[3]["beta"] == pytest.approx(steps[2]["beta"] * factor)


def test_answers_that_cannot_be_compared_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="per_prompt is 1"):
        Bandit(base, OBJECTIVES["grpo"], replace_spec(per_prompt=1)).train(tmp_path)


def replace_spec(**changes: Any) -> RolloutSpec:
    return SPEC.model_copy(update=changes)


def test_a_reward_that_is_no_number_stops_the_training(base: Path, tmp_path: Path) -> None:
    def reward(samples: Sequence[Conversation], answers: Sequence[str]) -> Rewarded:
        return Rewarded(np.full(len(answers), np.nan))

    with pytest.raises(TrainingFailed, match="not finite"):
        Bandit(base, OBJECTIVES["grpo"], SPEC, reward).train(tmp_path)


def test_where_all_rewards_are_alike_training_ends_and_says_so(base: Path, tmp_path: Path) -> None:
    def reward(samples: Sequence[Conversation], answers: Sequence[str]) -> Rewarded:
        return Rewarded(np.ones(len(answers)))

    lines = Bandit(base, OBJECTIVES["rloo"], SPEC, reward).train(tmp_path)
    [stopped] = [line for line in lines if line["event"] == "stopped"]
    assert stopped["step"] == 5
    assert "nothing is left to learn" in stopped["why"]
