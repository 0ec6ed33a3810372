"""Folders that `datasets.Dataset.save_to_disk` and `DatasetDict.save_to_disk` write: Arrow files with a state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.files import located, opened
from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.data.sources._plain import foreign
from tuneloop.data.sources.arrow import rows_of_file
from tuneloop.errors import UserError

STATE, SPLITS = "state.json", "dataset_dict.json"


class Source(base.Source):
    """A data set on disk, or one split of several: `reviews#train`. Rows are numbered over all its files."""

    kind = "saved data set"

    @classmethod
    def owns_folder(cls, folder: Path) -> bool:
        return (folder / STATE).is_file() or (folder / SPLITS).is_file()

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        folder, split = located(name, root)
        if (folder / SPLITS).is_file():
            folder = folder / self._split(_json(folder / SPLITS, shown), split)
        elif split:
            raise UserError(f"{shown}: this data set has no splits.", fix=f"leave #{split} away")
        self.folder = folder

    def _split(self, saved: Any, wanted: str) -> str:
        splits = [str(split) for split in saved.get("splits", ())] if isinstance(saved, dict) else []
        if wanted in splits or (not wanted and len(splits) == 1):
            split = wanted or splits[0]
            if Path(split).name == split:
                return split
        name = self.shown.removesuffix(f"#{wanted}")
        none = f", and none is called {wanted}" if wanted else ""
        raise UserError(f"{self.shown} has {len(splits)} splits{none}.",
                        wanted=f"one of: {', '.join(splits)}", fix=f"write {name}#{splits[0]}" if splits else "")

    def rows(self) -> Iterator[Row]:
        return base.some(self._rows(), self.shown)

    def _rows(self) -> Iterator[Row]:
        state = _json(self.folder / STATE, self.shown)
        with foreign(self.shown, "a saved data set"):
            names = [entry["filename"] for entry in state["_data_files"]]
            outside = [name for name in names if not self._is_inside(name)]
        if outside:
            raise UserError(f"{self.shown}: its {STATE} names a file outside of the folder: {outside[0]}.",
                            fix="do not trust this data set")
        number = 0
        for name in names:
            for row in rows_of_file(self.folder / name, f"{self.shown}/{name}", self.notes):
                number += 1
                yield Row(number, row.values)

    def _is_inside(self, name: str) -> bool:
        return (self.folder / name).resolve().is_relative_to(self.folder.resolve())


def _json(path: Path, shown: str) -> Any:
    with opened(path, f"{shown}/{path.name}") as file, foreign(shown, "a saved data set"):
        return json.load(file)
