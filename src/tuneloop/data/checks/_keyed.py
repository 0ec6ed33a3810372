"""A few numbers for each row, of all rows or of a sample that keeps rows with equal keys together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.findings import Places
from tuneloop.types import Ints, Origin

MOST_ROWS = 1_000_000       # of 30 bytes or so
PLACE = [("file", "i4"), ("line", "i4"), ("row", "i8")]


class KeyedRows:
    """Rows as records with the fields `key` (64 bits, evenly spread), file, line, row (its number), and others.

    Of more rows than memory should hold every second key is let go, then every second of the others, and so on: rows
    with one key stay or go together, and counts of keys and of groups are those of a sample.
    """

    def __init__(self, fields: Sequence[tuple[str, str]] = (), most_rows: int = MOST_ROWS) -> None:
        self.dtype = np.dtype([("key", "u8"), *PLACE, *fields])
        self.most_rows, self.seen, self.halvings = most_rows, 0, 0
        self._files: dict[str, int] = {}
        self._parts: list[NDArray[Any]] = []

    def add(self, origins: Sequence[Origin], keys: NDArray[np.uint64], **fields: Any) -> None:
        """Rows side by side; `fields` as arrays or lists."""
        part = np.empty(len(origins), self.dtype)
        part["key"] = keys
        part["file"] = [self._files.setdefault(origin.file, len(self._files)) for origin in origins]
        part["line"] = [origin.line for origin in origins]
        part["row"] = np.arange(self.seen, self.seen + len(origins))
        for name, values in fields.items():
            part[name] = values
        self.seen += len(origins)
        self._parts.append(self._kept(part))
        while sum(map(len, self._parts)) > self.most_rows:
            self.halvings += 1
            self._parts = [self._kept(self.rows)]

    def _kept(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows[rows["key"] >> np.uint64(64 - self.halvings) == 0] if self.halvings else rows

    @property
    def rows(self) -> NDArray[Any]:
        """The records that are kept, in the order in which they came."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, self.dtype)

    def told(self, things: str) -> str:
        """Of which rows this speaks, where not of all: ` among 1 in 4 prompts`."""
        return f" among 1 in {2 ** self.halvings:,} {things}" if self.halvings else ""

    def places(self, rows: NDArray[Any]) -> Places:
        names = list(self._files)
        return Places(Origin(names[row["file"]], int(row["line"])) for row in rows)


def keys_of(texts: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hashes of texts, the same everywhere."""
    return np.frombuffer(b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                                  for text in texts), np.uint64)


def groups_of(keys: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Numbers of the keys in an order that puts equal ones together, and where in it each group begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else order
