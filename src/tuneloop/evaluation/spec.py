"""The `evaluation:` part of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tuneloop.spec import Spec

Positive = Annotated[int, Field(ge=1)]


class EvaluationSpec(Spec):
    """How base and tuned model are compared."""

    max_new_tokens: Positive = 256
    """Longest generated answer, for open answers."""
    rows: Positive | None = None
    """Score at most so many test rows, drawn at random with the recipe's seed."""
    resamples: Annotated[int, Field(ge=200)] = 2000
    """Bootstrap resamples behind every interval."""
