"""Where rows come from. One file per kind of source, found by name through a catalog.

To add one, write `sources/<name>.py` with a class `Source(base.Source)` and say in `schemes`, `suffixes` or `starts`
which names and files are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tuneloop.data.files import located
from tuneloop.data.read import ONE_OBJECT_PER_ROW, Row
from tuneloop.errors import UserError


class Source:
    """Rows from one place, which may be more than memory holds. Made anew for every pass over them.

    `name` is what the user typed, `root` the folder that relative paths count from, `shown` how messages name it.
    Raises UserError, from `__init__` or from `rows`, for whatever cannot be read or trusted.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """Beginnings of names that are its own: `hub:`."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Ends of file names that are its own, in lower case: `.parquet`. A compressed file's own suffix comes before."""
    starts: ClassVar[tuple[bytes, ...]] = ()
    """First bytes of files that are its own, whatever they are called: `PAR1`. Without them a suffix proves nothing."""
    in_folders: ClassVar[bool] = False
    """Whether its files are rows wherever they lie; not so of documents, for a README beside the rows is about them."""

    kind: str = ""                  # for people: CSV, Parquet, a database query; may be known only after the first row
    notes: list[str]                # what is unusual about how it was read; complete after the last row

    def __init__(self, name: str, root: Path, shown: str) -> None:
        self.name, self.root, self.shown, self.notes = name, root, shown, []

    @classmethod
    def owns(cls, name: str) -> bool:
        """Whether a name is its own and no path."""
        return name.startswith(cls.schemes)

    @classmethod
    def owns_folder(cls, folder: Path) -> bool:
        """Whether a folder is its own: one that a program has written in a layout of its own."""
        return False

    def rows(self) -> Iterator[Row]:
        """Every row in order; `Row.line` is the line or number by which a person finds it.

        Where some rows are broken, the others come first and UserError with all the broken ones at the end.
        """
        raise NotImplementedError

    def parts(self) -> Sequence[Part]:
        """The sources that it is put together from, if it is: the files of a folder."""
        return ()


@dataclass(frozen=True)
class Part:
    """One of several sources in one, opened only when it is needed: it may have to be downloaded."""

    size_bytes: int
    open: Callable[[], Source]


def whole_file(name: str, root: Path, shown: str) -> Path:
    """The path of a file that has no parts. Raises UserError where `name` asks for one behind a `#`."""
    path, part = located(name, root)
    if part:
        raise UserError(f"{shown}: this file has no parts, so nothing in it is called {part}.",
                        fix=f"leave #{part} away")
    return path


def some(rows: Iterator[Row], shown: str) -> Iterator[Row]:
    """The same rows; UserError at the end if there was none."""
    first = next(rows, None)
    if first is None:
        raise UserError(f"{shown} holds no rows.", wanted=ONE_OBJECT_PER_ROW)
    yield first
    yield from rows
