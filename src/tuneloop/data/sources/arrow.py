"""Arrow files, Arrow streams and Feather, a batch at a time: as many rows as the program that wrote it chose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.files import opened, refuse_bomb
from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.data.sources._arrow_sizes import batch_sizes
from tuneloop.data.sources._batches import rows_of
from tuneloop.data.sources._plain import foreign
from tuneloop.errors import UserError

FILE, STREAM, FEATHER_1 = b"ARROW1", b"\xff\xff\xff\xff", b"FEA1"


class Source(base.Source):
    """An Arrow file in either layout; what is called a line is the number of a row."""

    suffixes = (".arrow", ".feather", ".ipc", ".arrows")
    starts = (FILE, STREAM, FEATHER_1)
    in_folders = True
    kind = "Arrow"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.path = base.whole_file(name, root, shown)

    def rows(self) -> Iterator[Row]:
        return base.some(rows_of_file(self.path, self.shown, self.notes), self.shown)


def rows_of_file(path: Path, shown: str, notes: list[str]) -> Iterator[Row]:
    """The rows of an Arrow file or stream. Raises UserError for whatever cannot be read."""
    with opened(path, shown) as file:
        start = file.read(8)
        if start.startswith(FEATHER_1):
            raise UserError(f"{shown} is a Feather file of version 1, which is read no more.",
                            fix="write it again with a newer version, or as Parquet")
        file.seek(8 if start.startswith(FILE) else 0)
        for packed, unpacked in batch_sizes(file):
            refuse_bomb(unpacked, packed, shown)
    with foreign(shown, "an Arrow file"):
        yield from rows_of(_batches(path, start), path.stat().st_size, shown, notes)


def _batches(path: Path, start: bytes) -> Iterator[Any]:
    """Every batch, once it is sure that nothing in it points outside of it."""
    from pyarrow import OSFile, ipc

    with OSFile(str(path)) as file:
        if start.startswith(FILE):
            reader = ipc.open_file(file)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = iter(ipc.open_stream(file))
        for batch in batches:
            batch.validate(full=True)
            yield batch
