"""The same few rows in every layout that is read, and short ways to read them and to see what is refused."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneloop.data.read import Row, Table, open_source, read_table
from tuneloop.errors import UserError

ROWS: list[dict[str, Any]] = [{"text": f"Wörter, {i} “quoted”\nand more", "label": "yes" if i % 3 else "no"}
                              for i in range(40)]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"about": [1, {"x": []}], "data": rows}, indent=1).encode()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue().to_pybytes()


def as_arrow(rows: list[dict[str, Any]], new: Any = pa.ipc.new_file, compression: str | None = None) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=16)
    return sink.getvalue().to_pybytes()


def as_excel(rows: list[dict[str, Any]]) -> bytes:
    book = openpyxl.Workbook()
    for record in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(record)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}

FORMATS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.jsonl": as_jsonl, "rows.json": as_json, "rows.csv": as_csv, "rows.tsv": lambda rows: as_csv(rows, "\t"),
    "rows.parquet": as_parquet, "rows.arrow": as_arrow, "rows.arrows": lambda rows: as_arrow(rows, pa.ipc.new_stream),
    "rows.feather": lambda rows: as_arrow(rows, compression="lz4"), "rows.xlsx": as_excel,
    **{f"rows.jsonl.{suffix}": lambda rows, pack=pack: pack(as_jsonl(rows)) for suffix, pack in PACK.items()},
    "latin.csv": lambda rows: as_csv(rows).replace("“quoted”".encode(), b"quoted").decode().encode("cp1252"),
    "wide.csv": lambda rows: as_csv(rows).decode().encode("utf-16"),
}


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def table(folder: Path, name: str, data: bytes | str | None = None) -> Table:
    """What the source `name` holds, after `data` was written there."""
    if data is not None:
        write(folder, name, data)
    return read_table(name, folder)


def values(rows: list[Row]) -> list[dict[str, Any]]:
    return [row.values for row in rows]


def refused(folder: Path, name: str, data: bytes | str | None = None) -> str:
    """What is said when the source is opened and read to its end."""
    return until_refused(folder, name, data)[1]


def until_refused(folder: Path, name: str, data: bytes | str | None = None) -> tuple[list[Row], str]:
    """The rows that come before the source is refused, and what is said then."""
    if data is not None:
        write(folder, name, data)
    rows: list[Row] = []
    with pytest.raises(UserError) as caught:
        rows.extend(open_source(name, folder).rows())
    return rows, caught.value.text
