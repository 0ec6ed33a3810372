"""Reinforcement learning's answers: sampled by the inference engine from the policy as it stands, rewarded, and handed
to the training loop as groups. One prompt is one group, so that training computes it once for all of its answers.

A round is kept in the run folder before it is learnt from. What it samples follows from the weights, the seed and the
round's number alone, so a training that is resumed goes on with the same answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.grading.rewards import Rewarded
from tuneloop.inference.local import Local, answer
from tuneloop.objectives.base import Objective
from tuneloop.record import write_atomic
from tuneloop.training.guards import Look, exploded, grew, hacked, settled
from tuneloop.training.rollout_spec import RolloutSpec
from tuneloop.training.source import Drawn, StopTraining, samples_of_step
from tuneloop.types import Completion, Conversation, Group, Preference, Rendered, Sampling, request_of

DRIFT = 0.02            # nats per token between sampling and training: beyond, they are not one policy
ADAPTS = 0.1            # of the relative error, each round (Ziegler et al. 2019)
KEPT = ("old_logprobs", "old_values")

Scores = NDArray[np.float64]


Reward = Callable[[Sequence[Conversation], Sequence[str]], Rewarded]
"""What answers to these rows are worth: `grading.rewards.Rewards.score`, or anything like it."""


@dataclass(frozen=True)
class Settings:
    """How rounds are sampled."""

    spec: RolloutSpec
    batch_size: int         # prompts per optimizer step
    token_budget: int
    share: bool             # share prefixes
    seed: int

    @property
    def steps_per_round(self) -> int:
        return self.spec.steps * self.spec.passes


class Online:
    """A `training.source.Source` of sampled answers."""

    def __init__(self, policy: Local, model: ForestModel, reference: Callable[[], AbstractContextManager[None]],
                 objective: Objective, prompts: Sequence[Conversation], held_out: Sequence[Conversation],
                 reward: Reward, settings: Settings, folder: Path, *, report: Callable[[dict[str, Any]], None],
                 judge: Reward | None = None) -> None:
        """`policy` samples from what `model` trains; within `reference()` that model answers as the reference does.
        `judge` sees held-out answers alone. `folder` keeps the rounds.
        """
        self.policy, self.model, self.reference, self.objective = policy, model, reference, objective
        self.prompts, self.held_out = list(prompts), list(held_out)[:settings.spec.look_prompts]
        self.reward, self.judge, self.settings, self.folder, self.report = reward, judge, settings, folder, report
        self._round = -1
        self._groups: list[Group] = []
        self._rounds: list[dict[str, Any]] = []
        self._looks: list[Look] = []
        self._end = ""          # why training must stop, as the last look found
        if settings.spec.per_prompt < 2 and objective.compares:
            raise UserError("This objective compares the answers to a prompt, and rollouts.per_prompt is 1.",
                            fix="set rollouts.per_prompt=8")

    # ── what the training loop asks ──────────────────────────────────────────────────────────────────────────────────

    def of_step(self, step: int) -> Drawn:
        """See `Source`."""
        number, within = divmod(step, self.settings.steps_per_round)
        began = time.perf_counter()
        fresh = number != self._round
        if fresh:
            self._begin(number, step)
        entry = self._rounds[-1]
        told = {f"rollout_{name}": entry[name] for name in TOLD if entry.get(name) is not None}
        told |= {f"reward_{name}": value for name, value in entry["parts"].items()}
        told["rollout_seconds"] = round(time.perf_counter() - began, 3) if fresh else 0.0
        if entry["beta"] is not None:
            told["beta"] = entry["beta"]
        if self.settings.steps_per_round == 1:
            chosen = self._groups
        else:
            size = min(self.settings.batch_size, len(self._groups))
            chosen = [self._groups[i] for i in samples_of_step(len(self._groups), size, within,
                                                               self.settings.seed + number)]
        return Drawn(chosen, self._objective(entry["beta"]), told)

    def learnt(self, step: int, entry: Mapping[str, Any]) -> str:
        """See `Source`."""
        drift = entry.get("drift")
        if drift is not None and drift > DRIFT:
            self.report({"event": "warning", "step": step, "what": (
                f"sampling and training disagree by {drift:.3f} nats per token in the mean: answers are not those of "
                "the policy that is trained")})
        return self._end or exploded(self._rounds, self.settings.spec.max_kl) or settled(self._rounds)

    def loss(self, step: int) -> float | None:
        """See `Source`: the mean reward of greedy answers to held-out prompts, negated."""
        if not self.held_out:
            return None
        greedy = Sampling(self.settings.spec.max_new_tokens)
        done, _ = self._answers(self.held_out, [greedy] * len(self.held_out))
        texts = [d.text for d in done]
        found = self.reward(self.held_out, texts).rewards
        judged = self.judge(self.held_out, texts).rewards if self.judge else None
        since = max((look.step for look in self._looks), default=0) // self.settings.steps_per_round
        rounds = [entry["reward_mean"] for entry in self._rounds if entry["round"] >= since] or [float(found.mean())]
        look = Look(step, found.tolist(), None if judged is None else judged.tolist(),
                    float(np.mean([d.new_tokens for d in done])), float(np.mean(rounds)))
        self._looks = [*(old for old in self._looks if old.step < step), look]
        self._keep("looks.json", [asdict(each) for each in self._looks])
        if warning := grew(self._looks):
            self.report({"event": "warning", "step": step, "what": warning})
        self.report({"event": "held_out", "step": step, "reward": float(found.mean()), "new_tokens": look.new_tokens,
                     "stop_rate": float(np.mean([d.stopped for d in done])),
                     **({} if judged is None else {"judged": float(judged.mean())})})
        self._end = hacked(self._looks)
        return -float(found.mean())

    # ── a round ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, number: int, step: int) -> None:
        """Sample the round, or read it where it was sampled before the training was cut off."""
        if self._round < 0:
            self._recall(number, step)
        file = self.folder / f"round-{number}.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else self._sample(number)
        if not file.is_file():
            self._keep(file.name, kept)
            (self.folder / f"round-{number - 2}.json").unlink(missing_ok=True)
        prompts = [self.prompts[i] for i in kept["prompts"]]
        branches = [Rendered(np.array(b["ids"]), _weights(len(b["ids"]), b["prompt_tokens"]), None,
                             {name: np.array(b[name], np.float32) for name in ("rewards", "sampled_logprobs", *KEPT)
                              if name in b}) for b in kept["branches"]]
        if "reference_logprobs" in self.objective.needs:
            with self.reference():
                found = self._columns(branches, frozenset())
            branches = [replace(b, named={**b.named, "reference_logprobs": one["logprobs"]})
                        for b, one in zip(branches, found, strict=True)]
        entry = kept["entry"] | {"kl": _mean_gap(branches)}
        self._rounds.append(entry)
        self._keep("rounds.json", self._rounds)
        self._round, self._groups = number, self._grouped(prompts, branches)

    def _sample(self, number: int) -> dict[str, Any]:
        spec, seed = self.settings.spec, self.settings.seed
        count = min(self.settings.batch_size * spec.steps, len(self.prompts))
        chosen = samples_of_step(len(self.prompts), count, number, seed)
        asked = [self.prompts[i] for i in chosen for _ in range(spec.per_prompt)]
        seeds = np.random.SeedSequence([seed, number]).generate_state(len(asked)).tolist()
        done, rendered = self._answers(asked, [Sampling(spec.max_new_tokens, temperature=1.0, seed=s) for s in seeds])
        found = self.reward(asked, [d.text for d in done])
        if not np.isfinite(found.rewards).all():
            raise TrainingFailed("A reward is not finite.", fix="mend the grader: every answer needs a number")
        old = self._columns(rendered, self.objective.needs & {"values"}) if self.settings.steps_per_round > 1 else []
        branches = []
        for i, (one, tokens) in enumerate(zip(done, rendered, strict=True)):
            branch = {"ids": tokens.ids.tolist(), "prompt_tokens": len(tokens) - tokens.supervised, "text": one.text,
                      "rewards": float(found.rewards[i]), "sampled_logprobs": tokens.named["sampled_logprobs"].tolist()}
            if old:
                branch |= {f"old_{name}": column.tolist() for name, column in old[i].items()}
            branches.append(branch)
        by_prompt = found.rewards.reshape(len(chosen), -1)
        return {"prompts": chosen, "branches": branches, "entry": {
            "round": number, "reward_mean": float(found.rewards.mean()), "reward_std": float(found.rewards.std()),
            "alike": float(np.mean(by_prompt.max(1) == by_prompt.min(1))) if by_prompt.shape[1] > 1 else 0.0,
            "new_tokens": float(np.mean([d.new_tokens for d in done])),
            "stop_rate": float(np.mean([d.stopped for d in done])), "failures": found.failures,
            "entropy": -float(np.mean(np.concatenate([r.named["sampled_logprobs"] for r in rendered]))),
            "parts": {name: float(values.mean()) for name, values in found.parts.items()}, "beta": self._beta()}}

    def _answers(self, asked: Sequence[Conversation],
                 samplings: Sequence[Sampling]) -> tuple[list[Completion], list[Rendered]]:
        """Answers by the policy, and they as tokens after their prompts, with the log-probs they were sampled by."""
        tokenizer = self.policy.tokenizer
        requests = [request_of(row) for row in asked]
        prompts = tokenizer.encode([tokenizer.prompt_text(r.messages, r.tools) for r in requests])
        self.model.eval()
        done = answer(self.policy.engine, prompts, samplings, [self.policy.adapter] * len(prompts))
        rendered = []
        for prompt, one in zip(prompts, done, strict=True):
            end = () if one.end is None else (one.end,)
            ids = np.array([*prompt, *one.token_ids, *(token for token, _ in end)])
            rendered.append(Rendered(ids, _weights(len(ids), len(prompt)), None, {
                "sampled_logprobs": np.array([*one.logprobs, *(logprob for _, logprob in end)], np.float32)}))
        return done, rendered

    def _grouped(self, prompts: Sequence[Conversation], branches: Sequence[Rendered]) -> list[Group]:
        """The answers to each prompt; for an objective of pairs the best and the worst, where they differ."""
        each = len(branches) // len(prompts)
        groups = [Group(tuple(branches[i:i + each])) for i in range(0, len(branches), each)]
        if self.objective.batch_kind is not Preference:
            return groups
        pairs = [_best_and_worst(group) for group in groups]
        found = [pair for pair in pairs if pair is not None]
        if not found:
            raise StopTraining("all answers to each prompt of a round have the same reward: no pair can be made")
        return found

    @torch.no_grad()
    def _columns(self, samples: Sequence[Rendered], needs: frozenset[str]) -> list[dict[str, Any]]:
        """Of the model as it stands: `logprobs`, and `values` where needed, (supervised,) for each sample."""
        self.model.eval()
        found: dict[int, dict[str, Any]] = {}
        pieces = cut_step(samples, self.settings.token_budget, share=self.settings.share)
        for piece, _, out in passes(self.model, pieces, next(self.model.parameters()).device, needs):
            columns = {"logprobs": out.logprobs, **({"values": out.values} if out.values is not None else {})}
            split = {name: piece.forest.by_branch(x.float().cpu().numpy()) for name, x in columns.items()}
            for branch, i in enumerate(piece.samples):
                found[i] = {name: parts[branch] for name, parts in split.items()}
        return [found[i] for i in range(len(samples))]

    # ── what a controller and the guards remember ────────────────────────────────────────────────────────────────────

    def _beta(self) -> float | None:
        """The weight of the divergence in the next round; None where the objective has none."""
        given, target = getattr(self.objective, "beta", None), self.settings.spec.kl_target
        if given is None:
            return None
        if target is None or not self._rounds:
            return float(given)
        last = self._rounds[-1]
        if last.get("kl") is None:
            return float(last["beta"])
        error = min(max(float(last["kl"]) / target - 1, -0.2), 0.2)
        return float(last["beta"]) * (1 + ADAPTS * error)

    def _objective(self, beta: float | None) -> Objective:
        return self.objective if beta is None or beta == getattr(self.objective, "beta", None) else replace(
            self.objective, beta=beta)      # type: ignore[type-var]    # every objective is a dataclass

    def _recall(self, number: int, step: int) -> None:
        """What was found before round `number` and the step `step`, of a training that is resumed."""
        def read(name: str) -> list[dict[str, Any]]:
            file = self.folder / name
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

        self._rounds = [entry for entry in read("rounds.json") if entry["round"] < number]
        self._looks = [Look(**look) for look in read("looks.json") if look["step"] <= step]

    def _keep(self, name: str, content: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / name, json.dumps(content, ensure_ascii=False))


TOLD = ("reward_mean", "reward_std", "alike", "new_tokens", "stop_rate", "entropy", "kl", "failures")


def _weights(length: int, prompt_tokens: int) -> NDArray[np.float32]:
    weights = np.zeros(length, np.float32)
    weights[prompt_tokens:] = 1
    return weights


def _mean_gap(branches: Sequence[Rendered]) -> float | None:
    """Mean of log policy - log reference over all sampled tokens, in nats: the k1 estimate of their divergence."""
    if any("reference_logprobs" not in b.named for b in branches):
        return None
    return float(np.mean(np.concatenate([b.named["sampled_logprobs"] - b.named["reference_logprobs"]
                                         for b in branches])))


def _best_and_worst(group: Group) -> Group | None:
    rewards = [float(b.named["rewards"]) for b in group.branches]
    best, worst = (rewards.index(of(rewards)) for of in (max, min))
    if rewards[best] == rewards[worst]:
        return None
    return Group(tuple(replace(group.branches[i], named={**group.branches[i].named, "margin": np.float32(0)})
                       for i in (best, worst)))
