"""What a person is asked, one item at a time: which of two answers is better, how several rank, how good one is.

What was said names answers by their ids and not by their places, so that it does not depend on how they were shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from typing import Any, Literal, get_args

from tuneloop.errors import UserError
from tuneloop.people.questions import Question, digest

Ask = Literal["compare", "order", "thumbs", "stars"]
ASKS: tuple[Ask, ...] = get_args(Ask)
SINGLE: tuple[Ask, ...] = ("thumbs", "stars")
MOST_ORDERED = 9            # each has a key
AGAIN, NONSENSE = "~again", "~nonsense"     # ends of the ids of items that test attention
NONSENSE_ANSWER = "nonsense"                # the id of an answer that is none
STARS = 5
Relation = Literal["first", "second", "tie", "bad"]


@dataclass(frozen=True)
class Item:
    """One thing to judge: answers (by their ids) to a question."""

    id: str
    ask: Ask
    question: str
    answers: tuple[str, ...]

    @property
    def check(self) -> str:
        """What of attention it tests; nothing where it is no test."""
        return check_of(self.id)


def check_of(item: str) -> str:
    """What of attention the item of this id tests; nothing where it is no test."""
    return next((end for end in (AGAIN, NONSENSE) if item.endswith(end)), "")


@dataclass(frozen=True)
class Verdict:
    """What somebody said of an item. Comparing: `groups` of equally good answers, the best first, and those that are
    `bad`. Rating: `liked`, or `stars` from 1 to 5.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    bad: frozenset[str] = field(default_factory=frozenset)
    liked: bool | None = None
    stars: int | None = None

    def to_json(self) -> dict[str, Any]:
        if self.liked is not None:
            return {"liked": self.liked}
        if self.stars is not None:
            return {"stars": self.stars}
        return {"groups": [list(group) for group in self.groups], "bad": sorted(self.bad)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Verdict:
        return cls(tuple(tuple(group) for group in value.get("groups", ())), frozenset(value.get("bad", ())),
                   value.get("liked"), value.get("stars"))

    @property
    def ranks(self) -> dict[str, int]:
        """The place of each answer that was compared, 0 for the best."""
        return {answer: place for place, group in enumerate(self.groups) for answer in group}

    def relation(self, first: str, second: str) -> Relation:
        """How two answers that were compared stand to each other."""
        if {first, second} <= self.bad:
            return "bad"
        ranks = self.ranks
        return "tie" if ranks[first] == ranks[second] else "first" if ranks[first] < ranks[second] else "second"

    def place(self, shown: Sequence[str]) -> str:
        """What a hand has pressed, whatever stood there: the place of the one best answer, tie, bad, or the rating."""
        if self.liked is not None:
            return "liked" if self.liked else "disliked"
        if self.stars is not None:
            return str(self.stars)
        if set(shown) <= self.bad:
            return "bad"
        best = self.groups[0]
        return str(shown.index(best[0])) if len(best) == 1 else "tie"


def better(answers: Sequence[str], best: int) -> Verdict:
    """One answer is better than the others, which are alike."""
    others = tuple(answer for place, answer in enumerate(answers) if place != best)
    return Verdict(((answers[best],), others))


def equal(answers: Sequence[str], *, bad: bool = False) -> Verdict:
    """All are equally good, or all are bad."""
    return Verdict((tuple(answers),), frozenset(answers) if bad else frozenset())


# --- which items there are -------------------------------------------------------------------------------------------


def items_of(questions: Sequence[Question], ask: Ask, per_prompt: int | None = None) -> list[Item]:
    """Everything that can be asked of these questions: first one item of each, then a second, so that whoever stops
    early has seen all prompts. Of answers that are compared in pairs `per_prompt` pairs of each prompt, all unless
    given. Raises a UserError where there is nothing to ask.
    """
    if ask == "order" and (long := [q for q in questions if len(q.answers) > MOST_ORDERED]):
        raise UserError(f"{long[0].origin}: {len(long[0].answers)} answers are too many to put in order.",
                        wanted=f"at most {MOST_ORDERED}", fix="--ask compare")
    rounds = zip_longest(*(_of_one(question, ask, per_prompt) for question in _mixed(questions)))
    found = [item for one in rounds for item in one if item is not None]
    if not found:
        few = "two different answers" if ask not in SINGLE else "an answer"
        raise UserError(f"No prompt of {questions[0].origin.file} has {few}, so there is nothing to judge.",
                        fix="collect more: `tuneloop collect --n 4 --temperature 1.0`" + (
                            "; or rate single answers with --ask thumbs" if ask not in SINGLE else ""))
    return found


def _mixed(questions: Sequence[Question]) -> list[Question]:
    """In an order that has nothing to do with that of the file: files are often sorted."""
    return sorted(questions, key=lambda question: question.id)


def _of_one(question: Question, ask: Ask, per_prompt: int | None) -> list[Item]:
    answers = sorted(question.answers)      # by hashes: at random
    if ask in SINGLE:
        return [item_of(question.id, ask, (answer,)) for answer in answers]
    if len(answers) < 2:
        return []
    if ask == "order":
        return [item_of(question.id, ask, answers)]
    return [item_of(question.id, ask, pair) for pair in pairs_of(answers)[:per_prompt]]


def item_of(question: str, ask: Ask, answers: Sequence[str]) -> Item:
    """The item about these answers, whatever their order."""
    return Item(digest(question, ask, sorted(answers)), ask, question, tuple(answers))


def pairs_of(answers: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of n answers; the first n of them go round, so that each answer is in two."""
    n = len(answers)
    by_distance = sorted(combinations(range(n), 2), key=lambda pair: min(pair[1] - pair[0], n - pair[1] + pair[0]))
    return [(answers[i], answers[j]) for i, j in by_distance]
