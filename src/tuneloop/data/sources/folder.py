"""A folder: all files of rows in it, and in the folders below, in the order of their paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tuneloop.data.files import WANTED, located, suffix_of
from tuneloop.data.read import SOURCES, Row, source_of_file
from tuneloop.data.sources import base
from tuneloop.data.sources._splits import SPLITS, split_of
from tuneloop.errors import UserError, raise_all

SHOWN_NAMES = 5


class Source(base.Source):
    """Files of any kinds. Of `folder#train` those whose names say so: `train.csv`, `train/0.parquet`."""

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.folder, split = located(name, root)
        self.place = (shown.removesuffix(f"#{split}") if split else shown).rstrip("/")
        self.files = self._chosen(split)
        self.kind = f"a folder of {len(self.files)} files"

    def rows(self) -> Iterator[Row]:
        return base.some(self._rows(), self.shown)

    def _rows(self) -> Iterator[Row]:
        problems = []
        for file in self.files:
            try:
                part = self._part(file)
                for row in part.rows():
                    yield Row(row.line, row.values, row.file or part.shown)
                self.notes += [f"{part.shown}: {note}" for note in part.notes]
            except UserError as error:
                problems.append(error)
        raise_all(problems)

    def parts(self) -> Sequence[base.Part]:
        return [base.Part((self.folder / file).stat().st_size, partial(self._part, file)) for file in self.files]

    def _part(self, file: str) -> base.Source:
        path, shown = self.folder / file, f"{self.place}/{file}"
        return source_of_file(path, shown)(str(path), Path(), shown)

    def _chosen(self, split: str) -> list[str]:
        """The paths below the folder of the files to read."""
        suffixes = {suffix for name in SOURCES.names if SOURCES.get(name).in_folders
                    for suffix in SOURCES.get(name).suffixes}
        files = sorted(self._files())
        data = [file for file in files if suffix_of(Path(file)) in suffixes]
        others = [file for file in files if suffix_of(Path(file)) not in suffixes]
        if others:
            self.notes.append(f"not read, for they are no files of rows: {_some(others)}")
        splits = sorted({split_of(file) for file in data} - {""})
        if split:
            data = [file for file in data if split_of(file) == SPLITS.get(split, split)]
        elif len(splits) > 1:
            self.notes.append(f"it holds files for {', '.join(splits)}, which are read together; {self.place}#"
                              f"{splits[0]} are those for {splits[0]} alone")
        if not data:
            raise UserError(f"{self.shown} holds no file of rows{f' for {split}' if split else ''}.",
                            wanted=f"one of: {', '.join(splits)}" if splits else WANTED,
                            fix=f"docs:{self.place} reads text documents" if others else "")
        return data

    def _files(self) -> Iterator[str]:
        """Paths below the folder, hidden ones left out. A link that leads out of it is refused."""
        inside = self.folder.resolve()
        for place, folders, files in os.walk(self.folder, onerror=self._unreadable):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            for name in [*folders, *files]:
                path = Path(place, name)
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    raise UserError(f"{self.shown}: {path.relative_to(self.folder)} is a link that leads out of the "
                                    "folder.", fix="copy the file into the folder, or name it by itself")
            yield from (Path(place, name).relative_to(self.folder).as_posix() for name in files
                        if not name.startswith((".", "__")))

    def _unreadable(self, error: OSError) -> None:
        raise UserError(f"{self.shown} cannot be read: {error.strerror or error}.") from error


def _some(names: Sequence[str]) -> str:
    further = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {further} more" if further > 0 else "")
