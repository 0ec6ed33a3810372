"""How long the stages of a run take here: what is asked of base and tuned model counts, too. Arithmetic alone.

Seconds are FLOPs over a rate, and so much for every piece of a step where that was measured (`plan.calibration`).
Writing takes about a forward's time per token, since the answers of a batch share each reading of the weights. Suites
and prompts of other contenders are counted by usual sizes of their items: these figures are rough, and meant to tell
two minutes from twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuneloop.compute.packing import build_forest
from tuneloop.plan import estimate

if TYPE_CHECKING:
    from tuneloop.methods.base import MethodMemory
    from tuneloop.models.shape import Shape
    from tuneloop.plan.calibration import Fit
    from tuneloop.plan.make import Workload
    from tuneloop.types import Group

SAMPLE_STEPS = 8            # optimizer steps packed to learn how much is shared
FEW_LARGER = 2.5            # standard deviations above the mean: of 100 steps about one is larger
WRITTEN = 4.0               # a token that is written takes so many times as long as one that is read
LABEL_TOKENS = 3            # tokens of a label that no other label shares
CHOSEN_ITEM, WRITTEN_ITEM = 90, (60, 90)    # tokens of a suite's item: with all its choices; of question and answer
CHOOSING = frozenset({"knowledge", "fluency", "stereotypes", "tasks"})      # suites that score answers, none written
PROPOSED = 6 * (700 + 120)  # tokens that finding prompts to try takes
LOADING_BYTES = 400e6       # a second: reading a base and turning it into the precision it trains in
STARTING = 8.0              # seconds to import torch and transformers, and to find out how rows can be packed
SETTING_UP = 4.0            # to apply the method, confirm the packing, and write checkpoints of a small base
SAMPLED = 64                # tokens of an answer that is shown at a look at the validation loss


@dataclass(frozen=True)
class Beside:
    """What a recipe asks beside the test rows of base and tuned model."""

    few_shot: int = 0               # examples before every row
    prompt_search: int = 0          # answers that finding a better prompt takes
    rivals: int = 0                 # further models that answer the test rows
    suites: tuple[str, ...] = ()
    suite_items: int | None = 30
    needed: frozenset[str] = frozenset()    # suites that the goal needs in full
    perturbed: int = 0              # rows asked again with changes, over all kinds of them
    extracted: int = 0              # training rows that the tuned model is made to repeat
    judged: int = 0                 # questions to a judge; 0 where it is elsewhere or there is none
    samples: int = 0                # answers shown at every look
    minutes: float | None = None    # within which what the verdict does not need begins


Stages = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Clock:
    """Seconds of this base on this machine."""

    shape: Shape
    flops_per_second: float
    fit: Fit | None = None

    def of(self, flops: float, pieces: float = 0.0) -> float:
        """Seconds of so many FLOPs, in so many pieces."""
        if self.fit is not None:
            return self.fit.seconds(flops, pieces)
        return flops / (self.flops_per_second * estimate.EFFICIENCY)

    def reading(self, tokens: float, heads: float = 0.0) -> float:
        return self.of(estimate.forward_flops(self.shape, tokens, heads))

    def writing(self, tokens: float) -> float:
        """Of so many tokens, of several answers at a time."""
        return WRITTEN * self.of(estimate.forward_flops(self.shape, tokens, tokens))

    def items(self, suite: str, count: int) -> float:
        """Of so many items of a suite."""
        if suite in CHOOSING:
            return self.reading(CHOSEN_ITEM * count, CHOSEN_ITEM * count / 2)
        return self.reading(WRITTEN_ITEM[0] * count) + self.writing(WRITTEN_ITEM[1] * count)


def tokens_per_step(groups: Sequence[Group], batch: int, share: bool) -> tuple[float, float]:
    """Unique and logical tokens of an optimizer step, from a few that are really packed."""
    unique, logical = _packed(groups, batch, share)
    return float(np.mean(unique)), float(np.mean(logical))


def largest_step(groups: Sequence[Group], batch: int, share: bool) -> float:
    """Unique tokens of a step that few are larger than, from a few that are really packed."""
    unique, _ = _packed(groups, batch, share)
    return float(max(np.mean(unique) + FEW_LARGER * np.std(unique), np.max(unique)))


def _packed(groups: Sequence[Group], batch: int, share: bool) -> tuple[list[int], list[int]]:
    order = np.random.default_rng(0).permutation(len(groups))
    packed = [build_forest([r for i in order[low:low + batch] for r in groups[i].branches], share=share)
              for low in range(0, min(len(groups), SAMPLE_STEPS * batch), batch)]
    return [int(f.unique_tokens) for f in packed], [int(f.logical_tokens) for f in packed]


def stages(clock: Clock, work: Workload, training: float, looks: int, share: bool) -> Stages:
    """Seconds by stage and part. `training`: of all optimizer steps."""
    beside, shape = work.beside, clock.shape
    answers = _answers(clock, work, share)
    row = answers / max(1, len(work.test))
    begins = {
        "few_shot": (answers + clock.reading(beside.few_shot * _mean_tokens(work.train))) * bool(beside.few_shot),
        "prompt search": (beside.prompt_search * row + answers + clock.reading(PROPOSED)) * bool(beside.prompt_search),
        "rivals": beside.rivals * answers}
    suites = {suite: clock.items(suite, _items(beside, suite)) for suite in beside.suites}
    needed = sum(seconds for suite, seconds in suites.items() if suite in beside.needed)
    begun = _begun(begins | {suite: s for suite, s in suites.items() if suite not in beside.needed}, beside.minutes)
    baseline = {"loading": STARTING + shape.stored_bytes / LOADING_BYTES, "test rows": answers,
                **{name: begun[name] for name in begins},
                "suites": needed + sum(s for name, s in begun.items() if name not in begins)}
    passes = work.frozen_passes * (_forward(clock, work.train, share) + _forward(clock, work.validation, share))
    trained = {"set-up": SETTING_UP, "steps": training, "frozen models": passes,
               "looks": looks * (_forward(clock, work.validation, share) + clock.writing(SAMPLED * beside.samples))}
    late = beside.minutes is not None and sum((baseline | trained).values()) > 60 * beside.minutes
    evaluation = {"test rows": answers, "suites": needed if late else baseline["suites"],
                  "perturbed rows": 2 * beside.perturbed * row, "extraction": clock.writing(30 * beside.extracted),
                  "judge": clock.reading(500 * beside.judged) + clock.writing(60 * beside.judged)}
    return {stage: {part: round(seconds, 1) for part, seconds in parts.items() if seconds}
            for stage, parts in (("baseline", baseline), ("training", trained), ("evaluation", evaluation))}


def _answers(clock: Clock, work: Workload, share: bool) -> float:
    """All test rows once, by one model."""
    seconds = _forward(clock, work.test, share, work.choices)
    if not work.choices:
        supervised = float(np.mean([sum(r.supervised for r in group.branches) for group in work.train]))
        seconds += clock.writing(min(work.max_new_tokens, 2 * supervised) * len(work.test))
    return seconds


def _forward(clock: Clock, groups: Sequence[Group], share: bool, choices: int = 1) -> float:
    if not groups:
        return 0.0
    per_row = tokens_per_step(groups, 32, share)[0] / min(32, len(groups))
    if len(groups[0].branches) == 1:        # other labels have a few tokens of their own
        per_row += LABEL_TOKENS * max(0, choices - 1)
    return clock.reading(per_row * len(groups), 2 * max(1, choices) * len(groups))


def _begun(optional: dict[str, float], minutes: float | None) -> dict[str, float]:
    """What begins within so many minutes, in turn; what has begun is finished."""
    begun, spent = {}, 0.0
    for name, seconds in optional.items():
        begun[name] = seconds if minutes is None or spent < 60 * minutes else 0.0
        spent += begun[name]
    return begun


def _items(beside: Beside, suite: str) -> int:
    """How many items of a suite are asked; of those in full about a hundred."""
    return 100 if suite in beside.needed or beside.suite_items is None else beside.suite_items


def _mean_tokens(groups: Sequence[Group]) -> float:
    return float(np.mean([len(group.branches[0]) for group in groups[:1000]]))


def step_flops(shape: Shape, cost: MethodMemory, unique: float, heads: float, length: float,
               checkpointing: bool) -> float:
    """Of an optimizer step over `unique` tokens in rows of `length`; every token sees half of its row, about."""
    return estimate.training_flops(shape, cost, unique, heads, unique * length / 2, checkpointing)
