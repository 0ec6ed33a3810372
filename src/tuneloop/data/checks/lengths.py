"""Questions and answers that are far longer or shorter than the others."""

from __future__ import annotations

from array import array
from itertools import compress
from typing import Any, Literal

import numpy as np

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import is_learnt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.types import Floats

FEWEST_ROWS = 50
FAR = 5.0               # robust standard deviations of the logarithm
FACTOR = 10.0           # and so many times the usual length: what people would call far, too
_TO_DEVIATION = 1.4826  # of a normal distribution, from its median absolute deviation

Side = Literal["prompt", "answer"]
_WORDS = {"prompt": "question", "answer": "answer"}


class Check(base.Check):
    """Outliers of the logarithm of the length in characters, by median and median absolute deviation."""

    about = "questions and answers far longer or shorter than the others"

    def __init__(self) -> None:
        self._places = Places()
        self._lengths: dict[Side, array[int]] = {"prompt": array("i"), "answer": array("i")}

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin in chunk.origins:
            self._places.add(origin)
        self._lengths["prompt"].extend(map(len, chunk.prompts))
        self._lengths["answer"].extend(map(len, chunk.answers))

    def findings(self) -> list[Finding]:
        return [finding for side in self._lengths for finding in self._outliers(side)]

    def facts(self) -> dict[str, Any]:
        told = {f"{_WORDS[side]}s": {"median": int(np.median(lengths)), "longest": int(lengths.max())}
                for side in self._lengths if len(lengths := self._counted(side)) and lengths.max()}
        return {"characters": told} if told else {}

    def _counted(self, side: Side) -> Floats:
        return np.asarray(self._lengths[side], dtype=np.float32)

    def _outliers(self, side: Side) -> list[Finding]:
        lengths = self._counted(side)
        if np.count_nonzero(lengths) < FEWEST_ROWS:
            return []
        logs = np.log(np.maximum(lengths, 1))
        usual = np.median(logs[lengths > 0])
        deviation = _TO_DEVIATION * np.median(np.abs(logs[lengths > 0] - usual))
        far = max(FAR * deviation, np.log(FACTOR))
        word, median = _WORDS[side], round(float(np.exp(usual)))
        found = []
        for kind, odd in (("long", logs - usual > far), ("short", (usual - logs > far) & (lengths > 0))):
            rows = Places(compress(self._places, odd))
            if rows:
                found.append(Finding("lengths", "note", rows_that(
                    rows, f"have a far {kind}er {word} than the others, whose median is {median:,} characters"),
                    "see whether they belong here, or drop them: tuneloop data fix FILE drop checks=lengths "
                    f"kinds={side}_{kind}", rows, [f"{length:,.0f} characters" for length in lengths[odd][:3]],
                    f"{side}_{kind}"))
        return found
