"""Which rows a run has read and what for, kept in its folder, so that it can still be told years later."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from tuneloop.data.versions.chunks import write_bytes
from tuneloop.errors import UserError
from tuneloop.types import Origin

FILE = ("data", "rows.arrow")       # in the run folder
UNUSED = "unused"
"""The part of rows that were read and left out: duplicates, leaks, rows that are too long."""


def write_seen(folder: Path, parts: Mapping[str, Iterable[Origin]]) -> None:
    """Note for every row of a run (by part, or UNUSED) its place and the hash of what it holds. Raises UserError."""
    import pyarrow as pa

    rows = [(part, origin) for part, origins in parts.items() for origin in origins]
    table = pa.table({
        "part": pa.array([part for part, _ in rows], pa.string()).dictionary_encode(),
        "file": pa.array([origin.file for _, origin in rows], pa.string()).dictionary_encode(),
        "line": pa.array([origin.line for _, origin in rows], pa.int64()),
        "row": pa.array([bytes.fromhex(origin.row) for _, origin in rows], pa.binary()),
    })
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    path = folder.joinpath(*FILE)
    try:
        write_bytes(path, file.getbuffer())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.", fix="free disk space") from error


def read_seen(folder: Path) -> list[tuple[str, Origin]] | None:
    """(part, origin) of every row that a run has read; None for a run that did not note it."""
    import pyarrow as pa

    path = folder.joinpath(*FILE)
    if not path.is_file():
        return None
    try:
        with pa.OSFile(str(path)) as file:
            columns = [column.to_pylist() for column in pa.ipc.open_file(file).read_all().columns]
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} is broken: {error}.") from error
    return [(part, Origin(name, line, row.hex())) for part, name, line, row in zip(*columns, strict=True)]
