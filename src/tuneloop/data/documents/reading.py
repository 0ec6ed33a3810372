"""A document's bytes and text, unpacked and decoded."""

from __future__ import annotations

from pathlib import Path

from tuneloop.data.decode import Text
from tuneloop.data.files import blocks, opened


def bytes_of(path: Path, shown: str) -> bytes:
    """All bytes of a file. Raises UserError where it cannot be opened or unpacked."""
    with opened(path, shown) as file:
        return b"".join(blocks(file, shown, []))


def text_of(path: Path, shown: str) -> tuple[str, list[str]]:
    """All of a text, with line ends as `\\n`, and notes on how it was decoded. Raises UserError where it is no text."""
    notes: list[str] = []
    with opened(path, shown) as file:
        return "".join(Text(blocks(file, shown, notes), shown, notes).pieces()), notes
