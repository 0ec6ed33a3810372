"""Answers that somebody meant to go on with: cut off, with gaps left to fill in, with filler text."""

from __future__ import annotations

import re

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt, learnt_answers
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Origin

_GAP = re.compile(r"(?<!\$)\{\{ ?[A-Za-z_][\w. ]{0,40} ?\}\}|\$\{[A-Z_]{2,40}\}|<<[A-Z_ ]{2,40}>>|%\([a-z_]{2,40}\)s")
_ABOUT_TEMPLATES = re.compile(r"```|\{%|jinja|handlebars|mustache|\bvue\b|angular|template|\bbash\b|\bshell\b|<\w+>",
                              re.IGNORECASE)
_BLANK = re.compile(r"\[(?:insert|your|enter|add|recipient'?s?|company|date|name|first name|last name|customer)\b(?!,)"
                    r"[^\]\n]{0,40}\](?!\()", re.IGNORECASE)
_FILLER = re.compile(r"\blorem ipsum\b", re.IGNORECASE)
_MIDST = re.compile(r"(?:,|\b(?:the|an?|of|and|or|to|with|for|in|that|which|is|are|und|oder|der|die|das|mit|zu|von|et|"
                    r"ou|le|la|les|de|des|du|y|el|los|que|con))$")
_OPEN_END = re.compile(r"[^\W_][”\"']?$")
_ITEM = re.compile(r"\s*(?:[-*•·#>|]|\d+[.)]|[A-Za-z][.)]) ?|.*[:=|]\s|\s{4}|.*\b(?:https?://|www\.)")
_LONG = 200         # characters: a short answer often ends without a full stop
_LAST_LINE = 60     # a line shorter than that may be a signature, a verse or a heading
_ALIKE = 0.9        # so many must end properly for the others to be odd


class Check(base.Check):
    """Rows whose answers are not done."""

    about = "unfinished answers: cut off, with placeholders such as {{name}}, lorem ipsum"

    def __init__(self) -> None:
        self._tally = Tally("unfinished")
        self._long = 0

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, sample, text in zip(chunk.origins, chunk.samples, chunk.texts, strict=True):
            if (gap := _GAP.search(text)) and not _ABOUT_TEMPLATES.search(text):
                self._tally.add("placeholder", origin, excerpt(text, gap.start(), gap.end()))
            if filler := _FILLER.search(text):
                self._tally.add("filler", origin, excerpt(text, filler.start(), filler.end()))
            for answer in learnt_answers(sample):
                self._look(origin, answer)

    def _look(self, origin: Origin, answer: str) -> None:
        if "[" in answer and (blank := _BLANK.search(answer)):
            self._tally.add("blank", origin, excerpt(answer, blank.start(), blank.end()))
        if answer.count("```") % 2:
            self._tally.add("open_code", origin, excerpt(answer, len(answer)))
        if len(answer) < _LONG:
            return
        self._long += 1
        end = answer.rstrip()
        last = end[end.rfind("\n") + 1:]
        if _MIDST.search(end):
            self._tally.add("midst", origin, excerpt(end, len(end)))
        elif len(last) >= _LAST_LINE and _OPEN_END.search(end) and not _ITEM.match(last):
            self._tally.add("open_end", origin, excerpt(end, len(end)))

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        odd = len(self._tally.rows("open_end")) <= (1 - _ALIKE) * self._long
        return [
            *told("placeholder", "fix", "hold placeholders that were never filled in", "put real values in their "
                  "places; the model would learn to write the placeholders"),
            *told("filler", "note", "hold lorem ipsum", "write what belongs there, or drop them: tuneloop data fix "
                  "FILE drop checks=unfinished kinds=filler"),
            *told("midst", "note", "have an answer that ends in the midst of a sentence", "let it end, or drop them: "
                  "tuneloop data fix FILE drop checks=unfinished kinds=midst"),
            *told("open_code", "note", "have an answer whose code block is never closed", "see whether it was cut"),
            *(told("open_end", "note", "have a long answer without a full stop at its end, unlike the others",
                   "see whether it was cut") if odd else ()),
            *told("blank", "note", "have an answer with blanks for the reader to fill in, such as [Your Name]",
                  "nothing, where the model is to write such blanks"),
        ]
