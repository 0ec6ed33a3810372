"""Rows of a version in the store: `data:NAME`, or `data:` and the beginning of an id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.data.versions.store import Store


@dataclass(frozen=True, slots=True)
class KeptRow(Row):
    """A row with the place it had in the very first file, and the kind of the fix that thought it up, if one did."""

    made_by: str = ""


class Source(base.Source):
    """A version of data, as it was when it was made."""

    schemes: ClassVar[tuple[str, ...]] = ("data:",)
    kind = "a data version"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.store = Store()
        self.version = self.store.find(name)
        self.notes.append(f"the version {self.version.short} of {self.version.created[:10]}; lines are those of the "
                          "files that its rows came from")

    def rows(self) -> Iterator[KeptRow]:
        for row in self.store.rows(self.version):
            yield KeptRow(row.origin.line, row.values, row.origin.file, row.made_by)
