"""Whether rows differ enough: in what is asked, in how answers begin, and in their words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tuneloop.data.checks import base
from tuneloop.data.checks._keyed import KeyedRows, keys_of
from tuneloop.data.checks._sample import RowSample
from tuneloop.data.checks._tally import is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.labels.diversity import compression, distinct, openings
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.rows import frames_of
from tuneloop.data.near.shingles import plain
from tuneloop.types import Conversation, Text

SAMPLED = 5_000
COUNTED = 500_000       # prompts that are counted, as different or not
LONGEST = 500           # characters of a text
FEWEST = 100            # rows
DIFFERENT = 0.8         # share of different prompts
ALIKE = 0.2             # of the texts begin with the same words
REPETITIVE = 4.5        # times smaller when compressed, where ordinary texts become three times smaller
SHOWN = 10


class Check(base.Check):
    """All but repeated prompts is told of a sample. Prompts are looked at without what they are wrapped in."""

    about: ClassVar[str] = "diversity: repeated prompts, answers that begin alike, texts that repeat each other"
    needs_all: ClassVar[bool] = True

    def __init__(self) -> None:
        self._labels = LabelCounts()
        self._prompts = KeyedRows(most_rows=COUNTED)
        self._sample: RowSample[tuple[str, str]] = RowSample(SAMPLED)
        self._frames: Frames | None = None

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        frames = self._frames = self._frames or frames_of(chunk.samples)
        self._labels.add(map(label_of, chunk.samples))
        asked = [at for at, sample in enumerate(chunk.samples) if isinstance(sample, Conversation)]
        self._prompts.add([chunk.origins[at] for at in asked], keys_of(chunk.prompts[at] for at in asked))
        self._sample.add(len(chunk), lambda at: (
            "" if isinstance(chunk.samples[at], Text) else frames.without(plain(chunk.prompts[at]))[:LONGEST],
            chunk.answers[at][:LONGEST]))

    def findings(self) -> list[Finding]:
        if self._sample.rows < FEWEST:
            return []
        return [*self._repeated(), *(finding for name, texts in self._texts().items()
                                     for finding in _alike(name, texts))]

    def _texts(self) -> dict[str, list[str]]:
        """Prompts and answers of the sample in the order in which they were drawn, but for answers that are labels."""
        prompts, answers = ([text for text in column if text] for column in zip(*self._sample.drawn, strict=True))
        said = [] if self._labels.are_labels else answers
        return {name: texts for name, texts in (
            ("prompts", prompts), ("answers" if prompts else "texts", said)) if texts}

    def _different(self) -> float:
        """The share of different prompts."""
        keys = self._prompts.rows["key"]
        return len(np.unique(keys)) / len(keys) if len(keys) else math.nan

    def _repeated(self) -> Iterator[Finding]:
        if (different := self._different()) < DIFFERENT:
            yield Finding("diversity", "note", f"Only {different:.0%} of the prompts are different from each other",
                          "add other questions; more answers to the same ones teach less", kind="prompts_repeated")

    def facts(self) -> dict[str, Any]:
        if not len(self._sample):
            return {}
        told = {name: _facts(texts) for name, texts in self._texts().items()}
        if not math.isnan(different := self._different()):
            told.setdefault("prompts", {})["different"] = round(different, 3)
        return {"diversity": told}


def _facts(texts: Sequence[str]) -> dict[str, Any]:
    told = {"distinct_1": distinct(texts, 1), "distinct_2": distinct(texts, 2), "compression": compression(texts)}
    return {**{name: round(number, 3) for name, number in told.items() if not math.isnan(number)},
            "openings": dict(openings(texts).most_common(SHOWN))}


def _alike(name: str, texts: Sequence[str]) -> Iterator[Finding]:
    if len(texts) < FEWEST:
        return
    for opening, count in openings(texts).most_common(1):
        if count > ALIKE * len(texts):
            yield Finding("diversity", "note", f"{count / len(texts):.0%} of the {name} begin with “{opening}”" +
                          (": a model will begin its answers so" if name == "answers" else ""),
                          f"write some of the {name} in other words", kind=f"{name}_begin_alike")
    if (smaller := compression(texts)) > REPETITIVE:
        yield Finding("diversity", "note", f"The {name} repeat each other's words: they can be written {smaller:.1f} "
                      "times shorter, and ordinary text three times", f"add {name} in other words, by other people or "
                      "another template", kind=f"{name}_repeat")
