"""What makes two texts alike: the share of their shingles, all runs of five characters, that both have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 5                   # characters of a shingle
LONGEST = 20_000            # characters of a text that are compared; what follows is not
Words = NDArray[np.uint64]


def plain(text: str) -> str:
    """The text without what people do not look at: case, and how much white space there is."""
    return " ".join(text[:2 * LONGEST].casefold().split())[:LONGEST]


def shingles(text: str) -> frozenset[str]:
    """Every run of five characters; of a shorter text the text itself."""
    text = text.ljust(WIDTH, "\0")
    return frozenset([text[i:i + WIDTH] for i in range(len(text) - WIDTH + 1)])


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """The size of what both hold over the size of what either holds."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def hashed(texts: Sequence[str]) -> tuple[Words, Words]:
    """64-bit hashes of the shingles of n texts, one text after the other, and (n + 1,) where each text's begin."""
    padded = [text.ljust(WIDTH, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(np.uint64)
    sums = sum(codes[i:len(codes) - WIDTH + 1 + i] * _FACTORS[i] for i in range(WIDTH))
    ends = np.cumsum([len(text) for text in padded])
    inside = np.ones(len(codes) - WIDTH + 1, bool)
    inside[(ends[:-1, None] - np.arange(1, WIDTH)).ravel()] = False     # these run from one text into the next
    starts = np.concatenate([[0], ends - (WIDTH - 1) * np.arange(1, len(ends) + 1)])
    return mixed(np.asarray(sums)[inside]), starts.astype(np.uint64)


def mixed(words: Words) -> Words:
    """Every bit of the result depends on every bit of the word: the finaliser of SplitMix64 (Steele et al. 2014)."""
    words = (words ^ (words >> _THIRTY)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def random_words(count: int, seed: int) -> Any:
    """`count` odd 64-bit numbers, the same everywhere."""
    return mixed(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)) | _ONE


_THIRTY, _ONE = np.uint64(30), np.uint64(1)
_FACTORS = random_words(WIDTH, seed=0)
