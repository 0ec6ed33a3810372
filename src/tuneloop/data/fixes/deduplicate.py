"""Keep one row of those that say the same, or nearly the same."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneloop.data.clean import content
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, count_of
from tuneloop.data.near.pairs import NEAR, near
from tuneloop.data.near.rows import frames_of, is_sampled, pieces, written
from tuneloop.types import Sample

EXAMPLES = 3
EXCERPT = 60        # characters


class Fix(base.Fix):
    """The first row of every cluster of rows that are alike. Answers sampled from a model may be equal, and stay."""

    about: ClassVar[str] = "drops rows that say what an earlier row says, exactly or nearly"

    kind: Literal["deduplicate"] = "deduplicate"
    near: Annotated[float, Field(ge=0.5, le=1)] = NEAR
    """How alike rows must be, in prompt and answers each: 1 leaves only those out that say exactly the same."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        numbers = [number for number, item in enumerate(items) if not is_sampled(item.sample)]
        exact = _exact([items[number].sample for number in numbers])
        like = {numbers[row]: numbers[first] for row, first in exact.items()}
        log = _log(items, like, "each says exactly what an earlier row says")
        if self.near < 1:
            left = [number for number in numbers if number not in like]
            nearly = _nearly([items[number].sample for number in left], self.near)
            further = {left[row]: left[first] for row, first in nearly.items()}
            log += _log(items, further, f"each is, directly or by way of others, at least {self.near:g} alike to an "
                        "earlier row")
            like |= further
        return Applied([item for number, item in enumerate(items) if number not in like], log)


def _exact(samples: Sequence[Sample]) -> dict[int, int]:
    """For each row that an earlier one equals, the first such."""
    first: dict[Sample, int] = {}
    earlier = [first.setdefault(content(sample), number) for number, sample in enumerate(samples)]
    return {number: other for number, other in enumerate(earlier) if other != number}


def _nearly(samples: Sequence[Sample], threshold: float) -> dict[int, int]:
    """For each row but the first of every cluster, the first."""
    frames = frames_of(samples)
    clusters = near([written(sample, frames) for sample in samples], threshold, pieces=pieces).clusters()
    return {number: first for number, first in enumerate(clusters.tolist()) if first != number}


def _log(items: Sequence[Item], like: Mapping[int, int], why: str) -> list[Change]:
    if not like:
        return []
    examples = [f"{items[number].origin} is like {items[first].origin}: {_short(items[number])} and "
                f"{_short(items[first])}" for number, first in list(like.items())[:EXAMPLES]]
    return [Change(f"{count_of(like)} dropped", why, Places(items[number].origin for number in like), examples)]


def _short(item: Item) -> str:
    """The beginning of what it asks, or says."""
    turns = [turn.content for turn in item.sample.prompt if turn.role != "system"] or [item.sample.answer]
    return f'"{textwrap.shorten(" ".join(turns), EXCERPT, placeholder=" …")}"'
