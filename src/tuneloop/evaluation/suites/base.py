"""A suite asks a model questions that do not depend on the user's data, and grades each answer in [0, 1].

The same items are asked before and after training, so that the difference is paired. To add a suite: one file with a
class that has `name`, `title` and `run`, and its line in SUITES.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuneloop.inference.backend import Backend, Progress


@dataclass(frozen=True, slots=True)
class Graded:
    """One item of a suite as one model answered it."""

    id: str             # the same for every model
    part: str           # of the suite: a kind of item, reported apart
    score: float        # in [0, 1], 1 is good; nan where the answer could not be graded (counted, and left out)
    answer: str         # what the model said or chose, for the auditor
    why: str = ""       # what the grader saw, where that is not plain


class Suite(Protocol):
    """Questions with a grader."""

    @property
    def name(self) -> str:
        """As recipes and reports name it."""
        ...

    @property
    def title(self) -> str:
        """What it measures, in a few words for a manager."""
        ...

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> Sequence[Graded]:
        """Every item, or `limit` of them: the same for every model, evenly over the parts."""
        ...
