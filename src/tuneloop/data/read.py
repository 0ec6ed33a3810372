"""From a name to raw rows, each with its line in the file as an editor shows it.

A name is a path, `-`, a database query, an address of the hub or of remote storage: whatever a source in
`tuneloop.data.sources` calls its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.catalog import Catalog
from tuneloop.data.files import blocks, located, opened, packing_of, suffix_of
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuneloop.data.sources.base import Source

SOURCES = Catalog("source", "tuneloop.data.sources", "Source")
ONE_OBJECT_PER_ROW = 'one object per row, such as {"prompt": "…", "completion": "…"}'
LOOKED_AT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row and the line of the file on which it begins, from 1; `file` says which one if there are several."""

    line: int
    values: dict[str, Any]
    file: str = ""

    @property
    def digest(self) -> str:
        """A short hash of the values."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Table:
    """The raw rows of a source, all in memory. `notes` says what is unusual about how it was read."""

    file: str
    kind: str                   # CSV | TSV | JSON | JSONL | …
    rows: list[Row]
    columns: list[str]          # in order of first appearance
    notes: list[str]

    @classmethod
    def of(cls, file: str, kind: str, rows: list[Row], notes: list[str]) -> Table:
        """With the columns that the rows have."""
        return cls(file, kind, rows, list(dict.fromkeys(column for row in rows for column in row.values)), notes)


def read_table(name: str, root: Path, shown: str | None = None) -> Table:
    """Everything that a source holds. Paths count from `root`; messages name it `shown`. Raises UserError."""
    source = open_source(name, root, shown)
    rows = list(source.rows())
    return Table.of(source.shown, source.kind, rows, source.notes)


def open_source(name: str, root: Path, shown: str | None = None) -> Source:
    """The source that `name` means: by its scheme, else by what kind of folder it is, else by what is in the file.

    A suffix decides only where the content does not. `Source.shown` is `shown`, or the name, without its passwords.
    """
    shown = without_secrets(shown or name)
    for kind in _kinds():
        if kind.owns(name):
            return kind(name, root, shown)
    path, _ = located(name, root)
    if os.path.isdir(path):            # unlike Path's, False for names that no file can have
        found = next((kind for kind in _kinds() if kind.owns_folder(path)), None)
        return (found or SOURCES.get("folder"))(name, root, shown)
    return source_of_file(path, shown)(name, root, shown)


def from_anywhere(name: str, root: Path) -> str:
    """The name of the same rows whatever folder paths count from: with an absolute path, if it holds one."""
    if holding := _HOLDS_PATH.fullmatch(name):
        scheme, path, rest = holding.groups()
        return f"{scheme}{_absolute(located(path, root)[0])}{rest}"
    if any(kind.owns(name) for kind in _kinds()):
        return name
    path, part = located(name, root)
    return _absolute(path) + (f"#{part}" if part else "")


def _absolute(path: Path) -> str:
    """A link stays one: its name has a suffix, and images lie beside it."""
    return str(path.parent.resolve() / path.name)


def source_of_file(path: Path, shown: str) -> type[Source]:
    """The kind of source that reads a file. Raises UserError where the file cannot be opened."""
    with opened(path, shown) as file:
        packing = packing_of(file)
        start = next(blocks(file, shown, []), b"")[:LOOKED_AT_BYTES]
    suffix = suffix_of(path)
    by_content = [kind for kind in _kinds() if start.startswith(kind.starts)]
    if by_content and packing:
        raise UserError(f"{shown} is compressed with {packing}, and what is inside is no text.",
                        wanted="Parquet, Arrow and Excel files as they are: they are compressed already",
                        fix="unpack it")
    by_suffix = [kind for kind in by_content or _kinds() if suffix in kind.suffixes]
    if by_content:
        return (by_suffix or by_content)[0]
    return next((kind for kind in by_suffix if not kind.starts), SOURCES.get("text"))


def _kinds() -> Iterator[type[Source]]:
    return map(SOURCES.get, SOURCES.names)


_HOLDS_PATH = re.compile(r"(docs:|sqlite(?:\+\w+)?:///)([^/:#?][^#?]*)(#.*|)", re.DOTALL)
"""Names that are addresses, with a relative path in them."""


def without_secrets(name: str) -> str:
    """A name as it may be shown and kept: without the passwords and keys that an address may hold."""
    for pattern in _SECRETS:
        name = pattern.sub(r"\1***\2", name)
    return name


_SECRETS = [
    re.compile(r"(https?://)[^/@#\s]+(@)", re.IGNORECASE),
    re.compile(r"(://[^:/@#]*:)(?!\d+(?:/|$))[^#]*(@)"),
    re.compile(r"([?&;][^=&;#]*(?:pass|pwd|token|secret|key|sig|credential)[^=&;#]*=)[^&#]*()", re.IGNORECASE),
]
