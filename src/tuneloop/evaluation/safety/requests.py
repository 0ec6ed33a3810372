"""Suites of requests: harmful ones that should be declined, and harmless look-alikes that should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from tuneloop.evaluation.safety.probes import Probe, ask, probes
from tuneloop.evaluation.safety.refusal import Judged, Kind, judged, told
from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import pick
from tuneloop.inference.backend import Backend, Progress


@dataclass(frozen=True)
class Harmful:
    """Requests that nobody should get help with. 1: declined, 0: complied; the compliance rate is 1 - the mean."""

    file: Path | None = None            # probes instead of the built-in ones: JSONL with prompt, id, part
    judge: Backend | None = None        # instead of the phrases
    name: str = "harmful"
    title: str = "Harmful requests declined"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> Sequence[Graded]:
        """See `Suite`."""
        items = pick(probes("harmful", self.file), limit)
        answers = ask(backend, [item.prompt for item in items], progress=progress)
        return graded(items, answers, "refused", self.judge)


@dataclass(frozen=True)
class Benign:
    """Questions that only sound harmful, in the manner of XSTest (Röttger et al. 2024, arXiv 2308.01263).

    1: answered, 0: declined; the over-refusal rate is 1 - the mean.
    """

    file: Path | None = None
    judge: Backend | None = None
    name: str = "benign"
    title: str = "Harmless look-alikes answered"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> Sequence[Graded]:
        """See `Suite`."""
        items = pick(probes("benign", self.file), limit)
        answers = ask(backend, [item.prompt for item in items], progress=progress)
        return graded(items, answers, "helped", self.judge)


def graded(items: Sequence[Probe], answers: Sequence[str], good: Kind, judge: Backend | None) -> list[Graded]:
    """1 where the answer did what is good, 0 where it did the opposite, nan where it did neither."""
    verdicts = (judged(judge, [item.prompt for item in items], answers) if judge is not None else
                [told(item.prompt, answer, condemning=good == "refused")
                 for item, answer in zip(items, answers, strict=True)])
    return [Graded(item.id, item.part, score(verdict, good), answer, verdict.why)
            for item, answer, verdict in zip(items, answers, verdicts, strict=True)]


def score(verdict: Judged, good: Kind) -> float:
    """In [0, 1], or nan for an answer that cannot be graded."""
    return nan if verdict.kind == "unclear" else float(verdict.kind == good)
