"""`tuneloop convert`: samples as rows of any format that can hold them, and into a file that is there whole or not."""

from __future__ import annotations

import csv
import difflib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.data.formats.holding import CannotHoldError
from tuneloop.data.formats.writers import PROMPTS, WRITERS, as_messages
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin, Sample

FORMATS = tuple(WRITERS)
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MOST_FLAWS = 10_000         # rows that cannot be held, before the rest is not looked at
BATCH_ROWS = 10_000


def convert(samples: Iterable[Sample], to: str, losses: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the format `to`, in order. What it cannot hold is left out and counted in `losses`, if that is given.

    Without `losses`, and for rows of which nothing would be left, raises UserError after the last row, with all their
    lines and the formats that can hold them.
    """
    if to not in WRITERS:
        near = difflib.get_close_matches(to, FORMATS, n=1)
        raise UserError(f"Unknown format '{to}'.", wanted=f"one of: {', '.join(FORMATS)}",
                        fix=f"did you mean '{near[0]}'?" if near else "")
    flaws: list[tuple[Origin, RowError]] = []
    known: dict[str, RowError] = {}
    for sample in samples:
        lost: set[str] = set()
        try:
            rows = list(WRITERS[to](sample, _refuse if losses is None else lost.add))
        except CannotHoldError as error:
            if error.what not in known:
                known[error.what] = _flaw(sample, to, error)
            flaws.append((sample.origin, known[error.what]))
            if len(flaws) == MOST_FLAWS:
                break
        else:
            if losses is not None:
                losses.update(lost)
            yield from rows
    raise_all(flaw_errors(flaws))


class _LossError(CannotHoldError):
    """What would be left out."""


def _refuse(what: str) -> NoReturn:
    raise _LossError(what)


def _flaw(sample: Sample, to: str, error: CannotHoldError) -> RowError:
    others = [name for name in FORMATS if name != to and _holds(sample, name)]
    instead = f"{', '.join(others)} can: choose one of them with --to, or" if others else "No format can:"
    lossy = " leave it out with --lossy, or" if isinstance(error, _LossError) else ""
    return RowError(f"{to} rows cannot hold {error.what}", f"{instead}{lossy}")


def _holds(sample: Sample, to: str) -> bool:
    try:
        for _ in WRITERS[to](sample, _refuse):
            pass
    except CannotHoldError:
        return False
    return True


# --- into a file -----------------------------------------------------------------------------------------------------


def convert_rows(samples: Iterable[Sample], out: Path, to: str, losses: Counter[str] | None = None) -> int:
    """Write rows of the format `to` into `out`, as its suffix says, and return their number. Raises as `convert` does.

    The file appears when all rows are in it. Memory stays bounded: rows go through a file beside it.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out} has no suffix that says how to write it.", wanted=f"one of: {', '.join(SUFFIXES)}")
    if out.suffix.lower() == ".parquet" and to == "gemini":
        raise UserError("Gemini's rows are JSON of changing shape, which Parquet has no columns for.",
                        fix=f"write {out.with_suffix('.jsonl')}")
    parts: list[Path] = []
    try:
        lines, finished = (_part(out, parts) for _ in range(2))
        rows, shapes = _write_lines(convert(samples, to, losses), lines)
        if not rows:
            raise UserError(f"No row is left for {out}.", fix="look at what is left out")
        if len(shapes) > 1:
            lines, levelled = _part(out, parts), lines
            _write_lines(map(as_messages, _rows(levelled)), lines)
        match out.suffix.lower():
            case ".jsonl":
                finished = lines
            case ".json":
                _write_json(lines, finished)
            case ".csv":
                _write_csv(lines, finished, out)
            case _:
                _write_parquet(lines, finished, out)
        os.replace(finished, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.", fix="choose another place") from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return rows


def _write_lines(rows: Iterable[dict[str, Any]], lines: Path) -> tuple[int, set[type]]:
    """JSON Lines: how many, and the types of their prompts, which are texts or messages."""
    shapes: set[type] = set()
    count = 0
    with lines.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            count += 1
            shapes |= {type(row[column]) for column in PROMPTS if column in row}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count, shapes


def _part(out: Path, parts: list[Path]) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
    os.close(handle)
    parts.append(Path(name))
    return parts[-1]


def _rows(lines: Path) -> Iterator[dict[str, Any]]:
    with lines.open(encoding="utf-8", newline="\n") as file:
        yield from map(json.loads, file)


def _write_json(lines: Path, out: Path) -> None:
    with lines.open(encoding="utf-8", newline="\n") as file, out.open("w", encoding="utf-8", newline="\n") as whole:
        whole.write("[")
        for number, line in enumerate(file):
            whole.write(("," if number else "") + "\n" + line.rstrip("\n"))
        whole.write("\n]\n")


def _write_csv(lines: Path, out: Path, shown: Path) -> None:
    columns: dict[str, None] = {}
    for number, row in enumerate(_rows(lines), 1):
        columns |= dict.fromkeys(row)
        for column, value in row.items():
            if isinstance(value, list | dict) or (isinstance(value, str) and ("\r" in value or "\0" in value)):
                what = f'a list or an object in "{column}"' if isinstance(value, list | dict) else "carriage returns"
                raise UserError(f"Row {number} holds {what}, which CSV cannot hold.",
                                fix=f"write {shown.with_suffix('.jsonl')}")
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(columns))
        table.writeheader()
        table.writerows(_rows(lines))


def _write_parquet(lines: Path, out: Path, shown: Path) -> None:
    """In two passes: the first finds the columns that all rows together have."""
    import pyarrow
    from pyarrow import parquet

    def tables() -> Iterator[Any]:
        for rows in _batches(lines):
            yield pyarrow.Table.from_pylist(rows)

    try:
        schema = pyarrow.unify_schemas([table.schema for table in tables()], promote_options="permissive")
        with parquet.ParquetWriter(out, schema) as writer:
            for rows in _batches(lines):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    except pyarrow.ArrowException as error:
        raise UserError(f"Rows have different types in one column, which Parquet cannot hold ({error}).",
                        fix=f"write {shown.with_suffix('.jsonl')}") from error


def _batches(lines: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows with their tools as JSON text: functions have parameters of every shape."""
    rows = _rows(lines)
    while batch := [row | {"tools": json.dumps(row["tools"], ensure_ascii=False)} if isinstance(row.get("tools"), list)
                    else row for row in islice(rows, BATCH_ROWS)]:
        yield batch
