"""Where in a raw row its answer stands, so that it can be named and changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.template import ANSWER_NAMES, as_text

Values = dict[str, Any]
TEXTS_OF_TURNS = ("content", "value")
LOOKED_AT = 1_000       # rows


@dataclass(frozen=True)
class AnswerPlace:
    """A column that holds answers: as they are, or as the text under `key` of the last turn of a list."""

    column: str
    key: str = ""

    def read(self, values: Values) -> str | None:
        """The answer as it is written; None where a row has no text there."""
        if self.key:
            text = _last(values.get(self.column)).get(self.key)
            return text if isinstance(text, str) else None
        try:
            return as_text(values, self.column)
        except RowError:
            return None

    def write(self, values: Values, answer: str) -> Values:
        """The row with another answer."""
        if not self.key:
            return values | {self.column: answer}
        *turns, last = values[self.column]
        return values | {self.column: [*turns, last | {self.key: answer}]}


def _last(value: Any) -> dict[str, Any]:
    return value[-1] if isinstance(value, list) and value and isinstance(value[-1], dict) else {}


def answer_place(rows: Iterable[tuple[Values, str]]) -> AnswerPlace | None:
    """The place that holds the answer in every one of these rows, each given with its answer; None without one.

    Of several the column that is named like an answer, else the last.
    """
    held: list[AnswerPlace] | None = None
    for count, (values, answer) in enumerate(rows):
        if count == LOOKED_AT or held == []:
            break
        held = [place for place in (_places(values) if held is None else held)
                if (text := place.read(values)) is not None and text.strip() == answer.strip()]
    return max(held, key=lambda place: place.column.lower() in ANSWER_NAMES) if held else None


def _places(values: Values) -> list[AnswerPlace]:
    """The last column first."""
    return [AnswerPlace(column, key) for column in reversed(values) for key in ("", *TEXTS_OF_TURNS)]
