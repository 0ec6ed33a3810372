"""Which texts may be alike, without comparing each with each: MinHash (Broder 1997) and bands of it.

A text's signature holds, for each of 128 orders of all shingles, which of its shingles comes first; two texts agree in
a place with the probability of their Jaccard index. Texts that agree in a whole band of places are candidates. Of the
signature only the bands' keys and one bit a place are kept (Li and König 2010, b-bit minwise hashing), which is enough
to drop most candidates that are not alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.near.shingles import hashed, random_words
from tuneloop.data.near.texts import Indexed, Numbers, batches, writing

PLACES = 128
SEED = 4
RECALL = 0.995              # of pairs that are exactly as alike as asked for; of those more alike it is higher
DEVIATIONS = 4              # standard deviations below what is expected of such pairs, before one is dropped
WINDOW = 16                 # neighbours in a band that a text is compared with at most
KEYS_BYTES = 4 << 20        # of each band in memory: a million texts


@dataclass(frozen=True)
class Candidates:
    """Pairs of texts by number, `step` apart in the order of their band.

    `crowded` says where so many share a band that not all of them are compared.
    """

    step: int                       # from 1 in every band
    left: Numbers                   # (p,)
    right: Numbers                  # (p,) greater than `left`
    crowded: NDArray[np.bool_]      # (p,)

    def where(self, chosen: NDArray[np.bool_]) -> Candidates:
        return Candidates(self.step, self.left[chosen], self.right[chosen], self.crowded[chosen])


def band_width(threshold: float) -> int:
    """Places of a band: as many as still find texts that are as alike as `threshold`."""
    return max((width for width in range(1, 33) if 1 - (1 - threshold ** width) ** (PLACES // width) >= RECALL),
               default=1)


class Sketches:
    """What is kept of texts to find those that may have a Jaccard index of `threshold`: 100 bytes each."""

    def __init__(self, threshold: float) -> None:
        self.width = band_width(threshold)
        self.bands = PLACES // self.width
        agreeing = (1 + threshold) / 2          # of the bits: those of equal places, and half of the others
        self.expected = PLACES * agreeing
        self.least = self.expected - DEVIATIONS * math.sqrt(self.expected * (1 - agreeing))
        self._bits = bytearray()
        self._keys = [SpooledTemporaryFile(KEYS_BYTES) for _ in range(self.bands)]     # noqa: SIM115
        self.count = 0

    def extend(self, texts: Sequence[str]) -> None:
        signatures = _signatures(texts)
        self._bits += np.packbits((signatures & 1).astype(np.uint8), axis=1).tobytes()
        with writing():
            for file, keys in zip(self._keys, _band_keys(signatures, self.width), strict=True):
                file.write(keys.tobytes())
        self.count += len(texts)

    def candidates(self, among: NDArray[np.bool_]) -> Iterator[Candidates]:
        """Pairs of the texts in `among`, (count,), that may be alike. A pair may come several times."""
        bits = np.frombuffer(self._bits, np.uint8).reshape(self.count, PLACES // 8)
        for band, file in enumerate(self._keys):
            file.seek(0)
            keys = np.frombuffer(file.read(), np.uint32)
            word = bits.view(np.uint32)[:, band % (PLACES // 32)]
            for numbers in shares(keys, among):
                for found in _neighbours(keys[numbers], word[numbers]):
                    left, right = numbers[found.left], numbers[found.right]
                    agreeing = np.unpackbits(~(bits[left] ^ bits[right]), axis=1).sum(axis=1)
                    least = np.where(found.crowded, self.expected, self.least)      # chance brings crowds together
                    alike = agreeing >= least
                    yield Candidates(found.step, left, right, found.crowded).where(alike)

    @property
    def disk_bytes(self) -> int:
        """The size of the temporary files."""
        return 4 * self.bands * self.count if 4 * self.count > KEYS_BYTES else 0

    def close(self) -> None:
        for file in self._keys:
            file.close()


class Index:
    """Finds for new texts those of a fixed set that may be alike."""

    def __init__(self, texts: Indexed, threshold: float) -> None:
        self.width = band_width(threshold)
        keys = np.concatenate([_band_keys(_signatures(batch), self.width) for batch in batches(texts)], axis=1)
        self._order = np.argsort(keys, axis=1)
        self._keys = np.take_along_axis(keys, self._order, axis=1)

    def candidates(self, texts: Sequence[str]) -> set[tuple[int, int]]:
        """Pairs of a new text and a known one, by number; of one text at most WINDOW in a band."""
        found: set[tuple[int, int]] = set()
        for keys, known, order in zip(_band_keys(_signatures(texts), self.width), self._keys, self._order, strict=True):
            first, end = np.searchsorted(known, keys), np.searchsorted(known, keys, "right")
            for text in np.flatnonzero(end > first).tolist():
                found.update((text, other) for other in order[first[text]:end[text]][:WINDOW].tolist())
        return found


def shares(keys: NDArray[Any], among: NDArray[np.bool_] | None = None) -> Iterator[Numbers]:
    """The numbers of all keys (n,), or of those in `among` (n,), a million at a time; equal keys come together."""
    count = keys.dtype.type(1 + (len(keys) >> 20))
    for share in range(int(count)):
        chosen = keys % count == share
        numbers = np.flatnonzero(chosen if among is None else chosen & among)
        if len(numbers):
            yield numbers


def _signatures(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n, PLACES) 32-bit values."""
    from rensa import RMinHash

    words, starts = hashed(texts)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(words, starts, PLACES, SEED).to_rows()
    return np.fromiter(chain.from_iterable(rows), np.uint64, len(texts) * PLACES).reshape(len(texts), PLACES)


def _band_keys(signatures: NDArray[np.uint64], width: int) -> NDArray[np.uint32]:
    """(bands, n) 32-bit hashes of `width` places each."""
    bands = PLACES // width
    banded = signatures[:, :bands * width].reshape(len(signatures), bands, width)
    sums: NDArray[np.uint64] = (banded * random_words(width, seed=SEED)).sum(axis=2, dtype=np.uint64)
    return (sums >> np.uint64(32)).astype(np.uint32).T


def _neighbours(keys: NDArray[np.uint32], bits: NDArray[np.uint32]) -> Iterator[Candidates]:
    """Pairs of numbers with the same key, which are not further apart than WINDOW when ordered by key and `bits`.

    So where thousands share a key, those are compared that agree in further places, as in an LSH forest (Bawa et al.
    2005), and time stays linear.
    """
    both = keys.astype(np.uint64) << np.uint64(32) | bits
    order = np.argsort(both, kind="stable")
    keys = keys[order]
    lengths = np.diff(np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]])))
    crowded = np.repeat(lengths > WINDOW + 1, lengths)
    at = np.flatnonzero(keys[1:] == keys[:-1])
    for step in range(1, WINDOW + 1):
        if not len(at):
            return
        left, right = order[at], order[at + step]
        yield Candidates(step, np.minimum(left, right), np.maximum(left, right), crowded[at])
        at = at[at + step + 1 < len(keys)]
        at = at[keys[at] == keys[at + step + 1]]
