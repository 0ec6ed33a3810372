"""What a run computes, in tokens, whatever computes it: counted from packed rows, or from characters without them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.plan.make import planned_batch, planned_epochs, tokens_per_step

if TYPE_CHECKING:
    from tuneloop.plan.make import Plan, Workload
    from tuneloop.plan.spec import TrainingSpec

CHARACTERS_PER_TOKEN = 4        # English with vocabularies of 30,000 and more; other languages have fewer
TURN_TOKENS = 4                 # what a chat template puts around a turn, about
LOOKS = 6                       # looks at the validation loss in a run


@dataclass(frozen=True)
class Job:
    """A training and what is asked before and after it."""

    rows: int
    epochs: float
    batch: int                  # rows of an optimizer step
    steps: int
    step_tokens: float          # unique tokens of an optimizer step
    step_heads: float           # positions of it whose logits are computed
    longest: int                # tokens of the longest row or group, which is never split
    looked_at: float            # tokens that are computed forward only: validation, models asked about the rows
    test_rows: int
    test_tokens: float          # of one reading of all test rows
    answer_tokens: float        # generated for each test row; 0 where answers are chosen
    counted: str = ""           # how, where it was not by the base's tokenizer

    @property
    def training_tokens(self) -> float:
        return self.steps * self.step_tokens


def job_of(work: Workload, plan: Plan, share: bool) -> Job:
    """The job of rows that are packed, with the settings of a plan."""
    batch = plan["training.batch_size"]
    supervised = float(np.mean([sum(r.supervised for r in group.branches) for group in work.train]))
    looks = max(1, plan.steps // plan["training.evaluate_every"])
    train, validation, test = (_total(groups, share) for groups in (work.train, work.validation, work.test))
    if work.test and len(work.test[0].branches) == 1:       # other labels have a few tokens of their own
        test += 3 * max(0, work.choices - 1) * len(work.test)
    return Job(rows=len(work.train), epochs=plan.steps * batch / len(work.train), batch=batch, steps=plan.steps,
               step_tokens=tokens_per_step(work.train, batch, share)[0], step_heads=supervised * batch,
               longest=work.longest(share), looked_at=looks * validation + work.frozen_passes * (train + validation),
               test_rows=len(work.test), test_tokens=test,
               answer_tokens=0 if work.choices else min(work.max_new_tokens, 2 * supervised))


def job_counted(sizes: Sequence[Sequence[int]], held_out: tuple[int, int], training: TrainingSpec, *,
                choices: bool, max_new_tokens: int, frozen_passes: int = 0, counted: str = "") -> Job:
    """The job of training rows of which only sizes are known: (tokens of the prompt, tokens of each answer).

    `held_out`: validation and test rows, taken to be as long. Nothing is known of shared prefixes, so none is shared.
    """
    rows = len(sizes)
    totals = np.array([sum(size) for size in sizes], float)
    answers = float(np.mean([sum(size[1:]) for size in sizes]))
    epochs = training.epochs or planned_epochs(rows)
    batch = min(rows, training.batch_size or planned_batch(rows))
    steps = math.ceil(epochs * rows / batch)
    if training.max_steps is not None:
        steps = training.max_steps if training.epochs is None else min(steps, training.max_steps)
    mean = float(totals.mean())
    validation, test = held_out
    return Job(rows=rows, epochs=steps * batch / rows, batch=batch, steps=steps, step_tokens=mean * batch,
               step_heads=answers * batch, longest=int(totals.max()),
               looked_at=LOOKS * validation * mean + frozen_passes * (rows + validation) * mean,
               test_rows=test, test_tokens=test * mean,
               answer_tokens=0 if choices else min(max_new_tokens, 2 * answers), counted=counted)


def size_of(sample: Any) -> list[int]:
    """Tokens of a sample's prompt and of each of its answers, by its characters."""
    if hasattr(sample, "messages"):
        *before, answer = sample.messages
        return [sum(map(_turn, (turn.content for turn in before))), _turn(answer.content)]
    several = [sample.chosen, sample.rejected] if hasattr(sample, "chosen") else getattr(sample, "answers", None)
    asked = sum(map(_turn, (turn.content for turn in sample.prompt)))
    return [asked, *map(_turn, several or [sample.answer])]


def _turn(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN) + TURN_TOKENS


def _total(groups: Sequence[Any], share: bool) -> float:
    """Tokens of a forward over all groups, about 32 at a time."""
    if not groups:
        return 0.0
    return tokens_per_step(groups, 32, share)[0] / min(32, len(groups)) * len(groups)
