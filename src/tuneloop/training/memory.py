"""Keeping the peak of training within a budget: measured at every step, learnt from, and halved where it ran out.

How a step is cut into pieces never changes its result, so the token budget may change at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tuneloop.errors import TrainingFailed

SAMPLE_SECONDS = 0.02
MARGIN = 0.9            # of the memory left over, what the next step may plan with
FEWEST_TOKENS = 64


class Governor:
    """Sets the token budget. It never rises above the one planned."""

    def __init__(self, token_budget: int, memory_bytes: int, report: Callable[[dict[str, Any]], None]) -> None:
        self.token_budget = token_budget
        self.memory_bytes = memory_bytes
        self.peak_bytes = 0
        self._report = report

    def halve(self, step: int, longest: int, error: Exception) -> None:
        """After memory ran out. Raises TrainingFailed where the largest group, which is never split, would not fit.

        `longest`: its tokens.
        """
        if self.token_budget <= max(FEWEST_TOKENS, longest // 2):
            raise TrainingFailed(
                f"Memory ran out at step {step} with {longest} tokens at once: one row, or the answers to one prompt.",
                fix="set training.checkpointing=true, lower data.max_length_tokens, or take a smaller base") from error
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
        self.token_budget = lowered
        self._report({"event": "memory", "step": step, "token_budget": lowered, "why": (
            f"the peak of {peak_bytes / 2**30:.2f} GiB crossed the limit of {self.memory_bytes / 2**30:.2f} GiB")})


@contextmanager
def watched(governor: Governor, step: int, tokens: int) -> Iterator[None]:
    """Measure the peak of a step, whose largest piece has `tokens` tokens."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        governor.learn(step, tokens, before, torch.cuda.max_memory_allocated())
        return
    before = peak = memory_bytes()
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, memory_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()
    governor.learn(step, tokens, before, peak)


def memory_bytes() -> int:
    """Memory in use: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, as torch says it on a GPU, on a CPU, and Python itself."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
