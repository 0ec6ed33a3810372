"""Metrics of how likely a model finds the references, and of how it writes, whatever it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tuneloop.errors import UserError
from tuneloop.grading.registry import Scores, Statistic, View, metric


def perplexity(nll: Sequence[float], tokens: Sequence[int]) -> Statistic:
    """exp(sum of nll / sum of tokens) over the drawn rows; lower is better. `nll` in nats per row, as in `Answers`."""
    sums, counts = np.asarray(nll, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    return lambda draws: np.exp((draws @ sums) / (draws @ counts))


@metric("open", view=True, default=False, better="lower", in_unit=False, needs="likelihood of the references")
def bits_per_byte(view: View) -> Statistic:
    """Sum of nll / ln 2 / UTF-8 bytes of the references, over the drawn rows: comparable between tokenizers.

    The likelihood is that of the reference with its end of turn, which has no bytes.
    """
    nll = view.given("nll", "bits_per_byte")
    sizes = np.array([len(reference.encode("utf-8", "surrogatepass")) for reference in view.references],
                     dtype=np.float64)
    if not sizes.all():
        empty = int(np.argmin(sizes))
        raise UserError(f"bits_per_byte needs references with text, but that of test row {empty + 1} is empty.",
                        fix="drop such rows, or leave bits_per_byte out")
    return lambda draws: np.asarray((draws @ nll) / (draws @ sizes) / math.log(2))


@metric("open", view=True, default=False, needs="end of each answer")
def stop_rate(view: View) -> Scores:
    """1 where the model ended its answer, 0 where it ran into the length limit and was cut."""
    return view.given("stopped", "stop_rate")


@metric("open", view=True, default=False, better=None, in_unit=False, needs="number of tokens of each answer")
def new_tokens(view: View) -> Scores:
    """Tokens generated for the answer, the end of its turn included: what it costs."""
    return view.given("new_tokens", "new_tokens")
