"""Groups of rows that are worded alike: for a score on each kind of row, and on kinds that training did not see."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError
from tuneloop.types import Ints, Sample

LONGEST = 4_000         # characters of a text that are compared: a kind of text shows at its beginning
FITTED = 5_000          # texts that centres are found by, drawn at random where there are more
NAMED_BY = 5            # words
FEWEST_TEXTS = 3        # that hold a word by which a cluster is named: it tells of no single row
_HASHED, _ROUNDS, _STARTS = 2048, 50, 8
_CHUNK = 2_000          # texts whose vectors are in memory at once, beside those that are fitted

_WORD = re.compile(r"[^\W\d_]+")
_UNSPACED = "\u2e80"     # from here on come scripts that put no spaces between words

Vectors = NDArray[np.float32]       # (n, hashes)


def wordings(samples: Sequence[Sample]) -> list[str]:
    """What the last user turn of each row says, or the row's answer where nobody asks.

    White space is single, and what all rows begin or end with, a recipe's prompt around its columns, is left out.
    """
    texts = [" ".join(_said(sample).split()) for sample in samples]
    if len(set(texts)) < 2:
        return texts
    texts = [text[_shared(texts):] for text in texts]
    ends = [text[::-1] for text in texts]
    return [text[:len(text) - _shared(ends)] for text in texts]


def _said(sample: Sample) -> str:
    return next((turn.content for turn in reversed(sample.prompt) if turn.role == "user"), sample.answer)


def _shared(texts: Sequence[str]) -> int:
    """Characters of the whole words that all begin with."""
    first, last = min(texts), max(texts)        # what these share, all between them do
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same].rfind(" ") + 1


def words_of(texts: Sequence[str], own: Ints, k: int) -> list[list[str]]:
    """For each cluster up to NAMED_BY words that set it apart, the first the most: how much larger the share of its
    texts is that hold the word than that of the others, times log(texts / texts that hold it), or "how" and "the" would
    be among them. None where no word is in FEWEST_TEXTS of its texts.
    """
    holding = [Counter[str]() for _ in range(k)]
    for text, cluster in zip(texts, own.tolist(), strict=True):
        holding[cluster].update(set(_words(text)))
    everywhere = sum(holding, Counter[str]())
    found = []
    for counts, size in zip(holding, np.bincount(own, minlength=k).tolist(), strict=True):
        others = max(1, len(texts) - size)
        apart = {word: (count / size - (everywhere[word] - count) / others) * log(len(texts) / everywhere[word])
                 for word, count in counts.items() if count >= FEWEST_TEXTS}
        found.append(sorted((word for word in apart if apart[word] > 0), key=lambda word: (-apart[word], word))
                     [:NAMED_BY])
    return found


def _words(text: str) -> Iterator[str]:
    """In small letters; of a script without spaces every two characters."""
    for word in _WORD.findall(text[:LONGEST].lower()):
        if word[0] < _UNSPACED:
            yield word
        else:
            yield from (word[at:at + 2] for at in range(max(1, len(word) - 1)))


def clusters(texts: Sequence[str], k: int, seed: int, *, fewer: bool = False) -> Ints:
    """(n,) A cluster in [0, k) for each text. The same texts in the same order and the same seed give the same ones.

    Spherical k-means (Dhillon and Modha 2001) over hashed character 3- and 4-grams, weighted by how rare they are; the
    best of a few k-means++ starts (Arthur and Vassilvitskii 2007). Of more than FITTED texts a sample finds the
    centres, and each other text gets the nearest. Every cluster has a text. With `fewer` there are no more clusters
    than different texts; otherwise a UserError is raised for a `k` above that.
    """
    random = np.random.default_rng(seed)
    fitted = np.arange(len(texts))
    if len(texts) > FITTED:
        fitted = np.sort(random.permutation(len(texts))[:FITTED])
    counts = _counted([texts[i] for i in fitted.tolist()])
    rare = np.log((1 + len(fitted)) / (1 + (counts > 0).sum(0))) + 1
    vectors = _unit(counts, rare)
    different = len({vector.tobytes() for vector in vectors})
    k = min(k, different) if fewer else k
    if not 1 <= k <= different:
        raise UserError(f"There are {different} different texts, which {k} clusters cannot share.",
                        wanted="a number of clusters from 1 to that of different texts")
    own, centres, _ = max((_k_means(vectors, k, random) for _ in range(_STARTS)), key=lambda found: found[2])
    if len(fitted) == len(texts):
        return own
    found = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), _CHUNK):
        found[start:start + _CHUNK] = np.argmax(_unit(_counted(texts[start:start + _CHUNK]), rare) @ centres.T, axis=1)
    found[fitted] = own
    return found


def _counted(texts: Sequence[str]) -> Vectors:
    """How often each text has each hash of 3- and 4-grams of characters."""
    counts = np.zeros((len(texts), _HASHED), dtype=np.float32)
    for number, text in enumerate(texts):
        padded = f" {' '.join(text[:LONGEST].lower().split())} "
        grams = Counter(padded[at:at + size] for size in (3, 4) for at in range(len(padded) - size + 1))
        np.add.at(counts[number], [_hash(gram) for gram in grams], list(grams.values()))
    return counts


@lru_cache(2**18)
def _hash(gram: str) -> int:
    return zlib.crc32(gram.encode("utf-8", "surrogatepass")) % _HASHED


def _unit(counts: Vectors, rare: NDArray[np.float64]) -> Vectors:
    """Vectors of length 1, each entry 1 + log(count) times how rare its hash is."""
    weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * rare
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    return np.asarray(weighted / np.maximum(length, 1e-12), dtype=np.float32)


def _k_means(vectors: Vectors, k: int, random: np.random.Generator) -> tuple[Ints, Vectors, float]:
    """Clusters from one start, their centres, and the sum of the cosines of texts and centres: more is better."""
    centres = _spread(vectors, k, random)
    own = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_ROUNDS):
        before, own = own, np.argmax(vectors @ centres.T, axis=1)
        _fill_empty(own, vectors, centres)
        sums = np.eye(k, dtype=np.float32)[own].T @ vectors
        centres = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        if (own == before).all():
            break
    return own, centres, float((vectors * centres[own]).sum())


def _spread(vectors: Vectors, k: int, random: np.random.Generator) -> Vectors:
    """(k, hashes) texts to start from, each drawn the more likely the further it is from those before."""
    chosen = [int(random.integers(len(vectors)))]
    while len(chosen) < k:
        # of unit vectors, the squared distance is twice this; texts that are chosen have none
        far = np.maximum(0, 1 - (vectors @ vectors[chosen].T).max(1)).astype(np.float64)
        far[far < 1e-6] = 0
        chances = far / far.sum() if far.any() else None
        chosen.append(int(random.choice(len(vectors), p=chances)))
    return vectors[chosen]


def _fill_empty(own: Ints, vectors: Vectors, centres: Vectors) -> None:
    """Give every cluster without a text the one that fits its own cluster worst, and is not alone there."""
    for cluster in set(range(len(centres))) - set(own.tolist()):
        fit = (vectors * centres[own]).sum(1)
        fit[np.bincount(own, minlength=len(centres))[own] == 1] = np.inf
        own[int(fit.argmin())] = cluster
