"""Lines of a text that comes in pieces, and what is wrong with which of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from tuneloop.data.files import LONGEST_ROW
from tuneloop.errors import UserError


def lines(pieces: Iterable[str], shown: str) -> Iterator[str]:
    """Every line without its end; after a last line end an empty one. Raises UserError for a line that is too long."""
    rest: list[str] = []
    count = waiting = 0
    for piece in pieces:
        first, *others = piece.split("\n")
        rest.append(first)
        waiting += len(first)
        if waiting > LONGEST_ROW:
            raise too_long(shown, count + 1)
        if others:
            yield "".join(rest)
            yield from others[:-1]
            count += len(others)
            rest, waiting = [others[-1]], len(others[-1])
    yield "".join(rest)


def too_long(shown: str, line: int) -> UserError:
    """The error for a row that no one can have meant."""
    return UserError(f"{shown} line {line}: longer than {LONGEST_ROW:,} characters.",
                     wanted="one row on each line, short enough to train on", fix=f"split or remove line {line}")


class Odd:
    """Lines that have one fault, and of the first of them a word on it. Eight bytes each, for it may be all of them."""

    def __init__(self) -> None:
        self.lines, self.first = array("q"), ""

    def add(self, line: int, what: str) -> None:
        self.first = self.first or what
        self.lines.append(line)
