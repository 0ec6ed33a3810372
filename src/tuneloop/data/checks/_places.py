"""Places of several kinds of rows together."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge

from tuneloop.data.findings import Places


def in_order(several: Iterable[Places]) -> Places:
    """All places, file by file in the order of their lines."""
    return Places(merge(*several, key=lambda origin: (origin.file, origin.line)))
