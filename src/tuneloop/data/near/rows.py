"""Rows as texts to compare: what is asked, without what all prompts are wrapped in, and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from heapq import nsmallest

import numpy as np

from tuneloop.data.checks.base import answers_of
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.links import components
from tuneloop.data.near.pairs import NEAR, near
from tuneloop.data.near.shingles import jaccard, plain, shingles
from tuneloop.types import Conversation, Message, Origin, Rollout, Sample

SAMPLED = 5_000         # prompts whose frames are taken for those of all


def frames_of(samples: Sequence[Sample]) -> Frames:
    """The frames of the prompts of these samples."""
    if len(samples) > SAMPLED:
        samples = nsmallest(SAMPLED, samples, key=_draw)
    return Frames.of([_prompt(sample) for sample in samples])


def _draw(sample: Sample) -> bytes:
    """By what a row says, so that it does not matter where in its file it stands."""
    said = "\n".join([*(turn.content for turn in sample.prompt), sample.answer])
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def written(sample: Sample, frames: Frames) -> str:
    """Three plain texts, each on a line: what is asked, all that is answered, and a hash of what is shown."""
    answers = [_said(sample.messages[-1])] if isinstance(sample, Conversation) else answers_of(sample)
    shown = "".join(media.where for turn in sample.prompt for media in turn.media)
    return "\n".join([frames.without(_prompt(sample)), plain(" ".join(answers)),
                      blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if shown else ""])


def pieces(row: str) -> list[str]:
    """What of two written rows must be alike each for them to be near-duplicates."""
    return row.split("\n")


def subject(row: str) -> str:
    """What of a written row one may know beforehand: what it asks (where nothing is asked, what it says) and shows."""
    asked, said, shown = pieces(row)
    return f"{asked or said}\n{shown}"


def likeness(a: str, b: str) -> float:
    """The Jaccard index of two written rows, or of their subjects: the least of their pieces'."""
    return min(jaccard(shingles(one), shingles(other)) for one, other in zip(pieces(a), pieces(b), strict=True))


def is_sampled(sample: Sample) -> bool:
    """Whether a row is one answer sampled from a model, for which it is no fault to say what another says."""
    return isinstance(sample, Rollout) and len(sample.answers) == 1


def alike(samples: Sequence[Sample], threshold: float = NEAR) -> dict[Origin, int]:
    """For each row that asks nearly what another asks, the number of their cluster; the others are not in it.

    A split that keeps clusters together has no near-duplicates on two sides. Rows made from one are in one cluster.
    """
    frames = frames_of(samples)
    subjects = [subject(written(sample, frames)) for sample in samples]
    first: dict[Origin, int] = {}
    same_row = np.array([first.setdefault(sample.origin, number) for number, sample in enumerate(samples)], np.int64)
    nearly = near(subjects, threshold, pieces=pieces).clusters()
    clusters = components(len(samples), same_row, nearly).tolist()
    shared = {cluster for number, cluster in enumerate(clusters) if cluster != number}
    return {sample.origin: cluster for sample, cluster in zip(samples, clusters, strict=True) if cluster in shared}


def _prompt(sample: Sample) -> str:
    return plain("\n".join(map(_said, sample.prompt)))


def _said(turn: Message) -> str:
    return " ".join([turn.content, *(f"{call.name} {call.arguments}" for call in turn.calls)])
