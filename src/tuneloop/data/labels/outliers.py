"""Numbers and texts that lie far from the others of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.labels.diversity import words

Numbers = NDArray[np.float64]
FAR = 3.5               # Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers
WIDTH = 4096            # places of a text's vector; words and letter runs are hashed into them
RUN = 4                 # letters
RUN_WEIGHT = 0.3        # of a word
NEIGHBOURS = 10


def robust_scores(values: Numbers) -> Numbers:
    """How far each value is from the median, in units that are standard deviations for normal ones (modified z-score).

    By the median absolute deviation, which outliers do not move. All 0 where more than half of the values are equal.
    """
    away = values - np.median(values)
    spread = np.median(np.abs(away))
    return np.asarray(0.6745 * away / spread) if spread else np.zeros(len(values))


def likeness(texts: Sequence[str]) -> Numbers:
    """(n,) How alike each text is to its nearest others: the mean cosine of their TF-IDF vectors, from 0 to 1.

    Words and runs of four letters, hashed.
    """
    counts = np.stack([np.bincount(*_hashed(text), WIDTH) for text in texts])
    weights = np.log1p(counts) * (1 + np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))))
    vectors = (weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = min(NEIGHBOURS, len(texts) - 1)
    return np.asarray(np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1), np.float64)


def _hashed(text: str) -> tuple[NDArray[np.int64], Numbers]:
    """Places of the words and letter runs of a text, and the weight of each."""
    said = words(text)
    joined = f"_{'_'.join(said)}_"
    runs = [joined[at:at + RUN] for at in range(len(joined) - RUN + 1)]
    places = np.array([crc32(part.encode("utf-8", "surrogatepass")) % WIDTH for part in (*said, *runs)], np.int64)
    return places, np.repeat([1.0, RUN_WEIGHT], [len(said), len(runs)])
