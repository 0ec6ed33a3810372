"""Metrics of answers that are programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tuneloop.errors import UserError
from tuneloop.grading import sandbox
from tuneloop.grading.registry import Scores, View, metric
from tuneloop.grading.sandbox import Limits, Outcome, Task

_FENCED = re.compile(r"^[ \t]*```[ \t]*([^`\n]*)\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


@metric("open", view=True, default=False)
def code(view: View) -> Scores:
    """1 where the answer's Python passes the reference's tests (`assert` statements) in a sandbox.

    Each text counts by its first block of Python, or as a whole where it has none. `options.limits` bounds each
    program. See `sandbox` for what it keeps a program from.
    """
    outcomes = run_all(view.answers.texts, view.references, view.options.limits)
    return np.array([outcome.passed for outcome in outcomes], dtype=np.float64)


def run_all(answers: Sequence[str], tests: Sequence[str], limits: Limits) -> list[Outcome]:
    """How each answer's program ended with its tests, several at a time. Raises a UserError for a row without tests."""
    programs, checks = [python_in(text) for text in answers], [python_in(text) for text in tests]
    for row, check in enumerate(checks, start=1):
        if not check.strip():
            raise UserError(f"code needs tests, but the reference of test row {row} holds none.",
                            wanted="assert statements that call what the answer defines")
    return sandbox.run_all(list(map(Task, programs, checks)), limits)


def python_in(text: str) -> str:
    """The first fenced block of Python (or of no named language), or else the text."""
    blocks = (block[2] for block in _FENCED.finditer(text) if block[1].strip().lower() in _PYTHON)
    return next(blocks, text)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k samples passes, when c of n did: 1 - C(n-c, k) / C(n, k), an unbiased estimate.

    Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), eq. 1, multiplied out.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"wanted 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))
