"""Some rows of a source at random, without reading all of it where its kind allows that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import IO, Any, TypeVar

from tuneloop.data.decode import Text
from tuneloop.data.files import LONGEST_ROW, blocks, opened, packing_of, suffix_of
from tuneloop.data.read import Row
from tuneloop.data.sources import _delimited, _json, base, parquet, text
from tuneloop.errors import UserError

READ_WHOLE_BYTES = 64 * 2**20       # read in a second or two: nothing is gained by picking places in so little
FIRST_ROWS = 100_000                # are drawn from at least where only the beginning can be reached
FIRST_ROWS_PER_DRAWN = 10
MANY = 0.1                          # of the rows: so many are found faster by reading on than by seeking
MOST_PARTS = 20                     # files of a large folder or data set that are opened
GROUP_ROWS_PER_DRAWN = 4
TRIES = 20                          # places looked at for each row wanted, until there are enough different ones
BOM = b"\xef\xbb\xbf"

T = TypeVar("T")
Drawn = tuple[list[Row], str]


def sample_rows(source: base.Source, count: int, seed: int) -> Drawn:
    """`count` different rows in random order, fewer if there are not so many, and a sentence on how they were drawn.

    The same seed draws the same rows. Nothing tells the line of a row that was found by going to a random place in a
    large file: its `file` then says from which byte on the row begins, and its line counts from there.
    Raises UserError as the source does.
    """
    chance = random.Random(seed)
    if parts := source.parts():
        total = sum(part.size_bytes for part in parts)
        return _of_parts(parts, count, chance) if total > READ_WHOLE_BYTES else _of_all(source, count, chance)
    if isinstance(source, parquet.Source):
        return _of_row_groups(source, count, chance)
    if isinstance(source, text.Source):
        with opened(source.path, source.shown) as file:
            small = file.seek(0, 2) <= READ_WHOLE_BYTES
            packed = file.seek(0) or packing_of(file)
        if not packed:
            found = None if small else _at_random_places(source, count, chance)
            return found or _of_all(source, count, chance)
    return _of_the_first(source, count, chance)


def _of_all(source: base.Source, count: int, chance: random.Random) -> Drawn:
    rows, total = _reservoir(source.rows(), count, chance)
    return rows, f"drawn from all {total:,} rows"


def _of_the_first(source: base.Source, count: int, chance: random.Random) -> Drawn:
    most = max(FIRST_ROWS, FIRST_ROWS_PER_DRAWN * count)
    coming = source.rows()
    rows, total = _reservoir(islice(coming, most), count, chance)
    if next(coming, None) is None:
        return rows, f"drawn from all {total:,} rows"
    return rows, f"drawn from the first {total:,} rows, for this kind of source is read only from its beginning"


def _reservoir(rows: Iterable[T], count: int, chance: random.Random) -> tuple[list[T], int]:
    """Some rows in random order, each as likely as any other, and how many there were (Vitter 1985, algorithm R)."""
    kept: list[T] = []
    total = 0
    for total, row in enumerate(rows, 1):
        if len(kept) < count:
            kept.append(row)
        elif (place := chance.randrange(total)) < count:
            kept[place] = row
    chance.shuffle(kept)
    return kept, total


def _of_parts(parts: Sequence[base.Part], count: int, chance: random.Random) -> Drawn:
    """From files drawn by their size, from each as many rows as its size says."""
    by_luck = sorted(parts, key=lambda part: chance.random() ** (1 / max(part.size_bytes, 1)), reverse=True)
    chosen = by_luck[:MOST_PARTS]           # drawn without replacement, by weight (Efraimidis and Spirakis 2006)
    total = sum(part.size_bytes for part in chosen)
    rows: list[Row] = []
    notes: list[str] = []
    for part in chosen:
        source = part.open()
        drawn, note = sample_rows(source, ceil(count * part.size_bytes / total), chance.getrandbits(32))
        rows += [replace(row, file=row.file or source.shown) for row in drawn]
        notes.append(note)
    chance.shuffle(rows)
    how = f"{len(chosen)} of {len(parts)} files, by their size: " if len(parts) > 1 else ""
    return rows[:count], how + "; ".join(dict.fromkeys(notes))


def _of_row_groups(source: parquet.Source, count: int, chance: random.Random) -> Drawn:
    groups = list(enumerate(source.row_groups()))
    chance.shuffle(groups)
    chosen, rows_in = 0, 0
    while chosen < len(groups) and rows_in < max(FIRST_ROWS, GROUP_ROWS_PER_DRAWN * count):
        rows_in += groups[chosen][1]
        chosen += 1
    coming = (row for group, _ in groups[:chosen] for row in source.rows_of_group(group))
    rows, total = _reservoir(coming, count, chance)
    return rows, f"drawn from all {total:,} rows of {chosen} of {len(groups)} row groups"


# --- random places in a text -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    """A text whose rows are lines."""

    first: int                  # the byte on which the first row begins
    bytes_each: float           # on average, by the beginning of the file
    values: Callable[[str], dict[str, Any] | None]


def _at_random_places(source: text.Source, count: int, chance: random.Random) -> Drawn | None:
    """The rows that follow random places in the file. None where that does not do, and why shows on reading it all.

    A row is the likelier the longer the row before it is, which says nothing about the row itself.
    """
    with opened(source.path, source.shown) as file:
        found = _lines(source, file)
        size = file.seek(0, 2)
        if found is None or count > MANY * size / found.bytes_each:
            return None
        rows: dict[int, Row] = {}
        for _ in range(TRIES * count):
            if len(rows) == count:
                break
            start, line = _line_after(file, chance.randrange(found.first, size), found.first)
            try:
                values = found.values(line.decode())
            except UnicodeDecodeError:
                return None
            if values is None:
                return None
            rows[start] = Row(1, values, f"{source.shown} from byte {start:,}")
    return list(rows.values()), "drawn at random places of the file"


def _lines(source: text.Source, file: IO[bytes]) -> _Lines | None:
    """How to read single lines; None where the beginning shows that rows are no lines, or not in UTF-8."""
    notes: list[str] = []
    beginning = Text(islice(blocks(file, source.shown, []), 1), source.shown, notes)
    kind = text.kind_of(beginning, suffix_of(source.path))
    ends = beginning.head.count("\n")
    if notes or kind == "JSON" or not ends:
        return None
    file.seek(0)
    first = len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(first)
    bytes_each = len(beginning.head.encode()) / ends
    if kind == "JSONL":
        return _Lines(first, bytes_each, _object)
    reader = _fields_reader(beginning, source.shown)
    while not file.readline().strip():      # up to the header
        pass
    return None if reader is None else _Lines(file.tell(), bytes_each, reader)


def _line_after(file: IO[bytes], place: int, first: int) -> tuple[int, bytes]:
    """The next line that begins behind `place` and is not blank, and where; after the last one comes the first."""
    file.seek(place)
    file.readline(LONGEST_ROW)
    while True:
        start = file.tell()
        line = file.readline(LONGEST_ROW)
        if not line:
            file.seek(first)
        elif line.strip():
            return start, line


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = _json.parsed(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _fields_reader(beginning: Text, shown: str) -> Callable[[str], dict[str, Any] | None] | None:
    delimiter = _delimited.delimiter_of(beginning)
    whole_lines = beginning.head.rpartition("\n")[0].split("\n")
    try:
        (_, header), *records = _delimited.records(whole_lines, delimiter, shown)
    except (UserError, ValueError):
        return None
    if any("\n" in field for _, fields in records for field in fields):
        return None
    columns = _delimited.columns_of(header, shown)

    def values(line: str) -> dict[str, Any] | None:
        try:
            found = list(_delimited.records([line.rstrip("\r\n")], delimiter, shown))
        except UserError:
            return None
        fields = found[0][1] if found else []
        return dict(zip(columns, fields, strict=True)) if len(fields) == len(columns) else None

    return values
