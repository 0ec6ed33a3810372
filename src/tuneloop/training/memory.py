"""Keeping the peak of training within a budget: measured at every step, learnt from, and halved where it ran out.

How a step is cut into pieces never changes its result, so the token budget may change at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tuneloop.errors import TrainingFailed
from tuneloop.training.peak import HighWater, memory_bytes, release

MARGIN = 0.9            # of the memory left over, what the next step may plan with
FEWEST_TOKENS = 64
ROW_ADVICE = "set training.checkpointing=true, lower data.max_length_tokens, or take a smaller base"


class Governor:
    """Sets the token budget. It never rises above the one planned."""

    def __init__(self, token_budget: int, memory_bytes: int, report: Callable[[dict[str, Any]], None],
                 high: HighWater | None = None, advice: Callable[[], str] | None = None) -> None:
        """`advice` says what the plan would do where not even one row fits."""
        self.token_budget = token_budget
        self.memory_bytes = memory_bytes
        self.high = high or HighWater()
        self.advice = advice or (lambda: ROW_ADVICE)
        self.peak_bytes = 0
        self._report = report

    def halve(self, step: int, longest: int, error: Exception) -> None:
        """After memory ran out. Raises TrainingFailed where the largest group, which is never split, would not fit.

        `longest`: its tokens.
        """
        if self.token_budget <= max(FEWEST_TOKENS, longest // 2):
            raise TrainingFailed(
                f"Memory ran out at step {step} with {longest} tokens at once: one row, or the answers to one prompt.",
                fix=self.advice()) from error
        self.token_budget //= 2
        self._report({"event": "memory", "step": step, "token_budget": self.token_budget, "why": "memory ran out"})

    def learn(self, step: int, tokens: int, before_bytes: int, peak_bytes: int) -> None:
        """From a step whose largest piece had `tokens` tokens: lower the budget if the limit was crossed."""
        self.peak_bytes = max(self.peak_bytes, peak_bytes)
        if peak_bytes <= self.memory_bytes or self.token_budget <= FEWEST_TOKENS:
            return
        per_token = (peak_bytes - before_bytes) / tokens
        fits = MARGIN * max(0, self.memory_bytes - before_bytes) / max(1.0, per_token)
        lowered = max(FEWEST_TOKENS, min(self.token_budget // 2, int(fits)))
        self.lower(step, lowered, f"the peak of {peak_bytes / 2**30:.2f} GiB crossed the limit of "
                                  f"{self.memory_bytes / 2**30:.2f} GiB")
        release()       # or what the step has left free would count against the next one

    def lower(self, step: int, token_budget: int, why: str) -> None:
        """At most so many tokens at once from now on."""
        self.token_budget = token_budget
        self._report({"event": "memory", "step": step, "token_budget": token_budget, "why": why})


@contextmanager
def watched(governor: Governor, step: int, tokens: int) -> Iterator[None]:
    """Measure the peak of a step, whose largest piece has `tokens` tokens."""
    governor.high.mark()
    before = memory_bytes()
    yield
    governor.learn(step, tokens, before, governor.high.mark().in_use_bytes)


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, as torch says it on a GPU, on a CPU, and Python itself."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
