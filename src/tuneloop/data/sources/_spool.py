"""What can be read only once, or is far away, as a temporary file that lives as long as the process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from tuneloop.data.files import BLOCK_BYTES
from tuneloop.data.read import Row, source_of_file
from tuneloop.data.sources import base
from tuneloop.errors import UserError


class Spooled(base.Source):
    """A source that had to become a file here first, at `path`; `part` is what was asked for behind a `#`."""

    def __init__(self, name: str, shown: str, path: Path, part: str = "") -> None:
        super().__init__(name, Path(), shown)
        self.path = path
        self.within = source_of_file(path, shown)(f"{path}#{part}" if part else str(path), Path(), shown)
        self.kind = self.within.kind

    def rows(self) -> Iterator[Row]:
        self.within.notes = self.notes
        for row in self.within.rows():
            self.kind = self.within.kind
            yield row

    def parts(self) -> Sequence[base.Part]:
        return [base.Part(self.path.stat().st_size, lambda: self.within)]


def spooled(stream: IO[bytes], name: str, shown: str) -> Path:
    """A file with what `stream` holds, called like `name`, for a suffix may say what is in it."""
    place = Path(tempfile.mkdtemp(dir=_folder().name)) / (Path(name).name or "rows")
    with place.open("wb") as file:
        while block := stream.read(BLOCK_BYTES):
            try:
                file.write(block)
            except OSError as error:
                raise UserError(f"{shown} cannot be kept in {place.parent}: {error.strerror or error}.",
                                fix="make room there, or name another folder in TMPDIR") from error
    return place


def size_of(path: Path) -> str:
    """`3.2 MB`, `41 kB`."""
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 10**6 else f"{max(size / 1e3, 0.1):,.1f} kB"


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tuneloop-")
