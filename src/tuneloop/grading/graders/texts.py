"""Graders that look at the answer's text alone, or beside the right answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tuneloop.grading.graders.base import Case, Grader, Mark, Means
from tuneloop.grading.graders.programs import called_in_sandbox
from tuneloop.grading.graders.template import MissingError, TemplateText, parse
from tuneloop.grading.sandbox import Limits, Shared

ANSWER = "{{ sample.output_text }}"
_REGEX = """\
import re

def grade(pattern, whole, text):
    found = re.compile(pattern)
    return bool(found.fullmatch(text) if whole else found.search(text))
"""
_REGEX_SECONDS = 2.0


def each(cases: Sequence[Case], score: Callable[[Case], float]) -> list[Mark]:
    """A mark for every case on its own; one whose templates lack a value has its fault."""
    marks = []
    for case in cases:
        try:
            marks.append(Mark(float(score(case))))
        except MissingError as error:
            marks.append(Mark(float("nan"), error.fault))
    return marks


class Exact(Grader):
    """1 where the answer is the right one, with the spaces at the ends aside, else 0."""

    kind: Literal["exact"] = "exact"
    wanted: TemplateText | None = None
    """What the answer should be, such as "{{ item.label }}"; the row's right answer unless given."""
    ignore_case: bool = False

    @property
    def templates(self) -> list[str]:
        return [self.wanted] if self.wanted is not None else []

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        def score(case: Case) -> float:
            wanted = case.reference if self.wanted is None else parse(self.wanted).fill(case)
            return _cased(case.answer, self.ignore_case).strip() == _cased(wanted, self.ignore_case).strip()

        return each(cases, score)


class Contains(Grader):
    """The share of the wanted texts that the answer contains."""

    kind: Literal["contains"] = "contains"
    wanted: Annotated[list[TemplateText], Field(min_length=1)] | None = None
    """Texts, such as ["{{ item.name }}", "kind regards"]; the row's right answer alone unless given."""
    ignore_case: bool = False

    @property
    def templates(self) -> list[str]:
        return self.wanted or []

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        def score(case: Case) -> float:
            texts = [case.reference] if self.wanted is None else [parse(text).fill(case) for text in self.wanted]
            answer = _cased(case.answer, self.ignore_case)
            return sum(_cased(text, self.ignore_case).strip() in answer for text in texts) / len(texts)

        return each(cases, score)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"a regular expression ({error})") from None
    return text


class Regex(Grader):
    """1 where a regular expression of Python matches somewhere in the answer, else 0.

    It is matched in the sandbox, for some patterns take for ever on some texts.
    """

    kind: Literal["regex"] = "regex"
    pattern: Annotated[str, AfterValidator(_pattern)]
    whole: bool = False
    """Whether all of the answer must match."""

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return called_in_sandbox(Shared(_REGEX, "regex"), [[self.pattern, self.whole, case.answer] for case in cases],
                                 Limits(seconds=_REGEX_SECONDS))


class Length(Grader):
    """1 where the answer's length is in a band, else 0; with `fade` it falls to 0 evenly over so many units."""

    kind: Literal["length"] = "length"
    low: Annotated[int, Field(ge=0)] = 0
    high: Annotated[int, Field(ge=0)] | None = None
    """No end unless given."""
    unit: Literal["words", "characters"] = "words"
    """Words are runs of anything but white space."""
    fade: Annotated[float, Field(ge=0)] = 0
    """How far outside of the band an answer is worth nothing."""

    @model_validator(mode="after")
    def _is_a_band(self) -> Length:
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high of at least low, which is {self.low}")
        return self

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        def score(case: Case) -> float:
            length = len(case.answer.split()) if self.unit == "words" else len(case.answer)
            outside = max(self.low - length, 0 if self.high is None else length - self.high, 0)
            return max(0.0, 1 - outside / self.fade) if self.fade else float(not outside)

        return each(cases, score)


class StringCheck(Grader):
    """The hosted `string_check`: 1 where `input` is (eq), is not (ne) or contains (like, ilike) `reference`, else 0."""

    type: Literal["string_check"] = "string_check"
    name: str
    input: TemplateText
    reference: TemplateText
    operation: Literal["eq", "ne", "like", "ilike"]

    @property
    def templates(self) -> list[str]:
        return [self.input, self.reference]

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        def score(case: Case) -> float:
            text, reference = parse(self.input).fill(case), parse(self.reference).fill(case)
            match self.operation:
                case "eq":
                    return text == reference
                case "ne":
                    return text != reference
                case "like":
                    return reference in text
                case "ilike":
                    return reference.casefold() in text.casefold()

        return each(cases, score)


def _cased(text: str, ignore: bool) -> str:
    return text.casefold() if ignore else text
