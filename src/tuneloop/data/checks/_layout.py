"""How answers are laid out, which a model learns to imitate: the few that are unlike the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tuneloop.data.checks._places import in_order
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, excerpt, rows_that
from tuneloop.data.findings import Finding, Places
from tuneloop.types import Origin

FEWEST = 10             # answers, below which nothing is usual
MOST = 0.9              # of the answers are of one form before the others count as odd
OFTEN = 0.5             # of all answers must have an aspect before it is told
SHORT = 60              # characters of an answer whose end and first letter are looked at
_LIST = re.compile(r"^[ \t]*(?:[-*•–]|\d{1,2}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} \S|^\*\*[^*\n]+\*\*:?\s*$", re.MULTILINE)
_LEAD_IN = re.compile(r"\**(?:the )?(?:final |correct )?(?:answer|output|response|result|label|assistant|ai|bot)"
                      r"(?: is)?\s*:\**\s*\S", re.IGNORECASE)
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
_WITH_UNIT = re.compile(rf"[$€£¥]\s?{_NUMBER}|{_NUMBER}\s?(?:%|[a-zA-Zµ°]{{1,8}})")
_CLOSED = tuple(".!?。！？…")

_TOLD = {
    ("layout", "code"): "have an answer with a code block",
    ("layout", "list"): "have an answer with a list",
    ("layout", "headings"): "have an answer with headings",
    ("layout", "paragraphs"): "have an answer of several lines",
    ("layout", "one_line"): "have an answer of a single line",
    ("lead_in", "with"): "have an answer that begins with words such as “Answer:”",
    ("lead_in", "without"): "have an answer without words such as “Answer:” at its beginning",
    ("end", "closed"): "have a short answer with a full stop or the like at its end",
    ("end", "open"): "have a short answer without a full stop or the like at its end",
    ("capital", "large"): "have a short answer that begins with a capital letter",
    ("capital", "small"): "have a short answer that begins with a small letter",
    ("number", "bare"): "have a bare number for an answer",
    ("number", "unit"): "have an answer with a unit beside its number",
    ("number", "thousands"): "have an answer with commas in its number",
}
_SPELLING = ("end", "capital")      # aspects in which labels differ by their spelling


class Form(NamedTuple):
    """The form of an answer. An aspect that makes no sense for the answer is empty."""

    layout: str
    lead_in: str = ""
    end: str = ""
    capital: str = ""
    number: str = ""


def form_of(answer: str) -> Form:
    """The form of an answer that is no JSON."""
    text = answer.strip()
    lead_in = "with" if _LEAD_IN.match(text) else "without"
    number = _number(text)
    if number or len(text) > SHORT or "\n" in text:
        return Form(_layout(text), lead_in, number=number)
    first = next((letter for letter in text if letter.isalnum()), "")
    capital = ("large" if first.isupper() else "small") if first.upper() != first.lower() else ""
    return Form(_layout(text), lead_in, "closed" if text.endswith(_CLOSED) else "open", capital)


def _layout(text: str) -> str:
    if "```" in text:
        return "code"
    if "\n" not in text:
        return "one_line"
    if len(_LIST.findall(text)) > 1:
        return "list"
    return "headings" if _HEADING.search(text) else "paragraphs"


def _number(text: str) -> str:
    if len(text) > SHORT or not any(map(str.isdigit, text[:4])):
        return ""
    if re.fullmatch(_NUMBER, text):
        return "thousands" if "," in text else "bare"
    return "unit" if _WITH_UNIT.fullmatch(text) else ""


class Layouts:
    """Rows by the form of their answer."""

    def __init__(self) -> None:
        self.rows = 0
        self._forms: defaultdict[Form, Places] = defaultdict(Places)
        self._examples: dict[Form, str] = {}

    def add(self, origin: Origin, answer: str) -> None:
        form = form_of(answer)
        self.rows += 1
        self._forms[form].add(origin)
        if form not in self._examples:
            self._examples[form] = excerpt(answer)

    @property
    def all(self) -> Places:
        return in_order(self._forms.values())

    def shown(self, aspect: str = "", value: str = "") -> list[str]:
        """Answers of several forms, or of those that have the aspect."""
        return list(islice((example for form, example in self._examples.items()
                            if not aspect or getattr(form, aspect) == value), SHOWN_EXAMPLES))

    def findings(self, are_labels: bool) -> Iterator[Finding]:
        for aspect in Form._fields:
            if not (are_labels and aspect in _SPELLING):
                yield from self._odd(aspect)

    def _odd(self, aspect: str) -> Iterator[Finding]:
        camps: defaultdict[str, list[Places]] = defaultdict(list)
        for form, rows in self._forms.items():
            camps[getattr(form, aspect)].append(rows)
        camps.pop("", None)
        sizes = {value: sum(map(len, places)) for value, places in camps.items()}
        total = sum(sizes.values())
        if total < max(FEWEST, OFTEN * self.rows) or max(sizes.values()) < MOST * total:
            return
        usual = max(sizes, key=sizes.__getitem__)
        for value in sorted(camps.keys() - {usual}):
            rows = in_order(camps[value])
            yield Finding("consistency", "fix" if aspect == "lead_in" else "note",
                          f"{rows_that(rows, _TOLD[aspect, value])}, unlike the others", "write these answers as the "
                          "others are written, or say in the prompt which form is wanted", rows,
                          self.shown(aspect, value), f"{aspect}_{value}")
