"""The base of every part of a recipe: frozen, and unknown keys are refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A part of the recipe. Each owner defines its own next to the code that reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
