"""One person at work: what is shown next, what a key means, and what is kept of it. Knows no page and no terminal.

What comes next follows from what is in the store alone, so that a killed process goes on where it stopped. Every
`1 / checks`th item tests attention: an item from before with its answers in reverse, or an answer beside nonsense.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from tuneloop.errors import UserError
from tuneloop.people.items import AGAIN, NONSENSE, NONSENSE_ANSWER, SINGLE, Ask, Item, Verdict, better, equal
from tuneloop.people.questions import Question, digest
from tuneloop.people.store import Judgements, Said

LEAST_SECONDS = 0.25        # nobody reads faster: a key that was pressed twice
GAP, AGO = 5, 60            # judgements between an item and its repetition, at least and at most
LONGEST_NAME = 60
WORDS_OF_NONSENSE = 12
SYLLABLES = ("bra", "lo", "ten", "ki", "su", "mar", "fe", "gu", "dil", "no", "pra", "ve")


@dataclass(frozen=True)
class Work:
    """What there is to judge, and how the people share it."""

    questions: dict[str, Question]
    items: Sequence[Item]
    ask: Ask
    checks: float = 0.1         # tests of attention for each item
    shared: float = 1.0         # of the items everybody judges; one person judges each of the others
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.checks <= 0.5:
            raise UserError(f"--checks is {self.checks}.", wanted="0 (none) to 0.5 tests of attention for each item")
        if not 0 <= self.shared <= 1:
            raise UserError(f"--shared is {self.shared}.", wanted="the share of items that everybody judges, 0 to 1")

    @property
    def in_common(self) -> int:
        """How many of the items, the first ones, everybody judges."""
        return ceil(self.shared * len(self.items))

    def text(self, question: str, answer: str) -> str:
        """What an answer says."""
        return nonsense(question) if answer == NONSENSE_ANSWER else self.questions[question].answers[answer]

    def holds(self, said: Said) -> bool:
        """Whether the file still holds what was judged."""
        question = self.questions.get(said.question)
        return question is not None and all(answer == NONSENSE_ANSWER or answer in question.answers
                                            for answer in said.shown)


def nonsense(question: str) -> str:
    """An answer that nobody who reads it takes for one; each question has its own."""
    digits = [int(digit, 16) for part in range(3) for digit in digest(question, part)]
    words = ["".join(SYLLABLES[(digits[i] + j * digits[i + 1]) % len(SYLLABLES)] for j in range(1 + digits[i] % 3))
             for i in range(0, 2 * WORDS_OF_NONSENSE, 2)]
    return " ".join(words).capitalize() + "."


@dataclass(frozen=True)
class Showing:
    """An item as somebody sees it: `answers` are ids, from the left. Its nonce is that of no other showing."""

    item: Item
    answers: tuple[str, ...]
    nonce: str
    began: float
    texts: tuple[str, ...]      # of the answers


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    later: int          # put off


class Desk:
    """One annotator's place. Several desks may share a store, and so may desks of several processes."""

    def __init__(self, work: Work, store: Judgements, annotator: str, *, clock: Callable[[], float] = time.monotonic,
                 least_seconds: float = LEAST_SECONDS, saved: Callable[[], object] = lambda: None) -> None:
        """`saved` is called whenever something was kept or taken back. Raises a UserError for what is no name, or a
        model's.
        """
        self.work, self.store, self.annotator = work, store, checked_name(annotator)
        self._clock, self._least, self._saved = clock, least_seconds, saved
        self._later: list[Item] = []
        self._declined = 0          # tests of attention that were put off
        common, rest = work.items[:work.in_common], work.items[work.in_common:]
        self._common = frozenset(item.id for item in common)
        self._order = [*common, *sorted(rest, key=lambda item: digest(self.annotator, item.id))]
        self._at = 0
        store.look()
        if self.annotator in store.annotators("model"):
            raise UserError(f"{self.annotator!r} is the name of a model that judged here.", fix="choose another name")
        self._gone = sum(said.kind == "verdict" and not said.check and not work.holds(said)
                         for said in store.standing(self.annotator))
        self.showing: Showing | None = None
        self.next()

    # --- what is shown ---

    def next(self) -> Showing | None:
        """Show what comes next; None where everything is done."""
        self.store.look()
        item = self._check_due() or self._next_item()
        self.showing = None if item is None else self._shown(item)
        return self.showing

    def _next_item(self) -> Item | None:
        while self._at < len(self._order):
            item = self._order[self._at]
            if self._is_open(item) and item not in self._later:
                return item
            self._at += 1
        self._later = [item for item in self._later if self._is_open(item)]
        return self._later[0] if self._later else None

    def _is_open(self, item: Item) -> bool:
        if self.store.has_judged(self.annotator, item.id):
            return False
        return item.id in self._common or not any(self.store.has_judged(other, item.id)
                                                  for other in self.store.annotators("person"))

    def _check_due(self) -> Item | None:
        """A test of attention, where it is time for one and one can be made."""
        real, made = self.store.counts(self.annotator, self.work.ask)
        made += self._declined
        if made >= int(real * self.work.checks):
            return None
        first, second = (self._again, self._nonsense) if made % 2 else (self._nonsense, self._again)
        return first() or second()

    def _again(self) -> Item | None:
        """Something judged a while ago, to be shown in reverse."""
        real = [said for said in self.store.history(self.annotator)[-AGO:]
                if said.kind == "verdict" and said.ask == self.work.ask and not said.check]
        fits = [said for said in real[:-GAP] if self.work.holds(said)
                and not self.store.has_judged(self.annotator, said.item + AGAIN)]
        if not fits:
            return None
        said = min(fits, key=lambda one: digest(self.annotator, self.work.seed, one.item))
        return Item(said.item + AGAIN, said.ask, said.question, said.shown[::-1])

    def _nonsense(self) -> Item | None:
        """An answer beside one that is none."""
        if self.work.ask == "order":
            return None
        start = int(digest(self.annotator, self.work.seed, *self.store.counts(self.annotator, self.work.ask)), 16)
        for i in range(GAP):
            item = self.work.items[(start + i) % len(self.work.items)]
            if not self.store.has_judged(self.annotator, item.id + NONSENSE):
                beside = () if self.work.ask in SINGLE else item.answers[:1]
                return Item(item.id + NONSENSE, item.ask, item.question, (*beside, NONSENSE_ANSWER))
        return None

    def _shown(self, item: Item, order: tuple[str, ...] = ()) -> Showing:
        """Answers in an order that follows from who looks at what; of a repetition in the one it asks for."""
        if not order:
            order = item.answers if item.check == AGAIN else tuple(sorted(
                item.answers, key=lambda answer: digest(self.annotator, self.work.seed, item.id, answer)))
        return Showing(item, order, uuid.uuid4().hex, self._clock(),
                       tuple(self.work.text(item.question, answer) for answer in order))

    # --- what is said ---

    def judge(self, nonce: str, verdict: Verdict, comment: str = "") -> bool:
        """Keep a verdict and show the next item. False, and nothing is kept, for a showing that is over, and for an
        answer sooner than anybody reads.
        """
        showing = self.showing
        if showing is None or showing.nonce != nonce:
            return False
        seconds = self._clock() - showing.began
        if seconds < self._least:
            return False
        kept = self.store.add(Said(
            showing.item.id, self.annotator, nonce, showing.item.ask, showing.item.question, showing.answers,
            verdict.to_json(), comment=comment.strip(), seconds=round(seconds, 3)))
        self._later = [item for item in self._later if item.id != showing.item.id]
        self.next()
        self._saved()
        return kept

    def draft(self, place: int) -> str:
        """An answer as this person last edited it, or as it is."""
        if self.showing is None:
            return ""
        mine = self.store.last(self.annotator, self.showing.item.id, "edit", self.showing.answers[place])
        return str(mine.value["text"]) if mine else self.showing.texts[place]

    def edit(self, place: int, text: str) -> bool:
        """Keep an answer as it should have been. The item stays to be judged. False where nothing is kept: the text is
        empty or as it was, or the answer is no real one.
        """
        showing, text = self.showing, text.strip()
        if showing is None or not text or text == self.draft(place).strip():
            return False
        answer = showing.answers[place]
        if answer == NONSENSE_ANSWER:
            return False
        kept = self.store.add(Said(
            showing.item.id, self.annotator, digest(showing.nonce, answer, text), showing.item.ask,
            showing.item.question, showing.answers, {"answer": answer, "text": text}, "edit"))
        self.store.look()
        return kept

    def skip(self) -> None:
        """Put the item off until the others are done."""
        if self.showing is None:
            return
        item = self.showing.item
        if item.check:
            self._declined += 1
        else:
            self._later = [one for one in self._later if one != item] + [item]
        self.next()

    def undo(self) -> Said | None:
        """Take back what was said last, and show that item again as it was; None where there is nothing."""
        self.store.look()
        history = [said for said in self.store.history(self.annotator) if self.work.holds(said)]
        if not history:
            return None
        said = history[-1]
        self.store.undo(said, uuid.uuid4().hex)
        self.store.look()
        if said.kind == "verdict":
            self._at = 0
            self.showing = self._shown(said.as_item, said.shown)
        self._saved()
        return said

    def progress(self) -> Progress:
        done = self.store.counts(self.annotator, self.work.ask)[0] - self._gone
        if self.work.shared == 1:
            return Progress(done, max(done, len(self.work.items)), len(self._later))
        return Progress(done, done + sum(map(self._is_open, self.work.items)), len(self._later))


