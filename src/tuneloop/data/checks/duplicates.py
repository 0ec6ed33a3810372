"""Rows that say what another says, exactly or nearly, and rows of one part that ask what another part asks: a leak."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import excerpt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.clean import content
from tuneloop.data.findings import Finding, Places
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.pairs import Near, first_equals, near
from tuneloop.data.near.rows import frames_of, is_sampled, pieces, subject, written
from tuneloop.data.near.shingles import Words
from tuneloop.data.near.texts import Numbers, Some, Texts
from tuneloop.types import Floats, Origin

PARTS = ("train", "validation", "test")
LEAKS = (("train", ("validation", "test")), ("validation", ("test",)))
LEAK = "train in test"  # the kind of the finding that names training rows which ask what test rows ask
MANY = 0.05             # the share of duplicates in a part from which they should be taken out
EXAMPLES = 3
SAYS = {"exact": "say exactly", "near": "say nearly"}


class Check(base.Check):
    """Near duplicates have a Jaccard index of 0.8 or more over runs of five characters, in prompt and answers each.

    What all prompts of a part begin or end with is left out before.
    """

    about: ClassVar[str] = "exact and near duplicates, and rows of one part that ask what another part asks"

    def __init__(self) -> None:
        self._rows = _Rows()
        self._disk_bytes = 0
        self._counts: dict[str, dict[str, int]] = {}
        self._leaks: dict[str, int] = {}

    def see(self, chunk: Chunk) -> None:
        if chunk.part in PARTS and chunk.samples:
            self._rows.add(chunk)

    def findings(self) -> list[Finding]:
        found = [finding for part in PARTS for finding in self._within(part)]
        found += [finding for part, later in LEAKS for finding in self._across(part, later)]
        disk_bytes = self._disk_bytes + self._rows.texts.disk_bytes
        if disk_bytes:
            found.append(Finding("duplicates", "note", f"{len(self._rows.texts):,} rows were compared by way of "
                                 f"temporary files of {disk_bytes / 1e9:.1f} GB, since they do not fit into memory; "
                                 "none was left out", "", kind="on disk"))
        self._rows.texts.close()
        return found

    def facts(self) -> dict[str, Any]:
        return {"duplicates": self._counts, "leaks": self._leaks}

    def _near(self, texts: Some, sides: Numbers | None = None) -> Near:
        found = near(texts, sides=sides, pieces=pieces)
        self._disk_bytes = max(self._disk_bytes, found.disk_bytes)
        return found

    def _within(self, part: str) -> Iterator[Finding]:
        rows = self._rows
        numbers = rows.of(part)
        numbers = numbers[~rows.sampled[numbers]]
        if not len(numbers):
            return
        own = np.arange(len(numbers), dtype=np.int32)
        equal = first_equals(rows.contents[numbers])
        repeats = equal != own
        found = self._near(Some(rows.texts, numbers))
        nearly = (found.clusters() != own) & ~repeats
        self._counts[part] = {"rows": len(own), "exact": int(repeats.sum()), "near": int(nearly.sum())}
        for kind, chosen in (("exact", repeats), ("near", nearly)):
            which = np.flatnonzero(chosen)
            if not len(which):
                continue
            places = rows.places(numbers[which])
            told = [(row, *(_closest(found, row) if kind == "near" else (equal[row], 1.0)))
                    for row in which[:EXAMPLES].tolist()]
            yield Finding("duplicates", "fix" if len(which) >= MANY * len(own) else "note",
                          rows_that(places, f"{SAYS[kind]} what an earlier row of {part} says"),
                          "tuneloop data fix FILE deduplicate", places,
                          [rows.told(numbers[row], numbers[other], alike) for row, other, alike in told], kind)

    def _across(self, part: str, later: tuple[str, ...]) -> Iterator[Finding]:
        """Leaks into the parts that are used later."""
        rows = self._rows
        numbers = np.sort(np.concatenate([rows.of(name) for name in (part, *later)]))
        sides = (rows.parts[numbers] != PARTS.index(part)).astype(np.int64)
        if len(set(sides.tolist())) < 2:
            return
        found = self._near(Some(rows.texts, numbers, subject), sides)
        for name in later:
            leak = _leak(found, sides == 0, rows.parts[numbers] == PARTS.index(name))
            if not len(leak.rows):
                continue
            kind = f"{part} in {name}"      # as LEAK
            self._leaks[kind] = len(leak.rows)
            places, same = rows.places(numbers[leak.rows]), int((leak.alike == 1).sum())
            examples = [rows.told(numbers[row], numbers[other], alike) for row, other, alike
                        in zip(leak.rows[:EXAMPLES], leak.others, leak.alike.tolist(), strict=False)]
            yield Finding(
                "duplicates", "fix",
                rows_that(places, f"ask in {part} what {name} asks ({same:,} the same, {len(places) - same:,} nearly)"),
                f"take them out of {part}: a score on questions that a model has seen proves nothing",
                places, examples, kind)


@dataclass(frozen=True)
class _Leak:
    """Rows of one part, and for each the row of the other part that is most like it."""

    rows: Numbers
    others: Numbers
    alike: Floats


def _leak(found: Near, ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> _Leak:
    """What of `ours` is like `theirs`, both (n,) masks of the rows that were compared."""
    numbers = np.flatnonzero(theirs)
    first_of_theirs = np.full(len(theirs), -1)
    first_of_theirs[found.first[numbers][::-1]] = numbers[::-1]
    turned = ~ours[found.left]
    mine, others = np.where(turned, found.right, found.left), np.where(turned, found.left, found.right)
    others = first_of_theirs[others]
    order = np.lexsort((-found.alike, mine))
    order = order[others[order] >= 0]
    texts, best = np.unique(mine[order], return_index=True)
    rows = np.flatnonzero(ours & np.isin(found.first, texts))
    chosen = order[best][np.searchsorted(texts, found.first[rows])]
    return _Leak(rows, others[chosen], found.alike[chosen])


def _closest(found: Near, row: int) -> tuple[int, float]:
    """The row that is most like a row which some row is like: an earlier one, unless it is so by way of later ones."""
    if found.first[row] != row:
        return int(found.first[row]), 1.0
    pairs = np.flatnonzero((found.left == row) | (found.right == row))
    others = found.left[pairs] + found.right[pairs] - row
    best = np.lexsort((-found.alike[pairs], others > row))[0]
    return int(others[best]), float(found.alike[pairs[best]])


class _Rows:
    """What is kept of rows: their texts, a hash of all that they say, their parts and places."""

    def __init__(self) -> None:
        self.texts = Texts()
        self._places = Places()
        self._frames, self._framed = Frames(), set[str]()
        self._contents, self._parts, self._sampled = bytearray(), array("b"), array("b")

    def add(self, chunk: Chunk) -> None:
        if chunk.part not in self._framed:
            self._frames |= frames_of(chunk.samples)
            self._framed.add(chunk.part)
        self.texts.extend([written(sample, self._frames) for sample in chunk.samples])
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            self._places.add(origin)
            self._contents += blake2b(repr(content(sample)).encode(), digest_size=8).digest()
            self._parts.append(PARTS.index(chunk.part))
            self._sampled.append(is_sampled(sample))

    @property
    def contents(self) -> Words:
        """(n,) Equal for rows that say exactly the same."""
        return np.frombuffer(self._contents, np.uint64)

    @property
    def parts(self) -> NDArray[np.int8]:
        """(n,) Positions in PARTS."""
        return np.frombuffer(self._parts, np.int8)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """(n,) Whether a row is one sampled answer."""
        return np.frombuffer(self._sampled, np.bool_)

    def of(self, part: str) -> Numbers:
        """The numbers of the part's rows."""
        return np.flatnonzero(self.parts == PARTS.index(part)).astype(np.int32)

    def origin(self, number: int) -> Origin:
        return Origin(list(self._places.files)[self._places.which[number]], self._places.lines[number])

    def places(self, numbers: Numbers) -> Places:
        return Places(map(self.origin, numbers.tolist()))

    def told(self, number: int, other: int, alike: float) -> str:
        """`train.csv line 5 is nearly test.csv line 9 (0.93 alike): "how do i top up" and "how do i top up my …"`."""
        said, there = (excerpt(subject(self.texts[row])) for row in (number, other))
        if alike == 1:
            return f'{self.origin(number)} is the same as {self.origin(other)}: "{said}"'
        return f'{self.origin(number)} is nearly {self.origin(other)} ({alike:.2f} alike): "{said}" and "{there}"'
