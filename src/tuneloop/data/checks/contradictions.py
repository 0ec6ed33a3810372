"""Rows that ask the same and are answered differently."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.checks import base
from tuneloop.data.checks._keyed import KeyedRows, groups_of, keys_of
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, excerpt, is_learnt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Severity
from tuneloop.data.labels.counts import LabelCounts, label_of
from tuneloop.data.labels.spelling import folded
from tuneloop.data.near.shingles import mixed
from tuneloop.types import Conversation, Preference, Prompt, Rated, Sample

REMEMBERED = 100_000    # rows whose first words can be shown
JUDGED, ANSWERED = 0, 1
_SIGNS = re.compile(r"""[.,;:!?"'“”‘’…]+(?=\s|$)|(?<!\S)[.,;:!?"'“”‘’…]+""")
_TOLD = {
    "judgements": "judge what others judge, and the other way",
    "labels": "ask what others ask, and have another label",
    "answers": "ask what others ask, and are answered differently",
}


class Check(base.Check):
    """Different labels for one prompt contradict each other, and so do opposite judgements of one answer or pair.

    Answers in free text may differ and all be right. Prompts are the same but for case, white space, and signs between
    words; labels are the same but for their spelling.
    """

    about: ClassVar[str] = "one prompt with contradictory answers"

    def __init__(self) -> None:
        self._rows = KeyedRows([("exact", "u4"), ("said", "u8"), ("kind", "u1")])
        self._labels = LabelCounts()
        self._shown: list[tuple[str, str]] = []         # how prompt and answer of the first rows begin

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        self._labels.add(map(label_of, chunk.samples))
        found = [(origin, *stance) for origin, sample, prompt in zip(chunk.origins, chunk.samples, chunk.prompts,
                                                                      strict=True)
                 if (stance := _stance(sample, prompt))]
        if not found:
            return
        origins, kinds, prompts, answers = zip(*found, strict=True)
        self._rows.add(origins, keys_of(map(plain, prompts)), kind=kinds,
                       exact=[hash(prompt) & 0xFFFFFFFF for prompt in prompts],
                       said=[hash(folded(answer)) & 0xFFFFFFFFFFFFFFFF for answer in answers])
        room = max(0, REMEMBERED - len(self._shown))
        self._shown += [(excerpt(prompt), excerpt(answer))
                        for prompt, answer in islice(zip(prompts, answers, strict=True), room)]

    def findings(self) -> list[Finding]:
        rows = self._rows.rows
        judged = rows["kind"] == JUDGED
        told = "labels" if self._labels.are_labels else "answers"
        return [*self._of(rows[judged], "judgements"), *self._of(rows[~judged], told)]

    def _of(self, rows: NDArray[Any], kind: str) -> Iterator[Finding]:
        exactly = _contradicting(rows, rows["key"] ^ mixed(rows["exact"].astype(np.uint64)))
        nearly = _contradicting(rows, rows["key"]) & ~np.isin(rows["key"], rows["key"][exactly])
        if exactly.any():
            yield self._finding(rows[exactly], kind)
        if nearly.any() and kind != "answers":
            yield self._finding(rows[nearly], kind, nearly=True)

    def _finding(self, rows: NDArray[Any], kind: str, nearly: bool = False) -> Finding:
        severity: Severity = "note" if nearly or kind == "answers" else "fix"
        name = f"{kind}_nearly" if nearly else kind
        but = "; what they ask differs in case, spaces or signs" if nearly else ""
        fix = "nothing, where several answers are right; else keep the best one" if kind == "answers" else (
            "keep what is right, or say in the prompt what makes them different; or drop them all: tuneloop data fix "
            f"FILE drop checks=contradictions kinds={name}")
        places = self._rows.places(rows[np.lexsort((rows["line"], rows["file"]))])
        what = f"{rows_that(places, _TOLD[kind])}{but}{self._rows.told('prompts')}"
        examples = list(islice(self._examples(rows), SHOWN_EXAMPLES))
        return Finding("contradictions", severity, what, fix, places, examples, name)

    def _examples(self, rows: NDArray[Any]) -> Iterator[str]:
        """Two rows of each group of which the beginnings are known."""
        several = len(set(rows["file"].tolist())) > 1
        order, starts = groups_of(rows["key"])
        rows = rows[order]
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            first = rows[start]
            both = first, next(row for row in rows[start:end] if row["said"] != first["said"])
            if all(row["row"] < len(self._shown) for row in both):
                lines = [str(self._rows.places(row[None])) if several else f"line {row['line']}" for row in both]
                said = [f"{line} “{self._shown[row['row']][1]}”" for line, row in zip(lines, both, strict=True)]
                yield f"“{self._shown[first['row']][0]}”: {', '.join(said)}"


def _contradicting(rows: NDArray[Any], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Rows in groups of equal keys that do not all say the same."""
    order, starts = groups_of(keys)
    sizes = np.diff([*starts, len(rows)])
    said = rows["said"][order]
    differs = said != np.repeat(said[starts], sizes)
    found = np.zeros(len(rows), bool)
    found[order] = np.repeat(np.logical_or.reduceat(differs, starts) if len(rows) else differs, sizes)
    return found


def plain(prompt: str) -> str:
    """A prompt without case, white space, and signs that stand between words."""
    return " ".join(_SIGNS.sub("", prompt.casefold()).split())


def _stance(sample: Sample, prompt: str) -> tuple[int, str, str] | None:
    """Of what kind a row is, what it speaks of, and what it says of that; None where there is nothing to contradict."""
    shown = "".join(media.where for turn in sample.prompt for media in turn.media)
    match sample:
        case Conversation():
            calls = "".join(f"{call.name}({call.arguments})" for call in sample.messages[-1].calls)
            return ANSWERED, "".join([prompt, shown, *sample.tools]), sample.answer + calls
        case Prompt(references=references) if references:
            return ANSWERED, prompt + shown, "\n".join(references)
        case Preference():
            return JUDGED, "\n".join([prompt + shown, *sorted([sample.chosen, sample.rejected])]), sample.chosen
        case Rated():
            return JUDGED, f"{prompt}{shown}\n{sample.answer}", "liked" if sample.desirable else "not liked"
    return None
