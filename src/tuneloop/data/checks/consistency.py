"""Answers unlike the others in form: spellings of a label, keys of JSON, layout."""

from __future__ import annotations

from typing import ClassVar

from tuneloop.data.checks import base
from tuneloop.data.checks._json_answers import JsonAnswers, is_json_like
from tuneloop.data.checks._layout import FEWEST, MOST, Layouts
from tuneloop.data.checks._spellings import Spellings
from tuneloop.data.checks._tally import is_learnt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Prompt, Rated, Sample, Text

MANY = 0.5              # of the answers are JSON, before objects are compared


class Check(base.Check):
    """What most answers are like is what the others are compared with; the few are named."""

    about: ClassVar[str] = ("answers unlike the others in form: spellings of labels, keys of JSON, layout, “Answer:” "
                            "before some, full stops, units")

    def __init__(self) -> None:
        self._spellings, self._layouts, self._json = Spellings(), Layouts(), JsonAnswers()

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._spellings.add(chunk)
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            if _is_said(sample):
                (self._json if is_json_like(sample.answer) else self._layouts).add(origin, sample.answer)

    def findings(self) -> list[Finding]:
        found = list(self._spellings.findings())
        are_json, others = self._json.parsed, self._layouts.rows
        rows = are_json + len(self._json.broken) + others
        if are_json >= max(FEWEST, MANY * rows):
            found += self._json.findings()
            if 0 < others <= (1 - MOST) * rows:
                places = self._layouts.all
                found.append(Finding("consistency", "fix", rows_that(places, "have an answer that is no JSON, unlike "
                                     "the others"), "write these answers as JSON, or drop them: tuneloop data fix FILE "
                                     "drop checks=consistency kinds=no_json", places, self._layouts.shown(), "no_json"))
        else:
            found += self._layouts.findings(self._spellings.are_labels)
        return found


def _is_said(sample: Sample) -> bool:
    """Whether the row holds an answer that a model is to imitate."""
    return not isinstance(sample, Text | Prompt) and bool(sample.answer.strip()) and (
        not isinstance(sample, Rated) or sample.desirable)
