"""Whether the answers of rows are labels, told while the rows stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tuneloop.data.labels.spelling import usual_spellings
from tuneloop.data.template import LONGEST_LABEL, MOST_LABELS, ROWS_PER_LABEL
from tuneloop.types import Conversation, Sample

MOST_SPELLINGS = 2_000      # different answers, from which on they are no labels
COVERED = 0.9               # of the rows, by labels that occur more than once


def label_of(sample: Sample) -> str | None:
    """The answer of a row that may be labelled: one that is learnt from a single answer, which calls nothing."""
    if not isinstance(sample, Conversation) or sample.messages[-1].calls:
        return None
    if len(sample.messages) > 2 and any(m.role == "assistant" and m.train for m in sample.messages[:-1]):
        return None
    return sample.answer.strip()


class LabelCounts:
    """Counts answers as long as they may be labels.

    They are labels as `template.are_labels` says, but for odd ones among them: spellings count as one label, and one
    row in ten may have an answer of its own.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.may_be_labels = True

    def add(self, answers: Iterable[str | None]) -> bool:
        """Whether they may still be labels; None stands for a row that cannot be labelled."""
        if self.may_be_labels:
            found = list(answers)
            self.rows += len(found)
            self.counts.update(answer for answer in found if answer is not None)
            self.may_be_labels = len(self.counts) <= MOST_SPELLINGS
        if not self.may_be_labels:
            self.counts.clear()
        return self.may_be_labels

    @property
    def are_labels(self) -> bool:
        labels = self.labels
        return (1 < len(labels) <= MOST_LABELS and self.rows >= ROWS_PER_LABEL * len(labels)
                and sum(labels.values()) >= COVERED * self.rows)

    @property
    def labels(self) -> dict[str, int]:
        """Rows of each label that is short and occurs more than once, under its usual spelling."""
        usual = usual_spellings(self.counts)
        alike: Counter[str] = Counter()
        for answer, count in self.counts.items():
            if len(answer) <= LONGEST_LABEL and "\n" not in answer:
                alike[usual.get(answer, answer)] += count
        return {label: count for label, count in alike.items() if count > 1}
