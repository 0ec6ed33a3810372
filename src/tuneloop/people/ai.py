"""A model as a second source of judgements: kept beside those of people, marked as a model's, and never mixed with them
unless asked for. Every pair is shown in both orders, and a win counts only where both agree (`grading.judge`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.grading.judge import Judge, asked
from tuneloop.people.desk import Work, checked_name
from tuneloop.people.items import Item, Verdict, better, equal
from tuneloop.people.questions import digest
from tuneloop.people.store import Judgements, Said

if TYPE_CHECKING:
    from tuneloop.inference.backend import Progress


@dataclass(frozen=True)
class ByModel:
    """What came of it."""

    judge: str
    judged: int             # now
    before: int             # known from before
    unreadable: int         # items whose reply gave no clear verdict
    place_decided: float    # of the pairs read in both orders the share in which the place won; nan for none

    def to_json(self) -> dict[str, Any]:
        place = None if math.isnan(self.place_decided) else self.place_decided
        return asdict(self) | {"place_decided": place}

    def lines(self) -> list[str]:
        """For the terminal."""
        found = [f"{self.judge} (a model) judged {self.judged:,} items" + (
            f", and {self.before:,} before" if self.before else "")]
        found += [f"{self.unreadable:,} of its replies gave no clear verdict, and are left out"] * bool(self.unreadable)
        if not math.isnan(self.place_decided):
            found.append(f"In {self.place_decided:.0%} of the pairs it followed the place and not the answer; they "
                         "count as ties")
        return found


def judge_all(work: Work, store: Judgements, judge: Judge, progress: Progress | None = None) -> ByModel:
    """Have a model judge everything that it has not judged. Raises a UserError for what no model is asked."""
    name = checked_name(f"{judge.backend.name}")
    store.look()
    if name in store.annotators("person"):
        raise UserError(f"Somebody called {name!r} judged here, and the model has that name too.",
                        fix="serve the model under another name")
    left = [item for item in work.items if not store.has_judged(name, item.id)]
    prompts = [asked(work.questions[item.question].prompt) for item in left]
    if work.ask == "compare":
        texts = [[work.text(item.question, answer) for answer in item.answers] for item in left]
        found = judge.compare(prompts, [a for a, _ in texts], [b for _, b in texts], progress=progress)
        verdicts = [_compared(item, winner) for item, winner in zip(left, found.winners, strict=True)]
        by_place = found.position_bias
    elif work.ask == "stars":
        grades = judge.grade(prompts, [work.text(item.question, item.answers[0]) for item in left], progress=progress)
        verdicts = [None if grade is None else Verdict(stars=grade) for grade in grades.grades]
        by_place = math.nan
    else:
        raise UserError(f"A model is not asked for {work.ask}.", fix="--ask compare or --ask stars")
    kept = _keep(store, name, judge, left, verdicts)
    return ByModel(name, kept, len(work.items) - len(left), verdicts.count(None), by_place)


def _compared(item: Item, winner: str | None) -> Verdict | None:
    if winner is None:
        return None
    return equal(item.answers) if winner == "tie" else better(item.answers, ("first", "second").index(winner))


def _keep(store: Judgements, name: str, judge: Judge, items: Sequence[Item],
          verdicts: Sequence[Verdict | None]) -> int:
    nonce = digest(judge.backend.identity, judge.rubric)
    return sum(store.add(Said(item.id, name, nonce, item.ask, item.question, item.answers, verdict.to_json(),
                              source="model")) for item, verdict in zip(items, verdicts, strict=True) if verdict)
