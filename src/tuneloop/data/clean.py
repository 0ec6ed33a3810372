"""Exact duplicates and contradictions between rows."""

from __future__ import annotations

from collections.abc import Iterable

from tuneloop.types import Conversation, Message, Origin

Asked = tuple[tuple[str, str], ...]


def asked(row: Conversation) -> Asked:
    """What a model is shown before it answers. Rows that agree in it share a prompt, whatever carries loss."""
    return tuple((message.role, message.content) for message in row.prompt)


def drop_duplicates(rows: Iterable[Conversation]) -> tuple[list[Conversation], list[Origin]]:
    """The first of all rows with the same messages, and where the others were."""
    seen: set[tuple[Message, ...]] = set()
    kept: list[Conversation] = []
    removed: list[Origin] = []
    for row in rows:
        if row.messages in seen:
            removed.append(row.origin)
        else:
            seen.add(row.messages)
            kept.append(row)
    return kept, removed


def conflicts(rows: Iterable[Conversation]) -> list[list[Origin]]:
    """Groups of rows that answer the same prompt differently. They may be meant so, and are kept."""
    by_prompt: dict[Asked, list[Conversation]] = {}
    for row in rows:
        by_prompt.setdefault(asked(row), []).append(row)
    return [[row.origin for row in group] for group in by_prompt.values() if len({row.answer for row in group}) > 1]
