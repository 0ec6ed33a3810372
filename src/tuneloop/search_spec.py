"""The `search:` part of a recipe: what `tuneloop search` may change, and what it may spend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from tuneloop.evaluation.seeds import FEWEST_SEEDS
from tuneloop.spec import Spec

AUTO = "auto"
WANTED = "a list of choices, {low: 1, high: 5}, the same with log: true, or auto"
ENDS = frozenset({"low", "high", "log"})


class Range(Spec):
    """Any number from `low` to `high`, both included; whole ones where both ends are written without a point."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw evenly between orders of magnitude, as suits a learning rate."""

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("ends that are finite")
        if self.low >= self.high:
            raise ValueError("low below high; a key that keeps one value belongs into its own part of the recipe")
        if self.log and self.low <= 0:
            raise ValueError("a low end above 0, which log: true asks for")
        return self


def _dimension(given: Any) -> list[Any] | Range | str:
    if given == AUTO:
        return AUTO
    if isinstance(given, list):
        choices = [_number(choice) for choice in given]
        if not choices:
            raise ValueError("at least one choice")
        if any(choice in choices[:i] for i, choice in enumerate(choices)):
            raise ValueError("choices that differ")
        return choices
    if isinstance(given, Range):
        return given
    if not isinstance(given, Mapping) or not ENDS.intersection(given):
        raise ValueError(WANTED)
    try:
        return Range.model_validate(dict(given))
    except ValidationError as error:
        [first, *_] = error.errors()
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(said if first["type"] == "value_error" else WANTED) from error


def _number(choice: Any) -> Any:
    """YAML takes 1e-4 for a text; a recipe takes it for a number, and so does a space."""
    if isinstance(choice, str) and any(letter.isdigit() for letter in choice):
        try:
            return float(choice)
        except ValueError:
            return choice
    return choice


def _flat(given: Any) -> Any:
    """`{training: {epochs: [1, 2]}}`, as overrides make it, is `{training.epochs: [1, 2]}`."""
    if given == AUTO:
        return None
    if not isinstance(given, Mapping):
        return given
    flat: dict[str, Any] = {}
    for key, value in given.items():
        inner = _flat(value) if isinstance(value, Mapping) and _is_nested(value) else None
        flat |= {str(key): value} if inner is None else {f"{key}.{more}": of for more, of in inner.items()}
    return flat


def _is_nested(value: Mapping[Any, Any]) -> bool:
    return bool(value) and not ENDS.intersection(value) and all(
        one == AUTO or isinstance(one, list | Mapping) for one in value.values())


Dimension = Annotated[Any, BeforeValidator(_dimension), WithJsonSchema({"anyOf": [
    {"const": AUTO}, {"type": "array", "minItems": 1},
    {"type": "object", "properties": {"low": {"type": "number"}, "high": {"type": "number"},
                                      "log": {"type": "boolean"}},
     "required": ["low", "high"], "additionalProperties": False}]})]
Space = Annotated[dict[str, Dimension] | None, BeforeValidator(_flat)]


class Budget(Spec):
    """What a search may spend, the runs at its end included; it ends at whichever comes first."""

    minutes: Annotated[float, Field(gt=0)] | None = None
    """Of the clock."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Trained on: a shared prefix counts once. What is computed to score rows does not count."""
    usd: Annotated[float, Field(gt=0)] | None = None
    """At the price that evaluation.price names for an hour of this machine."""

    @property
    def given(self) -> dict[str, float]:
        """The bounds there are, by name."""
        return {name: value for name, value in self if value is not None}


class SearchSpec(Spec):
    """What `tuneloop search` may change, and what it may spend. `tuneloop run` takes no notice of it."""

    space: Space = None
    """What may change: keys of the recipe, each with a list of choices, with {low, high} and log: true where orders of
    magnitude count, or with auto for what suits the method. Keys that are not named stay as they are. Without it: the
    usual ones of the method and the objective that the recipe does not give."""
    budget: Budget = Budget()
    """What all of it may take: {minutes: 60}, {tokens: 2000000} or {usd: 5}."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """At most so many recipes are tried, that of the defaults included; 20 unless this or a budget is given."""
    seeds: Annotated[int, Field(ge=FEWEST_SEEDS)] = FEWEST_SEEDS
    """The best recipe and the defaults are trained so often at the end, and judged on the test rows."""
    metric: str = AUTO
    """What trials are compared by on the validation rows: auto is the metric of the goal, and no other will do."""
