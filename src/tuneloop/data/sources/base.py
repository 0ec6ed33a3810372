"""Where rows come from. One file per kind of source, found by name through a catalog.

To add one, write `sources/<name>.py` with a class `Source(base.Source)` and say in `schemes` or `suffixes` which names
are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tuneloop.data.read import Row


class Source:
    """Rows from one place, which may be more than memory holds. Made anew for every pass over them.

    `name` is what the user typed, `root` the folder that relative paths count from, `shown` how messages name it.
    Raises UserError, from `__init__` or from `rows`, for whatever cannot be read or trusted.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names that are its own: `hub:`."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Ends of file names that are its own, in lower case: `.parquet`. A compressed file's own suffix comes before."""

    kind: str = ""                  # for people: CSV, Parquet, a database query
    notes: list[str]                # what is unusual about how it was read; complete after the last row

    def __init__(self, name: str, root: Path, shown: str) -> None:
        self.name, self.root, self.shown, self.notes = name, root, shown, []

    def rows(self) -> Iterator[Row]:
        """Every row in order; `Row.line` is the line or number by which a person finds it."""
        raise NotImplementedError
