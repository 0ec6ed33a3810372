"""Short ways to items, and how their rows become samples again, for the tests of the fixes."""

from __future__ import annotations

from typing import Any

from tuneloop.data.fixes.base import Item, Tools
from tuneloop.types import Conversation, Message, Origin, Sample, Text


def made(values: dict[str, Any], origin: Origin) -> Sample:
    """A chat of `messages`, or plain `text`."""
    if "text" in values:
        return Text(values["text"], origin)
    return Conversation(tuple(Message(m["role"], m["content"], m.get("train", True)) for m in values["messages"]),
                        origin)


def item(values: dict[str, Any], line: int = 1) -> Item:
    origin = Origin("rows.jsonl", line)
    return Item(values, origin, made(values, origin))


def texts(*contents: str) -> list[Item]:
    return [item({"text": content}, line) for line, content in enumerate(contents, 1)]


def chat(*contents: str, line: int = 1, system: str = "") -> Item:
    """Questions and answers in turn."""
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(contents), contents,
                                                                   strict=False)]
    return item({"messages": [{"role": "system", "content": system}] * bool(system) + turns}, line)


TOOLS = Tools(made)
