"""Labels that are written in several ways."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from shlex import quote

from tuneloop.data.checks._places import in_order
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.labels.place import Values, answer_place
from tuneloop.data.labels.spelling import slips, usual_spellings

LOOKED_AT = 200         # rows that tell in which column the labels are
CHANGES_SHOWN = 12


class Spellings:
    """Rows by their label, as long as the answers may be labels."""

    def __init__(self) -> None:
        self._counts = LabelCounts()
        self._rows: defaultdict[str, Places] = defaultdict(Places)
        self._some: list[tuple[Values, str]] = []

    @property
    def are_labels(self) -> bool:
        return self._counts.are_labels

    def add(self, chunk: Chunk) -> None:
        if not self._counts.may_be_labels:
            return
        labels = list(map(label_of, chunk.samples))
        if not self._counts.add(labels):
            self._rows.clear()
            return
        for origin, sample, values, label in zip(chunk.origins, chunk.samples, chunk.values, labels, strict=True):
            if label is not None:
                self._rows[sample.answer].add(origin)
                if len(self._some) < LOOKED_AT:
                    self._some.append((values, label))

    def findings(self) -> Iterator[Finding]:
        if not self.are_labels:
            return
        counts = {label: len(rows) for label, rows in self._rows.items()}
        usual = usual_spellings(counts)
        relabel = f"tuneloop data fix FILE relabel{self._column}"
        yield from self._told("spelling", usual, "spell a label in another way than most rows do", relabel)
        total = Counter[str]()
        for label, count in counts.items():
            total[usual.get(label, label)] += count
        meant = slips(total)
        more = ", …" if len(meant) > CHANGES_SHOWN else ""
        shown = json.dumps(dict(islice(meant.items(), CHANGES_SHOWN)), ensure_ascii=False)
        yield from self._told("slip", meant, "have a label that looks like a slip of another",
                              f"{relabel} {quote(f'map={shown[:-1]}{more}}}')}")

    @property
    def _column(self) -> str:
        place = answer_place(self._some)
        return f" column={place.column}" if place and not place.key else ""

    def _told(self, kind: str, changes: Mapping[str, str], do: str, fix: str) -> Iterator[Finding]:
        if changes:
            rows = in_order(self._rows[label] for label in changes)
            examples = [f'"{old}" for "{new}": {self._rows[old]}' for old, new in changes.items()]
            yield Finding("consistency", "fix", rows_that(rows, do), fix, rows, examples[:SHOWN_EXAMPLES], kind)
