"""How well the model still predicts ordinary English: short texts of several registers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import pick, rows
from tuneloop.inference.backend import Backend, Progress
from tuneloop.types import Scored


@dataclass(frozen=True, slots=True)
class _Passage:
    id: str
    part: str
    text: str


class Fluency:
    """Original passages, scored by likelihood as plain text, without any template.

    The score of a text is the geometric mean of the probability that the model gives each of its UTF-8 bytes,
    p = exp(log-prob / bytes) = 2^-bpb. It lies in [0, 1], rises as bits per byte (bpb) fall, and -log2 gives those
    back. The first token is not predicted, yet its bytes count: the same for two models with one tokenizer.
    """

    name = "fluency"
    title = "prediction of ordinary text"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        items = pick([_Passage(**row) for row in rows(self.name)], limit)
        scored = backend.score_texts([item.text for item in items], progress=progress)
        return [_graded(item, result) for item, result in zip(items, scored, strict=True)]


def bits_per_byte(score: float) -> float:
    """The bits per byte that a score of this suite stands for. Of a mean of scores it is at most the mean of theirs."""
    return math.inf if score == 0 else -math.log2(score)


def _graded(item: _Passage, scored: Scored) -> Graded:
    per_byte = scored.without_end / len(item.text.encode())
    if math.isnan(per_byte):
        return Graded(item.id, item.part, math.nan, "", "the text has no probability")
    score = math.exp(min(0.0, per_byte))
    return Graded(item.id, item.part, score, "", f"{bits_per_byte(score):.3f} bits per byte")
