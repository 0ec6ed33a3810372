"""What answers cost: how long one takes, how many tokens it has, and the price of a thousand that are right.

Prices are the user's. Without any, cost is told in seconds of the machine and in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from tuneloop.spec import Spec

Usd = Annotated[float, Field(ge=0)]


class Price(Spec):
    """What whoever runs the model is paid: by tokens, or by the hours of a machine."""

    prompt_usd_per_million: Usd | None = None
    """For a million tokens of prompts."""
    answer_usd_per_million: Usd | None = None
    """For a million generated tokens."""
    machine_usd_per_hour: Usd | None = None
    """For an hour of the machine that answers."""

    @model_validator(mode="after")
    def _one_way(self) -> Price:
        by_tokens = (self.prompt_usd_per_million, self.answer_usd_per_million)
        if (None in by_tokens) != (by_tokens == (None, None)):
            raise ValueError("a price by tokens has two parts: prompt_usd_per_million and answer_usd_per_million")
        if self.machine_usd_per_hour is not None and None not in by_tokens:
            raise ValueError("a model is paid by tokens or by the machine's hours, not both")
        return self


@dataclass(frozen=True, slots=True)
class Spent:
    """What answers to n rows took. Lists are aligned with the rows, and empty where nobody knows."""

    machine_seconds: float
    seconds: Sequence[float] = ()           # from each request to its answer
    prompt_tokens: Sequence[int] = ()
    new_tokens: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """None where it is unknown: no latency of a label that was chosen and not written, no price that nobody named."""

    answers: int
    correct: float                          # sum of the rows' scores in [0, 1]
    p50_seconds: float | None
    p95_seconds: float | None
    prompt_tokens_per_answer: float | None
    new_tokens_per_answer: float | None
    machine_seconds_per_1000: float
    machine_seconds_per_1000_correct: float | None      # None where none is right
    usd_per_1000: float | None
    usd_per_1000_correct: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cost(spent: Spent, answers: int, correct: float, price: Price | None = None) -> Cost:
    """The cost of `answers` answers (at least one), of which `correct` are right.

    Quantiles are interpolated linearly (method 7 of Hyndman and Fan 1996, as numpy's and spreadsheets').
    """
    usd = _usd(spent, price) if price is not None else None
    p50, p95 = np.quantile(spent.seconds, [0.5, 0.95]).tolist() if spent.seconds else (None, None)

    def per_1000(total: float | None, of: float) -> float | None:
        return None if total is None or of <= 0 else 1000 * total / of

    return Cost(answers, correct, p50, p95, _mean(spent.prompt_tokens), _mean(spent.new_tokens),
                1000 * spent.machine_seconds / answers, per_1000(spent.machine_seconds, correct),
                per_1000(usd, answers), per_1000(usd, correct))


def _usd(spent: Spent, price: Price) -> float | None:
    if price.machine_usd_per_hour is not None:
        return spent.machine_seconds / 3600 * price.machine_usd_per_hour
    if price.prompt_usd_per_million is None or price.answer_usd_per_million is None:
        return None
    if not spent.prompt_tokens or not spent.new_tokens:
        return None
    return (sum(spent.prompt_tokens) * price.prompt_usd_per_million
            + sum(spent.new_tokens) * price.answer_usd_per_million) / 1e6


def _mean(values: Sequence[int]) -> float | None:
    return float(np.mean(values)) if values else None
