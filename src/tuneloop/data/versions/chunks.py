"""Rows on disk: neighbouring rows together in an Arrow file that is named by what it holds.

Where one file ends and the next begins is decided by the rows themselves, so that versions that share most rows share
most files: a changed row changes one file. (Content-defined chunking, as in Muthitacharoen et al. 2001, a low-bandwidth
network file system.)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.data.versions.rows import HASH_BYTES, VersionRow
from tuneloop.errors import UserError
from tuneloop.types import Origin

MEAN_ROWS = 2_048               # between two borders
MOST_ROWS = 4 * MEAN_ROWS
MOST_BYTES = 2**26
SUFFIX = ".arrow"


@dataclass(frozen=True)
class Chunk:
    """A file of rows: the sha256 of what it holds, which is its name, and the number of its rows."""

    sha256: str
    rows: int

    def path(self, folder: Path) -> Path:
        return folder / self.sha256[:2] / f"{self.sha256}{SUFFIX}"


def cut(rows: Iterable[VersionRow]) -> Iterator[list[tuple[VersionRow, bytes]]]:
    """Neighbouring rows with the text of their values."""
    held: list[tuple[VersionRow, bytes]] = []
    size = 0
    for row in rows:
        text = _written(row.values)
        held.append((row, text))
        size += len(text)
        if int.from_bytes(row.hash[:4]) % MEAN_ROWS == 0 or len(held) == MOST_ROWS or size > MOST_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def write(folder: Path, held: Sequence[tuple[VersionRow, bytes]]) -> Chunk:
    """Keep rows that `cut` gave, unless they are there. The file appears whole or not at all."""
    import pyarrow as pa

    rows = [row for row, _ in held]
    chunk = Chunk(_digest(held), len(rows))
    path = chunk.path(folder)
    if path.exists():
        return chunk
    table = pa.table({
        "hash": pa.array([row.hash for row in rows], pa.binary(HASH_BYTES)),
        "values": pa.array([text for _, text in held], pa.large_binary()),
        "file": pa.array([row.origin.file for row in rows]).dictionary_encode(),
        "line": pa.array([row.origin.line for row in rows], pa.int64()),
        "made_by": pa.array([row.made_by for row in rows]).dictionary_encode(),
    })
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    write_bytes(path, file.getbuffer())
    return chunk


def read(folder: Path, chunk: Chunk) -> list[VersionRow]:
    """The rows in their order. Raises UserError where the file is missing or broken."""
    columns = _columns(folder, chunk, ["values", "file", "line", "made_by", "hash"])
    return [_row(text, Origin(file, line, row.hex()[:16]), made_by)
            for text, file, line, made_by, row in zip(*columns, strict=True)]


def read_places(folder: Path, chunk: Chunk) -> list[tuple[bytes, tuple[str, int]]]:
    """The hash of every row, and the file and line that it came from."""
    hashes, files, lines = _columns(folder, chunk, ["hash", "file", "line"])
    return list(zip(hashes, zip(files, lines, strict=True), strict=True))


def read_hashes(folder: Path, chunk: Chunk) -> list[bytes]:
    """The hashes of the rows alone."""
    return _columns(folder, chunk, ["hash"])[0]


def flaw(folder: Path, chunk: Chunk) -> str:
    """What is wrong with a file; nothing where it holds what its name says."""
    try:
        rows, hashes = read(folder, chunk), read_hashes(folder, chunk)
    except UserError as error:
        return error.found
    if _digest([(row, _written(row.values)) for row in rows]) != chunk.sha256 or [r.hash for r in rows] != hashes:
        return f"{chunk.path(folder)} does not hold what its name says"
    return ""


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """A new file, whole or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _columns(folder: Path, chunk: Chunk, names: Sequence[str]) -> list[list[Any]]:
    import pyarrow as pa

    path = chunk.path(folder)
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        return [table[name].to_pylist() for name in names]
    except FileNotFoundError:
        raise UserError(f"{path} is missing.", fix="add the rows again; `tuneloop data verify` looks at all") from None
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path} is broken: {error}.",
                        fix="delete it and add the rows again; `tuneloop data verify` looks at all") from error


def _row(text: bytes, origin: Origin, made_by: str) -> VersionRow:
    return VersionRow(json.loads(text.decode("utf-8", "surrogatepass")), origin, made_by)


def _written(values: dict[str, Any]) -> bytes:
    """JSON, the names in the order of the file. Halves of surrogate pairs are kept as they are."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _digest(held: Iterable[tuple[VersionRow, bytes]]) -> str:
    digest = hashlib.sha256()
    for row, text in held:
        place = json.dumps([row.origin.file, row.origin.line, row.made_by]).encode()
        digest.update(b"%d %d " % (len(text), len(place)) + text + place)
    return digest.hexdigest()
