"""Files on this machine: found, opened and unpacked, with every trouble in words.

What is compressed is unpacked in blocks while it is read, so that a decompression bomb is noticed before it fills
memory or disk.
"""

from __future__ import annotations

import bz2
import difflib
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tuneloop.errors import UserError

BLOCK_BYTES = 2**20
LONGEST_ROW = 64 * 2**20        # characters: nobody trains on longer ones, and a file without line ends is no table
BOMB_TIMES, BOMB_BYTES = 200, 10**9
"""More than this many times the compressed size, and more than this many bytes in all: no honest data are like that."""
WANTED = "a file of rows: .csv .tsv .json .jsonl, also compressed; .parquet .arrow .xlsx; or a folder of such files"
PACKED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


def located(name: str, root: Path) -> tuple[Path, str]:
    """The path that `name` means, and what stands behind its last `#`: a sheet, a split.

    A file whose own name holds a `#` goes before.
    """
    whole = _path(name, root)
    if "#" not in name or os.path.exists(whole):
        return whole, ""
    file, _, part = name.rpartition("#")
    return _path(file, root), part.strip()


def folder_of(name: str, root: Path) -> Path | None:
    """The folder that must hold the images and sounds that rows name: the file's own; None for what is no file."""
    path, _ = located(name, root)
    return path.parent if path.is_file() else path if path.is_dir() else None


def _path(name: str, root: Path) -> Path:
    try:
        return root / Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: {error}.") from None      # ~somebody who has no home here


def suffix_of(path: Path) -> str:
    """The suffix that says what is in a file, in lower case; `.csv` of `rows.CSV.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


@contextmanager
def opened(path: Path, shown: str) -> Iterator[IO[bytes]]:
    """The file, if it is one. Raises UserError where it is missing, no plain file, or cannot be opened."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _no_plain_file(mode, shown)
        file = path.open("rb")
    except FileNotFoundError:
        raise _missing(path, shown) from None
    except ValueError as error:
        raise UserError(f"{shown!r} is no name of a file: {error}.") from None
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror or error}.") from error
    with file:
        yield file


def _no_plain_file(mode: int, shown: str) -> UserError:
    if stat.S_ISDIR(mode):
        return UserError(f"{shown} is a folder.", wanted=WANTED)
    if stat.S_ISFIFO(mode):
        return UserError(f"{shown} is a pipe, which can be read only once.", wanted=WANTED,
                         fix="pipe it into the command and call it -: zcat rows.gz | tuneloop check -")
    return UserError(f"{shown} is a device or a socket, not a file.", wanted=WANTED)


def _missing(path: Path, shown: str) -> UserError:
    if not path.parent.is_dir():
        return UserError(f"{shown} does not exist, nor does its folder.", wanted=WANTED,
                         fix="paths in a recipe count from the folder of the recipe")
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return UserError(f"{shown} does not exist.", wanted=WANTED,
                     fix=f"did you mean {' or '.join(near)}?" if near else "")


def blocks(file: IO[bytes], shown: str, notes: list[str]) -> Iterator[bytes]:
    """What is in an open file, unpacked, a block at a time. Raises UserError for damage and for a bomb."""
    packing = packing_of(file)
    if not packing and Path(shown).suffix.lower() in PACKED:
        notes.append("not compressed in spite of its name")
    stream = _UNPACK[packing](file)
    size, total = os.fstat(file.fileno()).st_size, 0
    try:
        while block := _next_block(stream, packing, shown):
            total += len(block)
            if packing:
                refuse_bomb(total, size, shown)
            yield block
    finally:
        if packing:
            stream.close()


def packing_of(file: IO[bytes]) -> str:
    """How a file is compressed, by its first bytes: gzip, bzip2, xz, zstd, or "" for not at all."""
    start = file.read(10)
    file.seek(0)
    if start.startswith(b"BZh"):        # might begin a text
        return "bzip2" if start[4:] in (b"1AY&SY", b"\x17rE8P\x90") else ""
    return next((packing for first, packing in _FIRST_BYTES.items() if start.startswith(first)), "")


def refuse_bomb(total_bytes: int, packed_bytes: int, shown: str) -> None:
    """Raise UserError when what has been unpacked so far is out of all proportion."""
    if total_bytes > max(BOMB_BYTES, BOMB_TIMES * packed_bytes):
        raise UserError(f"{shown} looks like a decompression bomb: its {packed_bytes:,} bytes unpack to more than "
                        f"{total_bytes / 1e9:.1f} GB, {total_bytes // max(packed_bytes, 1):,} times as many.",
                        fix="unpack it yourself if you trust it")


def _next_block(stream: Any, packing: str, shown: str) -> bytes:
    try:
        return bytes(stream.read(BLOCK_BYTES))
    except (EOFError, OSError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
        if not packing:
            raise UserError(f"{shown} cannot be read: {error}.") from error
        raise UserError(f"{shown} is a damaged or cut-off {packing} file: {error}.",
                        fix="copy or download it again") from error


def _zstd(file: IO[bytes]) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(file, "zstd")


_FIRST_BYTES = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    "": lambda file: file, "gzip": lambda file: gzip.GzipFile(fileobj=file), "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile,
    "zstd": _zstd,
}
