"""Answers that refuse, or that sound like the assistant that wrote them."""

from __future__ import annotations

from typing import Any

from tuneloop.data.checks import base
from tuneloop.data.checks._refusing import boilerplate, refuses, tail
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt, learnt_answers
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding

DROP = "where they are not meant, drop them: tuneloop data fix FILE drop checks=refusals kinds="


class Check(base.Check):
    """Refusals, phrases such as "As an AI language model", and answers that end in a reminder."""

    about = 'refusals, boilerplate such as "As an AI language model", moralising last sentences'

    def __init__(self) -> None:
        self._tally = Tally("refusals")
        self._rows = 0

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._rows += len(chunk)
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            for answer in learnt_answers(sample):
                if refuses(answer):
                    self._tally.add("refusal", origin, excerpt(answer))
                if said := boilerplate(answer):
                    self._tally.add("boilerplate", origin, excerpt(answer, said.start(), said.end()))
                if last := tail(answer):
                    self._tally.add("tail", origin, excerpt(answer, last.start(), last.end()))

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        return [
            *told("refusal", "note", "have an answer that declines what was asked; the model learns to decline",
                  f"{DROP}refusal"),
            *told("boilerplate", "note", "have an answer that speaks of itself as an AI, of its makers or of the end "
                  "of its knowledge", f"{DROP}boilerplate"),
            *told("tail", "note", "have an answer that ends in a reminder (It is important to note …)", f"{DROP}tail"),
        ]

    def facts(self) -> dict[str, Any]:
        refused = len(self._tally.rows("refusal"))
        return {"refusals": {"rows": refused, "share": round(refused / self._rows, 4)}} if refused else {}
