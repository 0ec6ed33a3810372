"""Content filters: may a text go into a model, or out of it? Serving asks them for every request and answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Protocol

from tuneloop.data.checks._toxic import toxic_words
from tuneloop.data.personal.find import KINDS, Kind
from tuneloop.errors import UserError
from tuneloop.evaluation.safety.personal import kinds_in

Where = Literal["input", "output"]
BOTH: tuple[Where, ...] = ("input", "output")


class Verdict(NamedTuple):
    """Whether a text may pass, and if not why: in words that can be logged, without the text itself."""

    allowed: bool
    why: str = ""


class Filter(Protocol):
    """Anything that judges a text; a plain function will do."""

    def __call__(self, text: str, where: Where) -> Verdict:
        """`where` tells what a user wrote from what a model wrote."""
        ...


class Words:
    """Stops texts with one of the words, whole and in any case; without words those of the toxic list."""

    def __init__(self, words: Sequence[str] | None = None, at: Collection[Where] = BOTH) -> None:
        self._pattern, self._at = None, at
        if words is not None:
            given = sorted({word.strip() for word in words} - {""}, key=len, reverse=True)
            if not given:
                raise UserError("The word list of the content filter is empty.", fix="give a word, or leave it out")
            self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, given))})(?!\w)", re.IGNORECASE)

    def __call__(self, text: str, where: Where) -> Verdict:
        if where not in self._at:
            return Verdict(True)
        found = self._pattern.search(text) if self._pattern else next(toxic_words(text), None)
        return Verdict(False, "a word of the list") if found else Verdict(True)


class Personal:
    """Stops texts with personal data or secrets of the given kinds; all of them unless given."""

    def __init__(self, kinds: Collection[Kind] = tuple(KINDS), at: Collection[Where] = BOTH) -> None:
        if unknown := set(kinds) - set(KINDS):
            raise UserError(f"No kind of personal data is called {sorted(unknown)[0]}.", wanted=", ".join(KINDS))
        self._kinds, self._at = kinds, at

    def __call__(self, text: str, where: Where) -> Verdict:
        if where not in self._at:
            return Verdict(True)
        found = [KINDS[kind] for kind in KINDS if kind in self._kinds and kind in kinds_in(text)]
        return Verdict(False, ", ".join(found)) if found else Verdict(True)


class Together:
    """Lets pass what every filter lets pass; the first that does not says why."""

    def __init__(self, *filters: Filter) -> None:
        self._filters = filters

    def __call__(self, text: str, where: Where) -> Verdict:
        verdicts = (one(text, where) for one in self._filters)
        return next((verdict for verdict in verdicts if not verdict.allowed), Verdict(True))
