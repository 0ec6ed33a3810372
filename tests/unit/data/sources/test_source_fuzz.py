"""Mutated files of every layout: each either reads or is refused in words, soon, and without filling memory."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files import FORMATS, ROWS, as_arrow, write

from tuneloop.data.read import open_source
from tuneloop.errors import UserError

resource = pytest.importorskip("resource")          # and signals that wake a program: not on Windows
SECONDS_EACH = 10
MEGABYTES_IN_ALL = 300
ODD = [b"\xff" * 8, b"[" * 500, b'"', b"\xed\xa0\x80", b"\\ud800", b"\r", b"1e999", b"9" * 5000]
CHAT = [{"messages": [{"role": "user", "content": f"Wörter {i}\n"}, {"role": "assistant", "content": "ja" * i}],
         "score": i / 3, "tags": ["a", None]} for i in range(20)]
FLAT = ROWS[:20]


class HangError(BaseException):
    """No Exception, so that nothing can take it for a trouble of the file."""


@contextmanager
def soon() -> Iterator[None]:
    """Raise HangError after a while."""
    def alarm(signum: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _database(folder: Path) -> bytes:
    path = folder / "made.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (text, label)")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", [tuple(row.values()) for row in FLAT])
    connection.close()
    return path.read_bytes()


def originals(folder: Path) -> dict[str, bytes]:
    """Sound files by the name of the file that is to be mutated."""
    files = {f"flat/{name}": make(FLAT) for name, make in FORMATS.items()}
    files |= {f"chat/{name}": FORMATS[name](CHAT) for name in FORMATS if not name.endswith(("csv", "tsv", "xlsx"))}
    files["one line.json"] = json.dumps(FLAT).encode()
    files["packed.arrow"] = as_arrow(CHAT * 20, compression="zstd")
    files["shop.db"] = _database(folder)
    files["kept/data.arrow"] = as_arrow(FLAT, pa.ipc.new_stream)
    files["kept/state.json"] = b'{"_data_files": [{"filename": "data.arrow"}]}'
    for name, data in files.items():
        write(folder, name, data)
    return files


def source_of(name: str) -> str:
    if name.endswith(".db"):
        return f"sqlite:///{name}#SELECT * FROM rows"
    return "kept" if name.startswith("kept/") else name


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`data` with one to four faults: flipped bits, cuts, repeated parts, parts of other files, zeros, odd bytes."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice([1, 4, 16, 200, 5000]))
        match chance.randrange(7):
            case 0:
                flipped = bytearray(data)
                for _ in range(chance.randint(1, 8)):
                    if flipped:
                        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
                data = bytes(flipped)
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:end] + data[at:end] * chance.choice([1, 2, 50]) + data[end:]
            case 4:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                data = data[:at] + other[start:start + chance.choice([8, 300, 10**6])] + data[end:]
            case 5:
                data = data[:at] + bytes(end - at) + data[end:]
            case _:
                data = data[:at] + chance.choice(ODD) + data[at:]
    return data


def reads_or_is_refused(folder: Path, name: str) -> bool:
    """Whether it reads; anything but rows that JSON can hold and a UserError fails the test."""
    with soon():
        try:
            for row in open_source(source_of(name), folder).rows():
                json.dumps(row.values)
                assert row.line >= 1
        except UserError:
            return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def sound(folder: Path) -> dict[str, bytes]:
    return originals(folder)


def fuzz(folder: Path, sound: dict[str, bytes], name: str, seed: int) -> bool:
    write(folder, name, mutated(sound[name], list(sound.values()), random.Random(f"{name} {seed}")))
    try:
        return reads_or_is_refused(folder, name)
    finally:
        write(folder, name, sound[name])


def test_sound_files_read(folder: Path, sound: dict[str, bytes]) -> None:
    assert [name for name in sound if not reads_or_is_refused(folder, name)] == []


@given(st.data(), st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_some_mutated_files(folder: Path, sound: dict[str, bytes], data: st.DataObject, seed: int) -> None:
    fuzz(folder, sound, data.draw(st.sampled_from(sorted(sound))), seed)


@given(st.binary(max_size=300), st.sampled_from(["x.csv", "x.jsonl", "x.json", "x.parquet", "x.xlsx", "x.gz"]),
       st.sampled_from([b"", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff", b"PK\x03\x04", b"\x1f\x8b\x08", b"{", b"[{"]))
@settings(max_examples=100, deadline=None)
def test_files_of_any_bytes(folder: Path, data: bytes, name: str, start: bytes) -> None:
    write(folder, name, start + data)
    reads_or_is_refused(folder, name)


@pytest.mark.slow
def test_ten_thousand_mutated_files(folder: Path, sound: dict[str, bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = sorted(sound)
    read = sum(fuzz(folder, sound, names[seed % len(names)], seed) for seed in range(10_000))
    assert 500 < read < 9500                # mutations are neither all harmless nor all fatal
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert most / (2**20 if sys.platform == "darwin" else 2**10) < MEGABYTES_IN_ALL
