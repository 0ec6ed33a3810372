"""Whether there are enough rows: to learn from, of every label, and to tell afterwards what was learnt."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places, Severity
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.labels.spelling import usual_spellings
from tuneloop.data.spec import Split
from tuneloop.types import Origin, Prompt, Text

NOTHING, FEW, USUAL, PLENTY = 10, 50, 500, 10_000
FEWEST_OF_LABEL = 10
ACCURACY = 0.8          # a usual score, at which the width of the interval is told
ROUGH, USELESS = 0.05, 0.1      # half widths of that interval
Z = 1.959964            # of a normal distribution, for intervals of 95 %
SHOWN = 5
HELD_OUT = float(Split().test)


def half_width(rows: int, accuracy: float = ACCURACY) -> float:
    """Half the width of the 95 % interval of a share that `rows` rows show (Wilson 1927)."""
    spread = accuracy * (1 - accuracy) / rows + Z ** 2 / (4 * rows ** 2)
    return Z / (1 + Z ** 2 / rows) * math.sqrt(spread)


class Check(base.Check):
    """The usual 500 to 10,000 rows are no law: a format is learnt from fewer, a wide task needs more."""

    about: ClassVar[str] = "whether there are enough rows: to learn from, of every label, and for the test"
    needs_all: ClassVar[bool] = True

    def __init__(self) -> None:
        self._rows = Counter[str]()
        self._labels = LabelCounts()
        self._by_part: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._first: defaultdict[tuple[str, str], list[Origin]] = defaultdict(list)

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._rows[chunk.part] += sum(not isinstance(sample, Text | Prompt) for sample in chunk.samples)
        labels = list(map(label_of, chunk.samples))
        if not self._labels.add(labels):
            self._by_part.clear()
            self._first.clear()
            return
        for origin, label in zip(chunk.origins, labels, strict=True):
            if label is not None:
                self._by_part[chunk.part][label] += 1
                if len(places := self._first[chunk.part, label]) < FEWEST_OF_LABEL:
                    places.append(origin)

    def findings(self) -> list[Finding]:
        found = [*self._of_train(), *self._of_test()]
        if self._labels.are_labels and self._rows["train"]:
            found += self._of_labels()
        return found

    def _of_train(self) -> Iterator[Finding]:
        rows = self._rows["train"]
        if not rows or rows >= USUAL:
            return
        severity: Severity = "blocks" if rows < NOTHING else "fix" if rows < FEW else "note"
        count = "There is 1 row" if rows == 1 else f"There are {rows:,} rows"
        held_out = max(1, int(HELD_OUT * rows))
        test = "" if self._rows["test"] else (f"; and {held_out:,} of them, held out for the test, would show a score "
                                              f"to ±{_points(held_out)} points")
        yield Finding("enough", severity, f"{count} to learn from, and {USUAL} to {PLENTY:,} good ones are usual: "
                      f"fewer teach a form of answer rather than a skill, and are soon learnt by heart{test}",
                      "add rows, the rare cases first" + ("" if rows < NOTHING else "; training on fewer can still be "
                                                          "worth a try"), kind="train")

    def _of_test(self) -> Iterator[Finding]:
        rows = self._rows["test"]
        if rows and (width := half_width(rows)) > ROUGH:
            yield Finding("enough", "fix" if width > USELESS else "note", f"{rows:,} test rows show a score of "
                          f"{ACCURACY:.0%} to ±{_points(rows)} points: what improves by less cannot be told from "
                          "chance", f"hold out {_needed(ROUGH):,} rows or more for ±{ROUGH:.0%}", kind="test")

    def _of_labels(self) -> Iterator[Finding]:
        usual = usual_spellings(self._labels.counts)
        by_part = {part: Counter[str]() for part in self._by_part}
        places: defaultdict[tuple[str, str], list[Origin]] = defaultdict(list)
        for part, counts in self._by_part.items():
            for label, count in counts.items():
                by_part[part][usual.get(label, label)] += count
                places[part, usual.get(label, label)] += self._first[part, label]
        train = by_part["train"]
        rare = {label: count for label, count in train.items() if count < FEWEST_OF_LABEL}
        if rare:
            yield Finding("enough", "fix", f"{_labels(rare)} fewer than {FEWEST_OF_LABEL} rows to learn from",
                          "add rows of these labels, or merge them into others: tuneloop data fix FILE relabel "
                          "merge='{\"other\": [\"…\"]}'", _of(places, "train", rare), _told(rare), "rare_labels")
        for part in ("validation", "test"):
            if unseen := by_part.get(part, Counter()).keys() - train.keys():
                yield Finding("enough", "fix", f"{_labels(unseen)} rows in {part} and none in train, so that a model "
                              "cannot learn them", "add rows of these labels to train, or take them out of the task",
                              _of(places, part, unseen), sorted(unseen)[:SHOWN], f"unseen_in_{part}")
        if "test" in by_part and (untested := train.keys() - by_part["test"].keys()):
            yield Finding("enough", "note", f"{_labels(untested)} no row in test, so that nothing will be known of "
                          "them", "add rows of these labels to test", examples=sorted(untested)[:SHOWN],
                          kind="untested")

    def facts(self) -> dict[str, Any]:
        rows = {part: count for part, count in self._rows.items() if count}
        told: dict[str, Any] = {"rows": rows}
        if test := rows.get("test", int(HELD_OUT * rows.get("train", 0))):
            told |= {"test_rows": test, "half_width_at_80_percent": round(half_width(test), 3)}
        return {"enough": told}


def _points(rows: int) -> int:
    return round(100 * half_width(rows))


def _needed(width: float) -> int:
    """Test rows from which on the interval is as narrow as that."""
    return next(rows for rows in range(1, 100_000) if half_width(rows) <= width)


def _labels(labels: Any) -> str:
    return "1 label has" if len(labels) == 1 else f"{len(labels):,} labels have"


def _told(counts: dict[str, int]) -> list[str]:
    return [f"“{label}”: {count:,}" for label, count in sorted(counts.items(), key=lambda entry: entry[1])][:SHOWN]


def _of(places: dict[tuple[str, str], list[Origin]], part: str, labels: Any) -> Places:
    return Places(sorted((place for label in labels for place in places[part, label]),
                         key=lambda place: (place.file, place.line)))
