"""Files to raw rows, each with its line in the file as an editor shows it.

CSV and TSV with any of four delimiters, JSON, JSONL, each also compressed with gzip. Line ends inside quoted fields
become `\\n`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.data.decode import text_of
from tuneloop.data.flaws import and_more
from tuneloop.errors import UserError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
SNIFFED_RECORDS = 50
LONGEST_FIELD = 2**31 - 1           # what a C long holds everywhere; the csv module's own limit is 131,072 characters
SHOWN_BROKEN_LINES = 10
ONE_OBJECT_PER_ROW = 'one object per row, such as {"prompt": "…", "completion": "…"}'


@dataclass(frozen=True, slots=True)
class Row:
    """A raw row and the line of the file on which it begins, from 1."""

    line: int
    values: dict[str, Any]

    @property
    def digest(self) -> str:
        """A short hash of the values."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Table:
    """The raw rows of a file. `notes` says what is unusual about how it was read."""

    file: str
    kind: str                   # CSV | TSV | JSON | JSONL
    rows: list[Row]
    columns: list[str]          # in order of first appearance
    notes: list[str]


def read(path: Path, shown: str) -> Table:
    """Read a data file; `shown` is how the user named it. Raises UserError for whatever cannot be trusted."""
    text, notes = text_of(path, shown)
    kind = _kind(text, path)
    if kind == "CSV":
        return _read_csv(text, shown, notes)
    rows = _json_rows(text, shown) if kind == "JSON" else _jsonl_rows(text, shown)
    if not rows:
        raise UserError(f"{shown} holds no rows.", wanted=ONE_OBJECT_PER_ROW)
    if kind == "JSON" and len(rows) > 1 and rows[0].line == rows[-1].line:
        rows = [Row(number, row.values) for number, row in enumerate(rows, 1)]
        notes = [*notes, "the whole list is on one line: what is called a line below is the number of a row"]
    return Table(shown, kind, rows, list(dict.fromkeys(c for row in rows for c in row.values)), notes)


