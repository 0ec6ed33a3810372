"""Exact duplicates and contradictions between rows."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, TypeVar

from tuneloop.types import (
    Conversation,
    Message,
    Origin,
    Preference,
    Prompt,
    Ranked,
    Rated,
    Rollout,
    Sample,
    Text,
    tools_of,
)

Asked = tuple[tuple[str, ...], ...]
Row = TypeVar("Row", bound=Sample)
NOWHERE = Origin("", 0)
ADDED_LATER = frozenset({"tools", "calls", "media", "call_id", "name"})     # fields, left out where they are empty


def asked(row: Sample) -> Asked:
    """What a model is shown before it answers. Rows that agree in it share a prompt, whatever carries loss."""
    turns = tuple((message.role, message.content, *_beside(message)) for message in row.prompt)
    tools = tools_of(row)
    return (*turns, tools) if tools else turns


def _beside(message: Message) -> Iterator[str]:
    """What a turn calls and shows; the ids of calls are names that say nothing."""
    for call in message.calls:
        yield from (call.name, call.arguments)
    for media in message.media:
        yield from (media.kind, media.where)


def content(row: Row) -> Row:
    """The row without its place in a file: equal for rows that say the same."""
    return replace(row, origin=NOWHERE)


def written(row: Sample) -> str:
    """The same as text. It goes into the hashes of runs: rows without tools and media are written as they always were.
    """
    fields = asdict(content(row), dict_factory=_with_what_is_there)
    del fields["origin"]
    return json.dumps(fields, ensure_ascii=False)


def _with_what_is_there(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value or name not in ADDED_LATER}


def drop_duplicates(rows: Iterable[Row]) -> tuple[list[Row], list[Origin]]:
    """The first of all rows that say the same, and where the others were.

    The same answer sampled twice is no duplicate where a row holds one answer.
    """
    seen: set[Any] = set()
    kept: list[Row] = []
    removed: list[Origin] = []
    for row in rows:
        said, sampled = content(row), isinstance(row, Rollout) and len(row.answers) == 1
        if said in seen and not sampled:
            removed.append(row.origin)
        else:
            seen.add(said)
            kept.append(row)
    return kept, removed


def conflicts(rows: Iterable[Sample]) -> list[list[Origin]]:
    """Groups of rows that say different things of the same. They may be meant so, and are kept."""
    by_subject: dict[Hashable, dict[Hashable, list[Origin]]] = {}
    for row in rows:
        subject, said = _stance(row)
        by_subject.setdefault(subject, {}).setdefault(said, []).append(row.origin)
    return [[origin for origins in stances.values() for origin in origins]
            for stances in by_subject.values() if len(stances) > 1]


def _stance(row: Sample) -> tuple[Hashable, Hashable]:
    """What a row speaks of, and what it says of that. Rows that differ in the second alone contradict each other."""
    match row:
        case Conversation():
            return asked(row), (row.answer, *_beside(row.messages[-1]))
        case Preference():
            return (asked(row), frozenset({row.chosen, row.rejected})), row.chosen
        case Rated():
            return (asked(row), row.answer), row.desirable
        case Rollout():
            return (asked(row), row.answers), row.rewards
        case Ranked():
            return (asked(row), frozenset(row.answers)), row.answers
        case Prompt():
            return asked(row), row.references
        case Text():
            return row.text, ""
