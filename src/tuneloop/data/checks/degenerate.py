"""Texts that teach nothing: one phrase over and over, answers that give the question back, a bare link or number."""

from __future__ import annotations

import re

from tuneloop.data.checks import base
from tuneloop.data.checks._repetition import repetition
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt
from tuneloop.data.checks.base import Chunk, answers_of
from tuneloop.data.findings import Finding
from tuneloop.types import Origin, Sample, Text

_BARE = {
    "link": re.compile(r"\s*(?:https?://|www\.)\S+\s*"),
    "number": re.compile(r"\s*[-+]?[$€£¥]?\d[\d.,]*\s?%?\s*"),
}
_FEW = 0.05         # of all rows: more of them are what the answers are like


class Check(base.Check):
    """Rows with a text that says nothing, or says it too often."""

    about = "degenerate texts: one phrase many times, answers equal to the question, a bare link or number"

    def __init__(self) -> None:
        self._tally = Tally("degenerate")
        self._rows = 0

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._rows += len(chunk)
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            self._look(origin, sample)

    def _look(self, origin: Origin, sample: Sample) -> None:
        for text in (*(turn.content for turn in sample.prompt), *answers_of(sample)):
            if repeated := repetition(text):
                self._tally.add("repetition", origin, str(repeated))
        if isinstance(sample, Text):
            return
        answer = sample.answer
        if sample.prompt and answer.strip() and answer.split() == sample.prompt[-1].content.split():
            self._tally.add("echo", origin, excerpt(answer))
        for kind, pattern in _BARE.items():
            if pattern.fullmatch(answer):
                self._tally.add(kind, origin, excerpt(answer))

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        return [
            *told("repetition", "fix", "repeat one phrase over and over",
                  "write what was meant, or drop them: tuneloop data fix FILE drop checks=degenerate kinds=repetition"),
            *told("echo", "fix", "have an answer that is the question, word for word", "write the answer, or drop "
                  "them: tuneloop data fix FILE drop checks=degenerate kinds=echo"),
            *(finding for kind in _BARE if len(self._tally.rows(kind)) <= _FEW * self._rows
              for finding in told(kind, "note", f"have nothing but a {kind} for an answer, unlike the others",
                                  "see whether the answer was lost")),
        ]