def _kind(text: str, path: Path) -> str:
    """By content where that is plain, for suffixes mislead; else by suffix."""
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    suffix = suffix.lower()
    if re.match(r"\s*\[\s*[{\]]", text):
        return "JSON"
    first, *rest = text.strip().split("\n", 1)
    if first.startswith("{"):
        try:
            in_data = isinstance(json.loads(first).get("data"), list)
            return "JSON" if in_data and not rest else "JSONL"
        except (ValueError, RecursionError):
            pass        # one object over several lines, or broken: its reader will say
    known = {".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "CSV"}
    return known.get(suffix, "JSON" if first.startswith("{") else "CSV")


# --- CSV -------------------------------------------------------------------------------------------------------------


def _read_csv(text: str, shown: str, notes: list[str]) -> Table:
    with _long_fields():
        delimiter = _delimiter(text)
        records = list(_records(text, delimiter, shown))
    if len(records) < 2:
        raise UserError(f"{shown} has a header and no rows.", wanted="at least 10 rows below the header")
    columns = _columns(records[0][1], shown)
    ragged = [(line, fields) for line, fields in records[1:] if len(fields) != len(columns)]
    if ragged:
        line, fields = ragged[0]
        raise UserError(
            f"{shown} line {line}: {len(fields)} fields, but the header has {len(columns)}"
            f"{and_more([r[0] for r in ragged])}.",
            wanted=f"{len(columns)} fields separated by {DELIMITERS[delimiter]}: {', '.join(columns)}",
            fix=f'put quotes around a text that holds a {DELIMITERS[delimiter]}, as in "yes, please"')
    if delimiter in ";|":
        notes = [*notes, f"fields are separated by {DELIMITERS[delimiter]}"]
    rows = [Row(line, dict(zip(columns, fields, strict=True))) for line, fields in records[1:]]
    taken = [column for column in columns if any(row.values[column].strip() == column for row in rows)]
    if taken:
        notes = [*notes, f"the first line was read as names of columns, and {', '.join(map(repr, taken))} also occurs "
                 "below it: if the file has no header, put one above"]
    return Table(shown, "TSV" if delimiter == "\t" else "CSV", rows, columns, notes)


def _records(text: str, delimiter: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of every record that is not blank."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            if any(fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{shown} line {line}: a quoted field does not end as it should ({error}).",
                        wanted='a text with quotes, commas or line ends in quotes, its own quotes doubled: '
                               '"He said ""yes"""', fix=f"mend the quotes of line {line}") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _delimiter(text: str) -> str:
    """The one that cuts the first records most evenly, then into most columns, then the most usual one."""
    def fitness(delimiter: str) -> tuple[float, int]:
        try:
            widths = [len(fields) for _, fields in islice(_records(text, delimiter, ""), SNIFFED_RECORDS)]
        except UserError:
            return 0.0, 0
        return (widths.count(widths[0]) / len(widths), widths[0]) if max(widths[:1], default=1) > 1 else (0.0, 0)
    return max(DELIMITERS, key=fitness)


def _columns(header: list[str], shown: str) -> list[str]:
    columns = [name.strip() for name in header]
    nameless = [str(i) for i, name in enumerate(columns, 1) if not name]
    if nameless:
        raise UserError(f"{shown} line 1: column {', '.join(nameless)} of the header has no name.",
                        wanted="a name for each column",
                        fix="name it; an index that pandas wrote goes away with to_csv(…, index=False)")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UserError(f"{shown} line 1: two columns are called {', '.join(twice)}.", wanted="different names")
    return columns


# --- JSON ------------------------------------------------------------------------------------------------------------


def _json_rows(text: str, shown: str) -> list[Row]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown} {_place(error)}: not valid JSON ({_reason(error)}).", fix="mend it there") from error
    if isinstance(whole, dict) and not isinstance(whole.get("data"), list):
        raise UserError(f"{shown} is one JSON object with the keys {', '.join(list(whole)[:10])}.",
                        wanted='a list of objects, or {"data": [ … ]}')
    if not isinstance(whole, dict | list):
        raise UserError(f"{shown} is a single JSON value.", wanted="a list of objects")
    starts = [match.start() for match in re.finditer("\n", text)]
    rows = [(bisect_right(starts, at) + 1, value) for at, value in _elements(text, isinstance(whole, dict))]
    return _objects(rows, shown)


def _elements(text: str, in_data: bool) -> Iterator[tuple[int, Any]]:
    """(offset, value) of the elements of a valid JSON list, or of the list under the last key "data"."""
    at = _next(text, 0)
    if in_data:
        at = _data_list(text, at)
    at = _next(text, at + 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield at, value
        at = _next(text, end)
        if text[at] == ",":
            at = _next(text, at + 1)


def _data_list(text: str, at: int) -> int:
    """The offset of the `[` of the value under "data", in a valid JSON object that begins at `at`."""
    found = at
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, _next(text, at + 1))
        value_at = _next(text, _next(text, end) + 1)
        if key == "data":
            found = value_at
        at = _next(text, _DECODER.raw_decode(text, value_at)[1])
    return found


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def _next(text: str, at: int) -> int:
    """The offset of the next character that is no white space."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _jsonl_rows(text: str, shown: str) -> list[Row]:
    values, broken = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            broken.append(f"{shown} line {number}: not valid JSON ({_reason(error)}{column}).")
    if broken:
        further = len(broken) - SHOWN_BROKEN_LINES
        rest = [f"… and {further} further lines."] if further > 0 else []
        raise UserError("\n".join(broken[:SHOWN_BROKEN_LINES] + rest), wanted="one JSON object on each line",
                        fix="mend these lines; a JSON list belongs into a .json file")
    return _objects(values, shown)


def _objects(values: list[tuple[int, Any]], shown: str) -> list[Row]:
    others = [(line, value) for line, value in values if not isinstance(value, dict)]
    if others:
        line, value = others[0]
        raise UserError(f"{shown} line {line}: {json.dumps(value)[:40]} is no JSON object"
                        f"{and_more([o[0] for o in others])}.", wanted=ONE_OBJECT_PER_ROW)
    return [Row(line, value) for line, value in values]


def _place(error: Exception) -> str:
    return f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "line 1"


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
