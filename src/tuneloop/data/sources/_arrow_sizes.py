"""How large the batches of an Arrow file are once unpacked, without unpacking them.

Every message begins with a flatbuffer that says where its buffers are; a packed buffer begins with its unpacked size.
Layout: https://arrow.apache.org/docs/format/Columnar.html and format/Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

CONTINUES = b"\xff\xff\xff\xff"
RECORD_BATCH, DICTIONARY_BATCH = 3, 2
LARGEST_METADATA = 2**24


def batch_sizes(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """(packed, unpacked) bytes of each batch from here on.

    Ends at the first thing that cannot be understood: whoever then reads the file says what is wrong with it.
    """
    try:
        while (start := file.read(8))[:4] == CONTINUES:
            length, = struct.unpack("<i", start[4:])
            if not 0 < length < LARGEST_METADATA:
                return
            yield _sizes(file, _Table(file.read(length)))
    except (struct.error, IndexError, OverflowError, OSError, ValueError):
        return


def _sizes(file: IO[bytes], message: _Table) -> tuple[int, int]:
    body, body_bytes = file.tell(), message.number(3, "<q")
    header, kind = message.table(2), message.number(1, "<B")
    batch = header.table(1) if kind == DICTIONARY_BATCH else header
    if body_bytes < 0:
        raise ValueError(body_bytes)
    total = 0
    if kind in (RECORD_BATCH, DICTIONARY_BATCH) and batch.has(3):
        for offset, length in batch.pairs(2):
            file.seek(body + offset)
            total += max(0, *struct.unpack("<q", file.read(8))) if length >= 8 else 0
    file.seek(body + body_bytes)
    return body_bytes, max(total, body_bytes)


class _Table:
    """A table of a flatbuffer; fields go by their number in the schema."""

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self.data = data
        self.at: int = self._read("<I", 0) if at is None else at

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def number(self, field: int, layout: str) -> int:
        place = self._place(field)
        return self._read(layout, place) if place else 0

    def table(self, field: int) -> _Table:
        return _Table(self.data, self._target(field))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of structs of two 64-bit numbers."""
        place = self._target(field)
        count = self._read("<I", place)
        return list(struct.iter_unpack("<qq", self.data[place + 4:place + 4 + 16 * count]))

    def _target(self, field: int) -> int:
        place = self._place(field)
        return place + self._read("<I", place)

    def _place(self, field: int) -> int:
        """Where a field's value is; 0 where the table does not have it."""
        fields = self.at - self._read("<i", self.at)
        if 4 + 2 * field >= self._read("<H", fields):
            return 0
        offset = self._read("<H", fields + 4 + 2 * field)
        return self.at + offset if offset else 0

    def _read(self, layout: str, at: int) -> int:
        value: int = struct.unpack_from(layout, self.data, at)[0]
        return value
