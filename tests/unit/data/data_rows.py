"""Short ways to rows and files, and a tokenizer whose tokens are characters, for the tests of the data package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.data.load import Loaded, Wanted, made_of
from tuneloop.data.read import Row, Table, read_table
from tuneloop.types import Conversation, Message, Origin

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def chat(prompt: str, answer: str, line: int = 1, file: str = "rows.csv") -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)), Origin(file, line))


def read(path: Path, shown: str) -> Table:
    """What a data file holds."""
    return read_table(str(path), Path(), shown)


def recognise_as(found: Table, kind: type[Any], *, folder: Path | None = None, **wanted: Any) -> Loaded:
    """What the rows of a table are as samples of a kind."""
    return made_of(found, Wanted(kind, **wanted), folder=folder)


def table(*rows: dict[str, Any], file: str = "rows.jsonl") -> Table:
    """Rows on lines 1, 2, …"""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table(file, "JSONL", [Row(i, row) for i, row in enumerate(rows, 1)], columns, [])


class CharacterTokenizer:
    """What `render` needs of a ChatTokenizer: one token per character, and one for the end of a turn."""

    end_of_turn = "<end>"
    specials = frozenset({end_of_turn})

    def prompt_text(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> str:
        return self.full_text(messages, tools) + "assistant:"

    def full_text(self, messages: Sequence[Message], tools: Sequence[str] = ()) -> str:
        return "".join(f"{m.role}:{m.content}{self.end_of_turn}" for m in messages)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[0 if piece == self.end_of_turn else ord(piece) for piece in re.findall("<end>|.", text, re.DOTALL)]
                for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) if i else self.end_of_turn for i in ids)
