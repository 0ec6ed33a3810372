"""Arrow record batches to rows, with bounded memory whatever the batches are like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tuneloop.data.files import LONGEST_ROW, refuse_bomb
from tuneloop.data.read import Row
from tuneloop.data.sources._arrow_kinds import bytes_of, dense, is_plain, strange
from tuneloop.data.sources._plain import plain
from tuneloop.errors import UserError

ROWS_AT_ONCE = 1000
PANDAS_INDEX = "__index_level_"


def rows_of(batches: Iterable[Any], packed_bytes: int, shown: str, notes: list[str], first: int = 1) -> Iterator[Row]:
    """The rows of `batches`, numbered from `first`. `packed_bytes` is the size of the file that they come from."""
    number, total = first, 0
    for batch in batches:
        if number == first:
            _look_at(batch.schema, shown, notes)
        names = [name for name in batch.schema.names if not name.startswith(PANDAS_INDEX)]
        for columns, size in _pieces([batch.column(name) for name in names], shown, number):
            total += size
            refuse_bomb(total, packed_bytes, shown)
            for values in zip(*map(_values, columns), strict=True):
                yield Row(number, dict(zip(names, values, strict=True)))
                number += 1


def _look_at(schema: Any, shown: str, notes: list[str]) -> None:
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{shown}: two columns are called {', '.join(twice)}.", wanted="different names")
    for field in schema:
        if strange(field.type):
            raise UserError(f"{shown}: the column {field.name} is of the kind {field.type}, which is not read.",
                            wanted="texts, numbers, lists and objects", fix="convert it, for example to JSONL")
    if index := [name for name in names if name.startswith(PANDAS_INDEX)]:
        notes.append(f"the index that pandas wrote is left out: {', '.join(index)}")


def _pieces(columns: list[Any], shown: str, number: int) -> Iterator[tuple[list[Any], int]]:
    """Slices of a few rows that are small enough to become Python objects, and how many bytes each takes."""
    rows = len(columns[0]) if columns else 0
    for start in range(0, rows, ROWS_AT_ONCE):
        yield from _halves([column.slice(start, ROWS_AT_ONCE) for column in columns], shown, number + start)


def _halves(columns: list[Any], shown: str, number: int) -> Iterator[tuple[list[Any], int]]:
    size = sum(map(bytes_of, columns))
    rows = len(columns[0])
    if size <= LONGEST_ROW:
        yield columns, size
    elif rows == 1:
        raise UserError(f"{shown} row {number} holds {size:,} bytes.", wanted="rows short enough to train on",
                        fix=f"split or remove row {number}")
    else:
        half = rows // 2
        yield from _halves([column.slice(0, half) for column in columns], shown, number)
        yield from _halves([column.slice(half) for column in columns], shown, number + half)


def _values(column: Any) -> list[Any]:
    kind = dense(column.type)
    if kind != column.type:
        column = column.cast(kind, safe=False)
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    return values if is_plain(kind) else [plain(value) for value in values]
