"""What gives away that a text holds a question of an evaluation set: hashes of its runs of words, and no word of it.

A question is looked for by runs of 13 words, as for GPT-3 (Brown et al. 2020, appendix C); a shorter one as a whole,
within a text from 8 words, and below that only as a line of its own. Runs that many questions share say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tuneloop.data.near.grams import Runs
from tuneloop.data.near.shingles import Words
from tuneloop.data.near.texts import Numbers, batches

RUN = 13                    # words
INSIDE = 8                  # words from which a whole question is looked for within a text
FEWEST = 5                  # words of a question; what is shorter, anyone may say
BUILT_IN = Path(__file__).parents[1] / "builtin" / "fingerprints.npz"


@dataclass(frozen=True)
class EvaluationSet:
    """Where questions come from."""

    name: str               # in findings, and to drop rows by: gsm8k
    title: str              # for people: GSM8K (test)
    rows: int
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class Prints:
    """The hashes of questions, those of one question together."""

    hashes: Words           # (h,)
    row_of: Numbers         # (h,) the number of the question


def prints_of(questions: Sequence[str], *, shared_by: int, most: int | None = None) -> Prints:
    """Hashes that at most `shared_by` questions have; of each question all, or `most` that are spread over it."""
    runs = Runs(questions)
    long, long_of = runs.of(RUN)
    whole, whole_of = runs.whole()
    short = (runs.lengths[whole_of] < RUN) & (runs.lengths[whole_of] >= FEWEST)
    hashes, rows = np.append(long, whole[short]), np.append(long_of, whole_of[short])
    order = np.argsort(rows, kind="stable")
    hashes, rows = hashes[order], rows[order]
    once = np.sort(np.unique(np.stack([rows.astype(np.uint64), hashes]), axis=1)[1])
    telling = np.searchsorted(once, hashes, "right") - np.searchsorted(once, hashes) <= shared_by
    hashes, rows = hashes[telling], rows[telling]
    if most is not None:
        chosen = np.concatenate([start + np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
                                 for start, count in zip(*_stretches(rows), strict=True)] or [[]]).astype(int)
        hashes, rows = hashes[chosen], rows[chosen]
    return Prints(hashes, rows)


def _stretches(rows: Numbers) -> tuple[Numbers, Numbers]:
    """Where each number's stretch begins in an ascending list, and how long it is."""
    _, starts, counts = np.unique(rows, return_index=True, return_counts=True)
    return starts, counts


@dataclass(frozen=True)
class Hits:
    """Texts that hold questions, (h,) each."""

    texts: Numbers
    sets: Numbers           # which evaluation set
    rows: Numbers           # which question of it


class Finder:
    """Finds the questions of several sets in texts."""

    def __init__(self, sets: Sequence[Prints]) -> None:
        hashes = np.concatenate([some.hashes for some in sets] or [np.empty(0, np.uint64)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._sets = np.repeat(np.arange(len(sets)), [len(some.hashes) for some in sets])[order]
        self._rows = np.concatenate([some.row_of for some in sets] or [np.empty(0, np.int64)])[order]

    def hits(self, texts: Sequence[str]) -> Hits:
        """Every question in every text once."""
        found = [np.empty((3, 0), np.int64)]
        seen = 0
        for batch in batches(texts):
            runs = Runs(batch)
            for length in range(INSIDE, RUN + 1):
                found.append(self._look_up(*runs.of(length), seen))
            lines = [(number, line) for number, text in enumerate(batch, seen) for line in text.split("\n")]
            wholes, which = Runs([line for _, line in lines]).whole()
            found.append(self._look_up(wholes, np.array([number for number, _ in lines])[which], 0))
            seen += len(batch)
        return Hits(*np.unique(np.concatenate(found, axis=1), axis=1))

    def _look_up(self, hashes: Words, texts: Numbers, offset: int) -> Numbers:
        """(3, h) texts, sets and rows."""
        first = np.searchsorted(self._hashes, hashes)
        known = np.append(self._hashes, np.uint64(0))[first] == hashes
        hashes, texts, first = hashes[known], texts[known] + offset, first[known]
        count = np.searchsorted(self._hashes, hashes, "right") - first
        at = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.stack([np.repeat(texts, count), self._sets[at], self._rows[at]])


# --- the sets that come with us --------------------------------------------------------------------------------------


def save(file: Path, sets: Sequence[tuple[EvaluationSet, Prints]]) -> None:
    """One file of all sets: their hashes one after the other, and of each question how many it has."""
    counts = [np.bincount(prints.row_of, minlength=one.rows).astype(np.uint8) for one, prints in sets]
    np.savez_compressed(file, sets=np.array(json.dumps([asdict(one) for one, _ in sets])),
                        hashes=np.concatenate([prints.hashes for _, prints in sets]), counts=np.concatenate(counts))


def load(file: Path = BUILT_IN) -> list[tuple[EvaluationSet, Prints]]:
    """What `save` wrote."""
    with np.load(file) as kept:
        sets = [EvaluationSet(**one) for one in json.loads(str(kept["sets"]))]
        hashes, counts = kept["hashes"], kept["counts"]
    loaded = []
    for one in sets:
        own, counts = counts[:one.rows], counts[one.rows:]
        row_of = np.repeat(np.arange(one.rows), own)
        loaded.append((one, Prints(hashes[:len(row_of)], row_of)))
        hashes = hashes[len(row_of):]
    return loaded
