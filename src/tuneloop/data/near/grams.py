"""Runs of words as 64-bit hashes, the same on every machine: how a text is found inside another."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tuneloop.data.near.shingles import Words, mixed, random_words
from tuneloop.data.near.texts import Numbers

_NO_WORD = re.compile(r"[\W_]+")


def words_of(text: str) -> str:
    """Only the words, in lower case, with one space between two: what is left when nobody minds how it is set."""
    return _NO_WORD.sub(" ", text.casefold()).strip()


class Runs:
    """The words of n texts. The hash of a run is that of its characters alone, wherever it stands.

    It is a polynomial in the characters modulo 2^64 (Rabin and Karp 1987): the difference of two prefixes, divided by
    the power of the base at which the run begins.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        joined = "\n".join(map(words_of, texts)) + "\n"
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(np.uint64)
        powers, inverse = (np.cumprod(np.full(len(codes), base, np.uint64)) for base in (_BASE, _INVERSE))
        self._inverse = inverse
        self._prefixes = np.append(np.uint64(0), np.cumsum(mixed(codes) * powers))
        apart = (codes == ord(" ")) | (codes == ord("\n"))
        before = np.append(True, apart[:-1])
        self._starts = np.flatnonzero(~apart & before)
        self._ends = np.flatnonzero(apart & ~before)
        lines = np.cumsum(codes == ord("\n"))
        self.text_of = lines[self._starts]              # (w,) the number of each word's text
        self.lengths = np.bincount(self.text_of, minlength=len(texts))      # (n,) in words

    def of(self, length: int) -> tuple[Words, Numbers]:
        """(r,) The hash of every run of `length` words within a text, and the number of its text."""
        first = np.arange(len(self._starts) - length + 1)
        first = first[self.text_of[first] == self.text_of[first + length - 1]]
        return self._hashed(first, first + length - 1), self.text_of[first]

    def whole(self) -> tuple[Words, Numbers]:
        """(r,) The hash of every text with a word in it, and its number."""
        numbers = np.flatnonzero(self.lengths)
        last = np.cumsum(self.lengths)[numbers] - 1
        return self._hashed(last - self.lengths[numbers] + 1, last), numbers

    def _hashed(self, first: Numbers, last: Numbers) -> Words:
        start, end = self._starts[first], self._ends[last]
        return mixed((self._prefixes[end] - self._prefixes[start]) * self._inverse[start])


_BASE = np.uint64(int(random_words(1, seed=13)[0]))
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
