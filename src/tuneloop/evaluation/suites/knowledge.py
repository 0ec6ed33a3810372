"""What the model knew before: general knowledge by multiple choice."""

from __future__ import annotations

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import choice, choose, pick, rows
from tuneloop.inference.backend import Backend, Progress


class Knowledge:
    """Short questions of science, geography, history, language, everyday life and arithmetic, with four options.

    The options are not shown: each is scored as the answer to the question, so that no letter is preferred for its
    place.
    """

    name = "knowledge"
    title = "general knowledge"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        items = [choice(row) for row in rows(self.name)]
        return choose(backend, pick(items, limit), progress)
