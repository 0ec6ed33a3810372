"""What was found in the data and what was done with it, for people (`lines`) and machines (`to_json`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from tuneloop.data.leave_out import Cluster
from tuneloop.types import Origin, Rendered, Sample

SHOWN = 5
SHOWN_LABELS = 12
SHOWN_LONGEST = 3


@dataclass(frozen=True)
class FileReport:
    """One data file: how it was read, and what its rows are."""

    part: str               # train | validation | test
    file: str
    kind: str               # CSV | TSV | JSON | JSONL
    rows: int
    format: str             # a sentence; empty where no row could be read
    notes: list[str]

    @property
    def about(self) -> str:
        """`CSV, 120 rows; the prompt is the column "question", …`."""
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        return "; ".join(filter(None, [f"{self.kind}, {rows}", self.format]))


@dataclass(frozen=True)
class Found:
    """How many rows have a property, and where the first of them are."""

    count: int
    first: list[Origin]

    @classmethod
    def at(cls, origins: Sequence[Origin]) -> Found:
        return cls(len(origins), list(origins[:SHOWN]))

    def __str__(self) -> str:
        """`7 (reviews.csv line 3, 5, …)`."""
        places = [f"{file} line {', '.join(str(o.line) for o in origins)}"
                  for file, origins in groupby(self.first, key=lambda o: o.file)]
        return f"{self.count:,} ({'; '.join(places)}{', …' if self.count > len(self.first) else ''})"


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in tokens."""

    min: int
    median: int
    p95: int
    max: int

    @classmethod
    def of(cls, tokens: Iterable[int]) -> Lengths:
        """Of at least one length; quantiles are lengths that occur."""
        low, middle, high, top = np.quantile(list(tokens), [0, 0.5, 0.95, 1], method="nearest")
        return cls(int(low), int(middle), int(high), int(top))


@dataclass(frozen=True)
class DataReport:
    """The story of the rows from the files to the three parts. Lengths are over all rows of the three parts."""

    files: list[FileReport]
    mended: list[dict[str, Any]]            # what each fix of data.fix did
    mixed: list[str]                        # a sentence for each source of data.mix
    removed: dict[str, Found]               # why -> rows: duplicates, empty, over_length, leaks, …
    conflicts: Found                        # rows that contradict others; kept
    judged: bool                            # whether rows judge answers and do not just give them
    split: dict[str, int]                   # rows of train, validation, test
    task: str                               # labels | open | pairs
    labels: dict[str, dict[str, int]]       # part -> label (or liked, not liked) -> rows; empty for other rows
    tokens: dict[str, Lengths]              # of row, prompt and answer; an answer includes its end of turn
    supervised_percent: float               # share of all tokens that carry loss
    longest: dict[str, int]                 # file and line -> tokens
    warnings: list[str]
    clusters: list[Cluster] = field(default_factory=list)       # of data.split.leave_out
    canaries: int = 0                       # rows of data.canaries that train too; all else here is without them

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; canaries are named where there are some."""
        return {key: value for key, value in asdict(self).items() if key != "canaries" or value}

    def lines(self) -> list[str]:
        """For the terminal, for someone who has never trained a model."""
        return [*self._file_lines(), *self._removed_lines(), *self._split_lines(), *self._length_lines(),
                *(f"warning: {warning}" for warning in self.warnings)]

    def _file_lines(self) -> list[str]:
        found = []
        for file in self.files:
            found.append(f"{file.part}: {file.file}, {file.about}")
            found += [f"  note: {note}" for note in file.notes]
        for step in self.mended:
            found.append(f"mended by {step['fix']['kind']}: {step['rows_before']:,} rows, then {step['rows_after']:,}")
            found += [f"  {change['what']} ({change['why']})" for change in step["log"]]
        found += [f"mixed in: {sentence}" for sentence in self.mixed]
        if self.canaries:
            found.append(f"canaries: {self.canaries:,} more rows train, each with a random secret, to measure what is "
                         "learnt by heart; they count nowhere below")
        return found

    def _removed_lines(self) -> list[str]:
        sentences = {
            "duplicates": "exact duplicates removed",
            "empty": "pairs that cannot be compared (an empty answer, equal ones, other prompts) dropped"
                     if self.task == "pairs" else "rows without an answer dropped",
            "over_length": "rows that are too long dropped",
            "leaks": "rows removed because the same question is held out to judge the result",
            "made_up": "rows left out because they were made from rows that judge the result, or stand among those",
            "put_together": "rows put together with others that answer the same prompt",
            "not_drawn": "training rows left out, as data.max_train_rows asks",
            "left_out": "rows left out, as data.split.leave_out asks",
        }
        found = [f"{sentences[why]}: {rows}" for why, rows in self.removed.items() if rows.count]
        if self.conflicts.count:
            what = "the same answers judged differently" if self.judged else "the same question with different answers"
            found.append(f"{what}, kept: {self.conflicts}")
        return found

    def _split_lines(self) -> list[str]:
        purpose = {"train": "learns from", "validation": "decides when to stop", "test": "judges the result"}
        found = ["split: " + ", ".join(f"{self.split[part]:,} rows {part} ({why})" for part, why in purpose.items())]
        found += [f"{one.name}: {one.train:,} rows train, {one.validation:,} validation, {one.test:,} test"
                  for one in self.clusters]
        total = Counter[str]()
        for counts in self.labels.values():
            total.update(counts)
        if self.task != "labels":
            liked = f", {total['liked']:,} liked and {total['not liked']:,} not" if total else ""
            return [*found, "judged by: which answer of a pair is preferred" if self.task == "pairs"
                    else f"answers: open text{liked}"]
        shown = [f"{label} {100 * n / total.total():.0f} %" for label, n in total.most_common(SHOWN_LABELS)]
        more = f", and {len(total) - len(shown)} more" if len(total) > len(shown) else ""
        return [*found, f"answers: one of {len(total)} labels: {', '.join(shown)}{more}"]

    def _length_lines(self) -> list[str]:
        found = [f"tokens per {name}: half have at most {x.median:,}, 95 % at most {x.p95:,}, the longest {x.max:,}"
                 for name, x in self.tokens.items()]
        longest = ", ".join(f"{at} ({tokens:,})" for at, tokens in list(self.longest.items())[:SHOWN_LONGEST])
        return [*found, f"longest rows: {longest}",
                f"loss: {self.supervised_percent:.1f} % of all tokens, the answers; questions carry none"]


def token_report(rendered: Sequence[Rendered]) -> dict[str, Any]:
    """The fields of a DataReport that come from tokens; `rendered` is not empty."""
    lengths: dict[str, int] = {}        # of a row, by its longest answer
    for branch in rendered:
        lengths[str(branch.origin)] = max(len(branch), lengths.get(str(branch.origin), 0))
    supervised = sum(r.supervised for r in rendered)
    return {
        "tokens": {"row": Lengths.of(len(r) for r in rendered),
                   "prompt": Lengths.of(len(r) - r.supervised for r in rendered),
                   "answer": Lengths.of(r.supervised for r in rendered)},
        "supervised_percent": 100 * supervised / sum(map(len, rendered)),
        "longest": dict(sorted(lengths.items(), key=lambda entry: -entry[1])[:SHOWN]),
    }


def label_counts(rows: Iterable[Sample]) -> dict[str, int]:
    """Rows of each label, sorted by label."""
    return dict(sorted(Counter(row.answer for row in rows).items()))
