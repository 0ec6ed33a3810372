"""Short ways to rows of versions, for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tuneloop.data.versions.rows import VersionRow
from tuneloop.types import Origin


def row(text: str, line: int = 1, file: str = "rows.jsonl", made_by: str = "") -> VersionRow:
    return VersionRow({"text": text}, Origin(file, line), made_by)


def rows(*texts: str, file: str = "rows.jsonl") -> list[VersionRow]:
    """On lines 1, 2, …"""
    return [row(text, line, file) for line, text in enumerate(texts, 1)]


def many(count: int, seed: int = 0) -> list[VersionRow]:
    """Different rows of a few hundred random letters, which no compression makes small."""
    letters = np.random.default_rng(seed).integers(97, 123, (count, 200), dtype=np.uint8)
    return rows(*(line.tobytes().decode() for line in letters))


def texts(found: Iterable[VersionRow]) -> list[str]:
    return [one.values["text"] for one in found]
