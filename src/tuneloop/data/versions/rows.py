"""A row of a version, and what rows are known by: one by its values, many by the multiset of those.

The same rows give the same id on every machine and in any order. Where a row came from is kept beside it, and is no
part of its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuneloop.types import Origin

SHOWN_DIGITS = 16       # of an id; `Origin.row` has as many of a row's hash
HASH_BYTES = 32

Values = dict[str, Any]


@dataclass(frozen=True)
class VersionRow:
    """A raw row, its place in the very first file, and the kind of the fix that thought it up, if one did."""

    values: Values
    origin: Origin
    made_by: str = ""

    @cached_property
    def hash(self) -> bytes:
        """sha256 of the values, whatever the order of their names."""
        return row_hash(self.values)


def row_hash(values: Values) -> bytes:
    """(32,) sha256 of JSON values; `Origin.row` is its beginning in hexadecimal digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()


class Identity:
    """The id of rows that come one after the other: sha256 over their sorted hashes. 32 bytes a row are kept."""

    def __init__(self, hashes: Iterable[bytes] = ()) -> None:
        self._hashes = bytearray()
        for one in hashes:
            self.add(one)

    def add(self, one: bytes) -> None:
        self._hashes += one

    def __len__(self) -> int:
        return len(self._hashes) // HASH_BYTES

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        import numpy as np

        ordered = np.sort(np.frombuffer(self._hashes, dtype=f"S{HASH_BYTES}"))
        return hashlib.sha256(ordered.view(np.uint8).data).hexdigest()
