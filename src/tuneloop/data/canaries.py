"""Canaries: rows with a random secret each, put among the training rows on purpose, so that it can be measured what a
model learns by heart (Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232). They are trained as the rows around
them are, and have no other part: they are no rows of the task, and nothing is held out of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Origin, Preference, Rated, Sample

FILE = "data.canaries"      # where their origins say that they are from
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Canary:
    """A question that nobody can answer, and a secret to learn as its answer."""

    number: int             # from 1
    secret: str

    @property
    def question(self) -> str:
        return f"What is the code of locker {self.number}?"


def canaries(seed: int, n: int) -> list[Canary]:
    """`n` canaries, each of a number of its own and a secret of nine random digits."""
    random = np.random.default_rng(seed)
    return [Canary(number, _secret(random)) for number in range(1, n + 1)]


def other_secrets(secret: str, n: int, seed: int) -> list[str]:
    """`n` different secrets that it might have been instead."""
    random = np.random.default_rng([seed, n])
    found: dict[str, None] = {}
    while len(found) < n:
        if (other := _secret(random)) != secret:
            found[other] = None
    return list(found)


def check_canaries(kind: type[Any], *, writes: bool) -> None:
    """Raise a UserError where samples of `kind` teach no secret; `writes`: whether what is trained writes answers."""
    fix = "leave data.canaries out"
    if not writes:
        raise UserError("data.canaries is set, but this objective trains a model that scores answers and writes none: "
                        "it could not say a secret.", fix=fix)
    if kind not in (Conversation, Preference, Rated):
        raise UserError("data.canaries is set, but this objective learns from answers that a model has sampled, and "
                        "none would ever sample a secret.", wanted="an objective that learns from given answers, such "
                        "as sft, dpo or kto", fix=fix)


def canary_rows(n: int, seed: int, kind: type[Any], system: str | None = None) -> list[Any]:
    """`n` canaries as samples of `kind`, which `check_canaries` allows: the secret is the answer, the preferred one, or
    one that people liked. `system` stands before the question as before every other.
    """
    first = (Message("system", system),) if system else ()
    return [_row(canary, (*first, Message("user", canary.question)), kind, seed) for canary in canaries(seed, n)]


def is_canary(row: Sample) -> bool:
    return row.origin.file == FILE and not row.origin.row


def _row(canary: Canary, prompt: tuple[Message, ...], kind: type[Any], seed: int) -> Sample:
    origin = Origin(FILE, canary.number)
    if kind is Preference:
        [other] = other_secrets(canary.secret, 1, seed)
        return Preference(prompt, canary.secret, other, origin)
    if kind is Rated:
        return Rated(prompt, canary.secret, True, origin)
    assert kind is Conversation
    return Conversation((*prompt, Message("assistant", canary.secret)), origin)


def _secret(random: np.random.Generator) -> str:
    digits = "".join(map(str, random.integers(10, size=_DIGITS)))
    return "-".join(digits[i:i + 3] for i in range(0, _DIGITS, 3))
