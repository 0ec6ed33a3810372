"""Items as they are loaded, and a model whose replies are given, for the tests of augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tuneloop.data.fixes.base import Generate, Item, Tools
from tuneloop.data.read import Row, Table
from tuneloop.data.recognise import choose
from tuneloop.types import Message, Origin


def loaded(*rows: dict[str, Any], prompt: str | None = None, answer: str | None = None,
           generate: Generate | None = None) -> tuple[list[Item], Tools]:
    """Items on lines 1, 2, … and what a fix may use."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    read = Table("rows.jsonl", "JSONL", [Row(i, row) for i, row in enumerate(rows, 1)], columns, [])
    mapped = choose(read, prompt=prompt, answer=answer)
    origins = [Origin(read.file, row.line, row.digest) for row in read.rows]
    return ([Item(row.values, origin, mapped.make(row.values, origin))
             for row, origin in zip(read.rows, origins, strict=True)], Tools(mapped.make, generate))


class Model:
    """A model that answers as told, and keeps what it was asked."""

    def __init__(self, reply: str | Callable[[str], str]) -> None:
        self.reply, self.asked = reply, list[str]()

    def __call__(self, prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        texts = [prompt[-1].content for prompt in prompts]
        self.asked += texts
        return [self.reply if isinstance(self.reply, str) else self.reply(text) for text in texts]
