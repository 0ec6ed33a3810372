"""Rows written as text: CSV, TSV, JSON lines or one JSON list, plain or compressed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tuneloop.data.decode import Text
from tuneloop.data.files import LONGEST_ROW, blocks, opened, suffix_of
from tuneloop.data.read import Row
from tuneloop.data.sources import _delimited, _json, base

KINDS = {".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "CSV"}


class Source(base.Source):
    """A text file with rows. Encoding, delimiter and layout are found out from its beginning."""

    suffixes = tuple(KINDS)
    in_folders = True
    kind = "text"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.path = base.whole_file(name, root, shown)

    def rows(self) -> Iterator[Row]:
        with opened(self.path, self.shown) as file:
            text = Text(blocks(file, self.shown, self.notes), self.shown, self.notes)
            yield from base.some(self._rows(text), self.shown)

    def _rows(self, text: Text) -> Iterator[Row]:
        self.kind = kind_of(text, suffix_of(self.path))
        if self.kind == "JSONL":
            return _json.rows_of_lines(text, self.shown)
        if self.kind == "JSON":
            return _json.rows_of_list(text, self.shown, self.notes)
        delimiter = _delimited.delimiter_of(text)
        self.kind = "TSV" if delimiter == "\t" else "CSV"
        return _delimited.rows(text, delimiter, self.shown, self.notes)


def kind_of(text: Text, suffix: str) -> str:
    """CSV, JSON or JSONL: by content where that is plain, for suffixes mislead; else by suffix."""
    if re.match(r"\s*\[\s*[{\]]", text.head):
        return "JSON"
    if not text.head.lstrip().startswith("{"):
        return KINDS.get(suffix, "CSV")
    while "\n" not in text.head.strip() and len(text.head) <= LONGEST_ROW and text.grow():
        pass
    first, *rest = text.head.strip().split("\n", 1)
    try:
        in_data = isinstance(_json.parsed(first).get("data"), list)
        return "JSON" if in_data and not rest else "JSONL"
    except ValueError:          # one object over several lines, or broken: its reader will say
        return KINDS.get(suffix, "JSON")
