"""Many texts, in memory while they are few."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError

Numbers = NDArray[np.signedinteger[Any]]
"""Which texts, counted from 0; of 32 bits where there may be millions."""
MEMORY_BYTES = 64 << 20
BATCH_TEXTS, BATCH_CHARACTERS = 2_000, 1_000_000


class Indexed(Protocol):
    """Texts by number: a list of them, or anything that reads them from somewhere."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> str: ...


class Texts:
    """Texts that are added one after the other and then read in any order.

    Beyond `memory_bytes` they lie in a temporary file, which goes away when they are closed.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes
        self._file = SpooledTemporaryFile(memory_bytes)     # noqa: SIM115 (`close` does)
        self._ends = array("q", [0])

    def extend(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        with writing():
            self._file.seek(self._ends[-1])
            self._file.write(b"".join(encoded))
        for text in encoded:
            self._ends.append(self._ends[-1] + len(text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int, /) -> str:
        start = self._ends[index]
        self._file.seek(start)
        return self._file.read(self._ends[index + 1] - start).decode("utf-8", "surrogatepass")

    @property
    def disk_bytes(self) -> int:
        """The size of the temporary file."""
        return self._ends[-1] if self._ends[-1] > self.memory_bytes else 0

    def close(self) -> None:
        self._file.close()


class Some:
    """Chosen ones of other texts, each as `look` shows it."""

    def __init__(self, texts: Indexed, numbers: Numbers, look: Callable[[str], str] = str) -> None:
        self.texts, self.numbers, self.look = texts, numbers, look

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> str:
        return self.look(self.texts[int(self.numbers[index])])


def batches(texts: Indexed) -> Iterator[list[str]]:
    """The texts in order, so many at a time as arrays about them are small."""
    batch: list[str] = []
    characters = 0
    for number in range(len(texts)):
        text = texts[number]
        if batch and (len(batch) == BATCH_TEXTS or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


@contextmanager
def writing() -> Iterator[None]:
    """A full disk as a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Temporary files cannot be written to {gettempdir()}: {error.strerror}.",
                        fix="make room there, or name a folder on another disk by the variable TMPDIR") from error
