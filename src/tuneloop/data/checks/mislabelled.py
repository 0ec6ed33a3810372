"""Rows whose label is likely wrong, told by a small model that learns the labels of the other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tuneloop.data.checks import base
from tuneloop.data.checks._keyed import keys_of
from tuneloop.data.checks._sample import RowSample
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, excerpt, is_learnt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import LISTED, Finding, Places
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.labels.predict import FOLDS, out_of_sample
from tuneloop.data.labels.spelling import usual_spellings
from tuneloop.data.labels.suspects import suspects
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.rows import frames_of
from tuneloop.data.near.shingles import plain
from tuneloop.errors import UserError
from tuneloop.types import Origin

MOST_ROWS = 20_000
LONGEST = 1_000             # characters of a prompt, without what all prompts are wrapped in
LABOUR = 100_000_000        # characters times labels and what it costs to read them: about 20 s on one core
READING = 4                 # what it costs to read a character, in labels
FEWEST_OF_LABEL = 10        # rows
FEWEST = 50                 # rows
GUESSING, GOOD = 0.7, 0.85  # shares of a label's rows on which the model agrees, on average over labels; below the
#                             first it knows too little
SURE, VERY_SURE = 0.3, 0.8  # margin of the likely label over the given one: of a good model, and of one between
MANY = 0.03                 # of the rows, from which on they should be looked at first


class _Row(NamedTuple):
    origin: Origin
    text: str
    label: str


class Check(base.Check):
    """Confident learning over the rows' labels; what a model that is often wrong itself says is not taken for true."""

    about: ClassVar[str] = "labels that are likely wrong"
    needs_all: ClassVar[bool] = True

    def __init__(self) -> None:
        self._labels = LabelCounts()
        self._sample: RowSample[_Row] = RowSample(MOST_ROWS)
        self._frames: Frames | None = None
        self._facts: dict[str, Any] = {}

    def see(self, chunk: Chunk) -> None:
        if not (is_learnt(chunk) and self._labels.may_be_labels):
            return
        labels = list(map(label_of, chunk.samples))
        if not self._labels.add(labels):
            self._sample = RowSample(MOST_ROWS)
            return
        frames = self._frames = self._frames or frames_of(chunk.samples)
        labelled = [(at, label) for at, label in enumerate(labels) if label is not None]

        def row(number: int) -> _Row:
            at, label = labelled[number]
            return _Row(chunk.origins[at], frames.without(plain(chunk.prompts[at]))[:LONGEST], label)

        self._sample.add(len(labelled), row)

    def findings(self) -> list[Finding]:
        rows = self._chosen() if self._labels.are_labels else []
        labels = sorted({row.label for row in rows})
        if len(labels) < 2 or len(rows) < FEWEST:
            return []
        try:
            return self._suspects(rows, labels)
        except UserError as error:
            return [Finding("mislabelled", "note", "Labels were not looked at for mistakes, since scikit-learn is not "
                            "installed", error.fix, kind="not_installed")]

    def _chosen(self) -> list[_Row]:
        """As many rows as there is time for, each with the usual spelling of its label, without rare labels."""
        usual = usual_spellings(self._labels.counts)
        rows = [row._replace(label=usual.get(row.label, row.label)) for row in self._sample.drawn]
        counts = Counter(row.label for row in rows)
        rows = [row for row in rows if counts[row.label] >= FEWEST_OF_LABEL]
        labour = np.cumsum([len(row.text) + 1 for row in rows]) * (len(set(counts)) + READING)
        return rows[:int(np.searchsorted(labour, LABOUR, "right"))]

    def _suspects(self, rows: Sequence[_Row], labels: Sequence[str]) -> list[Finding]:
        number = {label: index for index, label in enumerate(labels)}
        given = np.array([number[row.label] for row in rows])
        folds = (keys_of(row.text for row in rows) % np.uint64(FOLDS)).astype(np.int64)
        probabilities = out_of_sample([row.text for row in rows], given, folds)
        right = float((np.bincount(given, probabilities.argmax(axis=1) == given) / np.bincount(given)).mean())
        self._facts = {"rows": len(rows), "labels": len(labels), "agrees": round(right, 3),
                       "rows_with_likely_label": []}
        if right < GUESSING:
            return []
        found = suspects(given, probabilities, least_margin=SURE if right >= GOOD else VERY_SURE)
        if not len(found.rows):
            return []
        named = [(rows[row], labels[likely]) for row, likely in zip(found.rows, found.likely, strict=True)]
        self._facts["rows_with_likely_label"] = [
            {"file": row.origin.file, "line": row.origin.line, "label": row.label, "likely": likely}
            for row, likely in named[:LISTED]]
        return [self._finding(named, len(rows), right)]

    def _finding(self, named: Sequence[tuple[_Row, str]], looked_at: int, right: float) -> Finding:
        places = Places(row.origin for row, _ in named)
        among = "" if looked_at == self._labels.rows else f" among {looked_at:,} that were looked at"
        how = "" if right >= GOOD else (f"; the small model that doubts them agrees with {right:.0%} of a label's "
                                        "rows, so only those are told of which it is very sure")
        return Finding("mislabelled", "fix" if len(named) >= MANY * looked_at else "note",
                       f"{rows_that(places, 'have a label that is likely wrong')}{among}{how}",
                       "look at them, the most doubtful come first; mend the labels, or drop them: tuneloop data fix "
                       "FILE drop checks=mislabelled", places,
                       [f"{row.origin if len(places.files) > 1 else f'line {row.origin.line}'}: “{excerpt(row.text)}” "
                        f"has {row.label}, likely {likely}"
                        for row, likely in named[:SHOWN_EXAMPLES]], "likely_wrong")

    def facts(self) -> dict[str, Any]:
        return {"mislabelled": self._facts} if self._facts else {}
