"""The next token of every row of a batch, each by its own rules and with its own random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneloop.errors import UserError
from tuneloop.inference.constraint import Guide
from tuneloop.types import Sampling


def require_valid(sampling: Sampling) -> None:
    """Raise a UserError for values that mean nothing."""
    s = sampling
    for name, right, wanted in (
            ("max_new_tokens", s.max_new_tokens >= 1, "1 or more"),
            ("temperature", 0 <= s.temperature < math.inf, "0 (greedy) or more"),
            ("top_p", 0 < s.top_p <= 1, "more than 0, at most 1 (all tokens)"),
            ("top_k", s.top_k >= 0, "0 (all tokens) or more"),
            ("min_p", 0 <= s.min_p <= 1, "0 (all tokens) to 1"),
            ("top_logprobs", s.top_logprobs >= 0, "0 or more")):
        if not right:
            raise UserError(f"{name} is {getattr(s, name)}.", wanted=wanted)


class Chooser:
    """Chooses the tokens of one answer: what it draws depends on its own seed and logits alone."""

    def __init__(self, sampling: Sampling, guide: Guide | None = None) -> None:
        self.sampling, self.guide = sampling, guide
        self._random = torch.Generator().manual_seed(sampling.seed) if sampling.temperature > 0 else None

    def choose(self, logits: Tensor) -> int:
        """A token by the logits (V,) of the model."""
        if self.guide is not None:
            allowed = torch.from_numpy(self.guide.allowed()[:len(logits)]).to(logits.device)
            logits = logits.masked_fill(~allowed, -torch.inf)
        token = int(logits.argmax()) if self._random is None else self._drawn(logits)
        if self.guide is not None:
            self.guide.take(token)
        return token

    def _drawn(self, logits: Tensor) -> int:
        ids, probabilities = shares(logits, self.sampling)
        place = torch.rand((), generator=self._random, dtype=torch.float64) * probabilities.sum()
        found = int(torch.searchsorted(probabilities.cumsum(0), place.to(probabilities.device), right=True))
        return int(ids[min(found, len(ids) - 1)])


def shares(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens that may be drawn, likeliest first, and their probabilities before they are made to sum to one again.

    Temperature, then the `top_k` likeliest, then the fewest that reach `top_p` (arXiv 1904.09751), then those with at
    least `min_p` of the likeliest's probability (arXiv 2407.01082); every cut renormalises, as in transformers.
    """
    values, ids = (logits.double() / sampling.temperature).sort(descending=True, stable=True)
    if sampling.top_k:
        values, ids = values[:sampling.top_k], ids[:sampling.top_k]
    probabilities = values.softmax(0)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        kept = before < sampling.top_p
        kept[0] = True
        probabilities, ids = probabilities[kept] / probabilities[kept].sum(), ids[kept]
    if sampling.min_p:
        kept = probabilities >= sampling.min_p * probabilities[0]
        probabilities, ids = probabilities[kept], ids[kept]
    kept = probabilities > 0
    return ids[kept], probabilities[kept]


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, its log-prob by the model itself, and the likeliest with theirs where asked for."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def choose(logits: Tensor, choosers: list[Chooser]) -> list[Choice]:
    """The next token of every row of logits (B, V)."""
    plain = [c.guide is None and c.sampling.temperature == 0 for c in choosers]
    best = logits.argmax(-1).tolist() if any(plain) else []
    tokens = [best[i] if plain[i] else chooser.choose(logits[i]) for i, chooser in enumerate(choosers)]
    every = logits.float().log_softmax(-1)
    chosen = every.gather(1, torch.tensor(tokens, device=logits.device).unsqueeze(1)).squeeze(1).tolist()
    return [Choice(token, logprob, _top(every[i], chooser.sampling.top_logprobs))
            for i, (token, logprob, chooser) in enumerate(zip(tokens, chosen, choosers, strict=True))]


def _top(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    if not count:
        return ()
    values, ids = logprobs.topk(min(count, len(logprobs)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))
