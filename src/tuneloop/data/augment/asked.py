"""Where a raw row keeps what is asked and what is answered, found out by changing one text after the other.

So it is right for every format of rows and every template: a text belongs to the question if the sample's user turns
change with it and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tuneloop.data.checks.base import answers_of
from tuneloop.data.fixes.base import Again, Item, Values
from tuneloop.data.flaws import RowError
from tuneloop.errors import UserError
from tuneloop.types import Sample

Path = tuple[str | int, ...]        # ("messages", 0, "content")
MARK = " ~ mark"


@dataclass(frozen=True)
class Leaves:
    """The texts of a row that make its question, and those that make its answer; elsewhere nothing may change."""

    asked: list[Path]
    answered: list[Path]


def leaves(item: Item, again: Again) -> Leaves:
    """Each text of the row is changed once, and the sample made again."""
    found = Leaves([], [])
    before = _parts(item.sample)
    for path, text in _texts(item.values, ()):
        if not text.strip():
            continue
        try:
            asked, others, answers = _parts(again(with_text(item.values, path, text + MARK), item.origin))
        except (RowError, UserError):
            continue        # a role, a label that is judged, a number: no free text
        if others == before[1] and (asked != before[0]) != (answers != before[2]):
            (found.asked if asked != before[0] else found.answered).append(path)
    return found


def text_at(values: Values, path: Path) -> str:
    value: Any = values
    for step in path:
        value = value[step]
    assert isinstance(value, str)
    return value


def with_text(values: Any, path: Path, text: str) -> Any:
    """The values with another text at this place; what is not on the way to it is shared."""
    if not path:
        return text
    step, *rest = path
    changed = values.copy()
    changed[step] = with_text(values[step], tuple(rest), text)
    return changed


def _parts(sample: Sample) -> tuple[list[str], list[object], tuple[str, ...]]:
    """What users say, what else is given, and the answers."""
    said = [message.content for message in sample.prompt if message.role == "user"]
    given: list[object] = [message for message in sample.prompt if message.role != "user"]
    return said, given, answers_of(sample)


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*path, step))
