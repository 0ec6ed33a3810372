"""Whether some labels, sources or topics have far more rows than others, and few answers most of the text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import excerpt, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.template import MOST_LABELS
from tuneloop.types import Text

LOPSIDED = 20           # times as many rows as the rarest value has the most frequent one
ALONE = 0.9             # of the rows have one source
LONG_SHARE = 0.05       # of the rows, the longest: together they should not hold more than
LONG_WEIGHT = 0.5       # of all characters of answers
FEWEST = 50             # rows
SHOWN = 20              # values in the facts
_SOURCES = re.compile(r"(?:data_?)?(?:source|set|dataset|subset|origin)|domain|category|topic|subject|task|type|genre"
                      r"|lang|language|product|intent|bias_type", re.IGNORECASE)


class Check(base.Check):
    """Columns named like a source or a topic are looked at, and files where there are several."""

    about: ClassVar[str] = "balance over labels, sources and topics, and of the lengths of answers"
    needs_all: ClassVar[bool] = True

    def __init__(self) -> None:
        self._labels = LabelCounts()
        self._columns: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._files = Counter[str]()
        self._lengths = Counter[int]()
        self._rows = 0

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._rows += len(chunk)
        self._labels.add(map(label_of, chunk.samples))
        self._lengths.update(len(answer) for answer, sample in zip(chunk.answers, chunk.samples, strict=True)
                             if not isinstance(sample, Text))
        if chunk.part == "train":
            self._files.update(origin.file for origin in chunk.origins)
        for column in filter(_SOURCES.fullmatch, {column for values in chunk.values for column in values}):
            counts = self._columns[column]
            if len(counts) <= MOST_LABELS:
                counts.update(value for values in chunk.values if isinstance(value := values.get(column), str))

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        if self._labels.are_labels:
            found += _lopsided("labels", "label", self._labels.labels)
        elif len(self._labels.counts) == 1:
            said = excerpt(next(iter(self._labels.counts)))
            found.append(Finding("balance", "fix", f"All answers are “{said}”: there is nothing to tell apart",
                                 "look at the column that answers are read from", kind="one_answer"))
        for name, counts in self._sources().items():
            found += _lopsided(name, "file" if name == "files" else f"value of “{name}”", counts)
        return [*found, *self._lengths_alike()] if self._rows >= FEWEST else []

    def _sources(self) -> dict[str, Counter[str]]:
        """Columns of few values, none of them the labels, and the files."""
        labels = Counter(self._labels.counts) if self._labels.are_labels else Counter[str]()
        columns = {name: counts for name, counts in sorted(self._columns.items())
                   if 1 < len(counts) <= MOST_LABELS and counts != labels}
        return columns | ({"files": self._files} if len(self._files) > 1 else {})

    def _lengths_alike(self) -> Iterator[Finding]:
        """Whether the longest answers hold most of what is learnt: loss is counted by token."""
        rows, total = self._lengths.total(), sum(length * count for length, count in self._lengths.items())
        left, weight = int(LONG_SHARE * rows), 0
        for length, count in sorted(self._lengths.items(), reverse=True):
            taken = min(left, count)
            left, weight = left - taken, weight + taken * length
        if total and weight > LONG_WEIGHT * total:
            yield Finding("balance", "note", f"The longest {LONG_SHARE:.0%} of the answers hold {weight / total:.0%} "
                          "of all characters, so that a model learns mostly from these", "look at the longest answers; "
                          "shorten them, or add rows of the usual length", kind="lengths")

    def facts(self) -> dict[str, Any]:
        told = {"labels": self._labels.labels} if self._labels.are_labels else {}
        return {"balance": {name: dict(Counter(counts).most_common(SHOWN))
                            for name, counts in (told | self._sources()).items()}}


def _lopsided(name: str, what: str, counts: Mapping[str, int]) -> Iterator[Finding]:
    (first, most), *_, (last, fewest) = Counter(counts).most_common()
    if most > ALONE * sum(counts.values()) and len(counts) > 1:
        how = f"{most / sum(counts.values()):.0%} of the rows have one {what}, “{first}”"
    elif most > LOPSIDED * fewest:
        how = f"The most frequent {what}, “{first}”, has {most:,} rows, and the rarest, “{last}”, has {fewest:,}"
    else:
        return
    column = "" if name == "labels" else f" column={name}"
    do = "add rows of the rare ones" if name == "files" else \
        f"add rows of the rare ones, or see what balancing does: tuneloop data fix FILE balance{column}"
    yield Finding("balance", "note", f"{how}; a model learns the frequent ones best", do, kind=name)
