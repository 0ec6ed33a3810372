"""Rows that come with tuneloop, to mix in: safety rows, and general ones against forgetting."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.errors import UserError

SCHEME = "builtin:"


class Source(base.Source):
    """`builtin:safety`: harmful requests refused kindly, and harmless ones that look like them, answered.
    `builtin:general`: short tasks of many kinds.

    Chats with a `category`; the safety rows say in `kind` whether they refuse or help.
    """

    schemes = (SCHEME,)
    kind = "built-in rows"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        folder = files("tuneloop.data") / "builtin"
        names = sorted(entry.name.removesuffix(".jsonl") for entry in folder.iterdir() if entry.name.endswith(".jsonl"))
        wanted = name.removeprefix(SCHEME)
        if wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1)
            raise UserError(f"{shown}: there are no built-in rows of that name.",
                            wanted=f"one of: {', '.join(SCHEME + known for known in names)}",
                            fix=f"did you mean {SCHEME}{near[0]}?" if near else "")
        self._file = folder / f"{wanted}.jsonl"

    def rows(self) -> Iterator[Row]:
        with self._file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield Row(number, json.loads(line))
