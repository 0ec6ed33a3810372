"""Rows unlike all the others: by their words, or by how a language model is surprised at their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.checks import base
from tuneloop.data.checks._sample import RowSample
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, excerpt, is_learnt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.data.labels.outliers import FAR, likeness, robust_scores
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.rows import frames_of
from tuneloop.data.near.shingles import plain
from tuneloop.types import Origin, Sample, Text

SAMPLED = 500
LONGEST = 1_000         # characters of prompt and answer each
FEWEST = 50             # rows that others can be unlike
HALF = 0.5              # of the usual likeness, or more, is not unlike
LEAST = 1e-3            # likeness, for logarithms
LOOK = "look at them: they may belong to another task, another language, or be damaged; drop those that do not belong"


class Check(base.Check):
    """Rows that have hardly a word in common with their nearest neighbours, among a sample."""

    about: ClassVar[str] = "rows unlike all others in their words, on a sample of 500 rows"

    def __init__(self) -> None:
        self._sample: RowSample[tuple[Origin, str]] = RowSample(SAMPLED)
        self._frames: Frames | None = None

    def see(self, chunk: Chunk) -> None:
        if is_learnt(chunk):
            frames = self._frames = self._frames or frames_of(chunk.samples)
            self._sample.add(len(chunk), lambda at: (chunk.origins[at], _told(chunk.samples[at], chunk.prompts[at],
                                                                              frames)))

    def findings(self) -> list[Finding]:
        rows = [(origin, text) for origin, text in self._sample.kept if text.strip()]
        if len(rows) < FEWEST:
            return []
        alike = likeness([text for _, text in rows])
        far = [rows[number] for number in _farthest(-robust_scores(np.log(np.maximum(alike, LEAST))))
               if alike[number] < HALF * np.median(alike)]
        if not far:
            return []
        places = Places(origin for origin, _ in far)
        among = f", among {len(rows):,} that were looked at" if self._sample.rows > len(rows) else ""
        what = rows_that(places, "are unlike all others in their words") + among
        return [Finding("surprising", "note", what, LOOK, places, [excerpt(text) for _, text in far[:SHOWN_EXAMPLES]],
                        "words")]


def surprising(samples: Sequence[Sample], nll_per_token: Sequence[float]) -> list[Finding]:
    """Answers that a base model finds far more, or far less, likely than the other answers.

    `nll_per_token[i]` is the mean over the answer's tokens of -log p in nats; numbers that are not finite are left out.
    """
    nll = np.asarray(nll_per_token, np.float64)
    known = np.flatnonzero(np.isfinite(nll))
    if len(known) < FEWEST:
        return []
    scores = robust_scores(nll[known])
    told = (("surprising", scores, "have an answer that surprises the base model far more than the others", LOOK),
            ("expected", -scores, "have an answer that the base model expects far more than the others",
             "nothing, unless they are many: what a model says anyway teaches it little"))
    found = []
    for kind, by, do, fix in told:
        far = known[_farthest(by)]
        if len(far):
            places = Places(samples[number].origin for number in far)
            what = f"{rows_that(places, do)}, among {len(known):,} that were looked at"
            examples = [f"{nll[number]:.1f} nats a token, usual is {np.median(nll[known]):.1f}: "
                        f"“{excerpt(samples[number].answer)}”" for number in far[:SHOWN_EXAMPLES]]
            found.append(Finding("surprising", "note", what, fix, places, examples, kind))
    return found


def _farthest(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the outliers on the high side, the farthest first."""
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] > FAR]


def _told(sample: Sample, prompt: str, frames: Frames) -> str:
    answer = sample.answer[:LONGEST]
    return answer if isinstance(sample, Text) else f"{frames.without(plain(prompt))[:LONGEST]}\n{answer}"
