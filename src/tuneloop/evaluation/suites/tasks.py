"""Small tasks that the user's data do not hold, with and without examples: does the model still learn from a prompt?"""

from __future__ import annotations

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import Choice, choice, choose, pick, rows
from tuneloop.inference.backend import Backend, Progress
from tuneloop.types import Message

SHOTS = (0, 5)


class Tasks:
    """Sentiment, topic, odd one out, plural, rhyme, unit conversion and opposite, each at 0 and at 5 shots.

    The shots are turns before the question, always the same, and never one of the questions.
    """

    name = "tasks"
    title = "unseen small tasks, without and with examples"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        return choose(backend, pick(_items(), limit), progress)


def _items() -> list[Choice]:
    """Every question twice: its id tells the shots after a #, since both ask the same and are one for an interval."""
    examples: dict[str, tuple[Message, ...]] = {}
    for row in rows("tasks"):
        if row["use"] == "example":
            turns = Message("user", row["question"]), Message("assistant", row["choices"][row["answer"]])
            examples[row["part"]] = (*examples.get(row["part"], ()), *turns)
    tests = [row for row in rows("tasks") if row["use"] == "test"]
    return [choice(row | {"id": f"{row['id']}#{shots}"}, part=f"{row['part']}, {shots} shots",
                   before=examples[row["part"]][:2 * shots])
            for shots in SHOTS for row in tests]
