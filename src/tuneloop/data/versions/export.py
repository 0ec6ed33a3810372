"""The rows of a version as a file again."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.store import Store
from tuneloop.errors import UserError

Rows = Callable[[], Iterator[dict[str, Any]]]


def export(store: Store, version: Manifest, path: Path) -> None:
    """Write the rows as the suffix of `path` says; a file that exists is never replaced. Raises UserError."""
    write = WRITERS.get(path.suffix.lower())
    if write is None:
        raise UserError(f"{path} has no suffix that says how to write it.", wanted=f"one of: {', '.join(WRITERS)}")
    if path.exists():
        raise UserError(f"{path} exists already.", fix="choose another name, or remove it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(lambda: (row.values for row in store.rows(version)), partial)
        os.replace(partial, path)
    except UnicodeEncodeError as error:
        raise UserError(f"A text holds half of a surrogate pair, which {path.suffix} cannot: {error.reason}.",
                        fix="export to .jsonl, or normalise the rows first") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.", fix="choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_jsonl(rows: Rows, path: Path) -> None:
    with open(path, "wb") as file:
        file.writelines(_line(values) for values in rows())


def _line(values: dict[str, Any]) -> bytes:
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:      # half of a surrogate pair, which JSON can write and UTF-8 cannot
        return json.dumps(values).encode() + b"\n"


def _write_csv(rows: Rows, path: Path) -> None:
    columns = list(dict.fromkeys(column for values in rows() for column in values))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for values in rows():
            nested = next((column for column, value in values.items() if isinstance(value, list | dict)), None)
            if nested is not None:
                raise UserError(f'The column "{nested}" holds lists or objects, which a CSV file cannot.',
                                fix="export to .jsonl or .parquet")
            writer.writerow(values)


def _write_parquet(rows: Rows, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    everything = list(rows())
    columns = dict.fromkeys(column for values in everything for column in values)
    try:
        table = pa.table({column: [values.get(column) for values in everything] for column in columns})
        parquet.write_table(table, path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UserError(f"These rows have no columns of one type each, as Parquet needs: {error}.",
                        fix="export to .jsonl") from error


WRITERS: dict[str, Callable[[Rows, Path], None]] = {
    ".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