def checked_name(annotator: str) -> str:
    """Raises a UserError for what is no name."""
    name = " ".join(annotator.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError(f"{annotator[:LONGEST_NAME]!r} is no name of an annotator.",
                        wanted=f"1 to {LONGEST_NAME} characters, such as a first name or initials")
    return name


# --- keys ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key that judges at once, and what its button says."""

    keys: tuple[str, ...]       # as a browser names them; the first is shown
    label: str
    icon: str
    verdict: Callable[[Sequence[str]], Verdict]


def _rated(stars: int) -> Callable[[Sequence[str]], Verdict]:
    return lambda shown: Verdict(stars=stars)


KEYS: dict[Ask, tuple[Key, ...]] = {
    "compare": (
        Key(("1", "ArrowLeft"), "1 is better", "west", lambda shown: better(shown, 0)),
        Key(("t", "="), "Tie", "drag_handle", equal),
        Key(("b",), "Both bad", "thumb_down_off_alt", lambda shown: equal(shown, bad=True)),
        Key(("2", "ArrowRight"), "2 is better", "east", lambda shown: better(shown, 1))),
    "order": (
        Key(("t", "="), "All alike", "drag_handle", equal),
        Key(("b",), "All bad", "thumb_down_off_alt", lambda shown: equal(shown, bad=True))),
    "thumbs": (
        Key(("1", "+"), "Good", "thumb_up", lambda shown: Verdict(liked=True)),
        Key(("2", "-"), "Bad", "thumb_down", lambda shown: Verdict(liked=False))),
    "stars": tuple(Key((str(n),), f"{n} {label}", "star", _rated(n))
                   for n, label in enumerate(("useless", "poor", "fair", "good", "ideal"), 1)),
}


@dataclass(frozen=True)
class Ranking:
    """An order that is being typed: places of answers, the best first; `same` joins the next one to the last."""

    groups: tuple[tuple[int, ...], ...] = ()
    same: bool = False

    def press(self, key: str, count: int) -> Ranking:
        """After a digit, `=` for as good as the last, or Backspace; any other key changes nothing."""
        taken = [place for group in self.groups for place in group]
        if key == "Backspace":
            return self._without_last()
        if key in ("=", "t"):
            return replace(self, same=bool(self.groups) and not self.same)
        if not key.isdecimal() or not 1 <= int(key) <= count or int(key) - 1 in taken:
            return self
        place = int(key) - 1
        if self.same:
            return Ranking((*self.groups[:-1], (*self.groups[-1], place)))
        return Ranking((*self.groups, (place,)))

    def _without_last(self) -> Ranking:
        if self.same or not self.groups:
            return replace(self, same=False)
        *before, last = self.groups
        return Ranking((*before, last[:-1]) if len(last) > 1 else tuple(before))

    def complete(self, count: int) -> Ranking:
        """With the one answer that is left behind the others."""
        taken = {place for group in self.groups for place in group}
        left = [place for place in range(count) if place not in taken]
        return Ranking((*self.groups, (left[0],))) if len(left) == 1 and taken else self

    def verdict(self, shown: Sequence[str]) -> Verdict | None:
        """None until every answer has its place."""
        whole = self.complete(len(shown))
        if sum(map(len, whole.groups)) < len(shown):
            return None
        return Verdict(tuple(tuple(shown[place] for place in group) for group in whole.groups))

    def place_of(self, answer: int) -> int | None:
        """1 for the best; None where it has none yet."""
        return next((place for place, group in enumerate(self.groups, 1) if answer in group), None)


def key_of(ask: Ask, pressed: str) -> Key | None:
    """The key that judges at once, if one of these was pressed."""
    return next((key for key in KEYS[ask] if pressed in key.keys or pressed.lower() in key.keys), None)
