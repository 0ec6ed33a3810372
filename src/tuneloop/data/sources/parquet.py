"""Parquet files, a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.files import BLOCK_BYTES, LONGEST_ROW, opened, refuse_bomb
from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.data.sources._batches import rows_of
from tuneloop.data.sources._plain import foreign

ROWS_AT_ONCE = 128              # writers put texts of up to 1 MB into dictionaries, of which each row gets a copy
TIGHT, FEWEST_ROWS = 100, 8     # a file that unpacks to so many times its size may point to longer texts still


class Source(base.Source):
    """A Parquet file; what is called a line is the number of a row."""

    suffixes = (".parquet", ".pq")
    starts = (b"PAR1",)
    in_folders = True
    kind = "Parquet"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.path = base.whole_file(name, root, shown)

    def rows(self) -> Iterator[Row]:
        return base.some(self._rows(None, 1), self.shown)

    def row_groups(self) -> list[int]:
        """How many rows there are in each group."""
        with self._file() as file:
            return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]

    def rows_of_group(self, group: int) -> Iterator[Row]:
        """The rows of one group, with the numbers that they have in the whole file."""
        return self._rows([group], 1 + sum(self.row_groups()[:group]))

    def _rows(self, groups: list[int] | None, first: int) -> Iterator[Row]:
        with foreign(self.shown, "a Parquet file"), self._file() as file:
            size = self.path.stat().st_size
            batches = file.iter_batches(self._rows_at_once(file.metadata, size), row_groups=groups, use_threads=False)
            yield from rows_of(batches, size, self.shown, self.notes, first)

    def _rows_at_once(self, metadata: Any, size: int) -> int:
        """So few that they fit into memory even where all of them point to one long text, which the file has once.

        Nothing here asks for the metadata of a column: pyarrow ends the process where they are damaged.
        """
        unpacked = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        refuse_bomb(sum(unpacked), size, self.shown)
        longest = max(unpacked, default=0) if sum(unpacked) > TIGHT * size else 0
        return max(FEWEST_ROWS, min(ROWS_AT_ONCE, LONGEST_ROW // max(longest, 1)))

    def _file(self) -> Any:
        """A large file is read page by page; a small one column by column, for a damaged page may call itself large."""
        from pyarrow.parquet import ParquetFile

        with foreign(self.shown, "a Parquet file"), opened(self.path, self.shown):
            large = self.path.stat().st_size > LONGEST_ROW
            return ParquetFile(self.path, pre_buffer=False, buffer_size=BLOCK_BYTES if large else 0)
