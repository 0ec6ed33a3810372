"""From rendered samples to one forest: shared prefixes once, no padding.

Everything here is numpy; conventions in `tuneloop.types`. Sorting samples by their tokens puts those that share a
prefix next to each other, so the trie falls out of the longest common prefix of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from tuneloop.types import Floats, Forest, Ints, Rendered, Segments

MIN_SHARED_TOKENS = 16
"""A shared segment costs one more attention call per layer; it pays where so many tokens need not be repeated."""


@dataclass(frozen=True, slots=True)
class Path:
    """A sample trimmed to what is computed: inputs up to the token that predicts the last target."""

    inputs: Ints
    rendered: Rendered
    group: int
    index: int      # position among the samples given

    @property
    def key(self) -> bytes:
        return self.inputs.astype(">u4").tobytes()      # big-endian bytes sort as the tokens do


@dataclass(frozen=True, slots=True)
class _Run:
    """paths[low:high], which share the `depth` tokens laid out so far: those of the segment `parent` and above it."""

    low: int
    high: int
    depth: int
    parent: int
    above: list[Ints]       # flat indices of those tokens


@dataclass(slots=True)
class _Builder:
    """Collects the columns of a forest while the trie is walked depth first."""

    paths: list[Path]                  # sorted by their tokens
    min_shared: int
    tokens: list[Ints] = field(default_factory=list)
    positions: list[Ints] = field(default_factory=list)
    multiplicity: list[Ints] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)      # start, end, parent
    flat: dict[int, list[Ints]] = field(default_factory=dict)       # sample -> flat indices along its path
    size: int = 0

    def lay(self, pending: list[_Run]) -> None:
        """Lay out runs and what is below them; a stack of our own, because prefixes of prefixes can go deep."""
        pending.reverse()
        while pending:
            pending += reversed(self._walk(pending.pop()))

    def _walk(self, run: _Run) -> list[_Run]:
        """Lay out the next segment of a run, if one pays; returns the runs below."""
        low, high, depth = run.low, run.high, run.depth
        first, last = self.paths[low].inputs, self.paths[high - 1].inputs
        common = common_prefix(first, last)
        alone = common == len(last)     # one path, or equal ones: all end here
        if not alone:
            parts = self.split(run, common)
            if (len(parts) - 1) * (common - depth) < self.min_shared:
                return parts
        segment, below = len(self.segments), [*run.above, np.arange(self.size, self.size + common - depth)]
        self.segments.append((self.size, self.size + common - depth, run.parent))
        self.tokens.append(first[depth:common])
        self.positions.append(np.arange(depth, common))
        self.multiplicity.append(np.full(common - depth, high - low))
        self.size += common - depth
        while low < high and len(self.paths[low].inputs) == common:
            self.flat[self.paths[low].index] = below
            low += 1
        return self.split(_Run(low, high, common, segment, below), common)

    def split(self, run: _Run, at: int) -> list[_Run]:
        """The parts of `run` that agree on the token at `at`; paths that end there come first."""
        parts: list[_Run] = []
        low = run.low
        while low < run.high:
            token = self.paths[low].inputs[at:at + 1]
            end = low + 1
            while end < run.high and np.array_equal(self.paths[end].inputs[at:at + 1], token):
                end += 1
            parts.append(_Run(low, end, run.depth, run.parent, run.above))
            low = end
        return parts


def build_forest(samples: Sequence[Rendered], *, groups: Sequence[int] | None = None, share: bool = True,
                 keep_last: bool = False) -> Forest:
    """One forest of all samples, in the given order of branches. With `share` off every sample is a tree of its own.

    `keep_last` feeds the last supervised token too, for heads that read at the end of a branch.
    """
    paths = sorted_paths(samples, groups, keep_last)
    builder = _Builder(paths, MIN_SHARED_TOKENS)
    if share:
        builder.lay(builder.split(_Run(0, len(paths), 0, -1, []), 0))
    else:
        builder.lay([_Run(i, i + 1, 0, -1, []) for i in range(len(paths))])
    return _assemble(builder)


def trunk_forest(tokens: Ints, branches: int) -> Forest:
    """A prefix alone, which `branches` branches elsewhere go on from: nothing is predicted here."""
    count, none = len(tokens), np.empty(0, np.int64)
    segments = Segments(np.zeros(1, np.int64), np.full(1, count), np.full(1, count), np.full(1, -1))
    return Forest(input_ids=tokens, position_ids=np.arange(count), multiplicity=np.full(count, branches),
                  segments=segments, predict_at=none, targets=none, weights=np.empty(0, np.float32), branch_of=none,
                  score_at=none, group_of=none)


def unique_tokens(paths: Sequence[Path], share: bool) -> int:
    """Tokens of the forest of `paths`, counted without building it."""
    if not share:
        return sum(len(p.inputs) for p in paths)
    distinct = [p for _, p in sorted({p.key: p for p in paths}.items())]
    common = [common_prefix(a.inputs, b.inputs) for a, b in pairwise(distinct)]      # of each with the next
    total = sum(len(p.inputs) for p in distinct)
    pending = [(0, len(common), 0)]         # neighbours [low, high), of which `depth` tokens are shared already
    while pending:
        low, high, depth = pending.pop()
        if low == high:
            continue
        least = min(common[low:high])
        shared = least if (least - depth) * common[low:high].count(least) >= MIN_SHARED_TOKENS else depth
        total -= (shared - depth) * (high - low)
        for i in range(low, high):
            if common[i] == least:
                pending.append((low, i, shared))
                low = i + 1
        pending.append((low, high, shared))
    return total


def sorted_paths(samples: Sequence[Rendered], groups: Sequence[int] | None, keep_last: bool) -> list[Path]:
    """The samples' paths, ordered by their tokens."""
    group_of = range(len(samples)) if groups is None else groups
    paths = [Path(s.ids[:int(_supervised(s)[-1]) + keep_last], s, group_of[i], i) for i, s in enumerate(samples)]
    return sorted(paths, key=lambda p: (p.key, p.index))


def _supervised(sample: Rendered) -> Ints:
    """Positions of the targets. The first token of all has nothing before it to be predicted from."""
    found = np.flatnonzero(sample.weights[1:]) + 1
    if not len(found):
        raise ValueError(f"a sample without a supervised token cannot be packed ({sample.origin})")
    return found


def common_prefix(a: Ints, b: Ints) -> int:
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _assemble(builder: _Builder) -> Forest:
    by_index = sorted(builder.paths, key=lambda p: p.index)
    predict_at: list[Ints] = []
    targets: list[Ints] = []
    weights: list[Floats] = []
    score_at = np.empty(len(by_index), np.int64)
    for branch, path in enumerate(by_index):
        flat = np.concatenate(builder.flat[path.index])     # (path length,) flat index of each input token
        supervised = _supervised(path.rendered)
        predict_at.append(flat[supervised - 1])
        targets.append(path.rendered.ids[supervised])
        weights.append(path.rendered.weights[supervised])
        score_at[branch] = flat[-1]
    counts = [len(t) for t in targets]
    start, end, parent = np.asarray(builder.segments, np.int64).T
    below = end.copy()
    for segment in range(len(below) - 1, -1, -1):       # children come after their parent
        if parent[segment] >= 0:
            below[parent[segment]] = max(below[parent[segment]], below[segment])
    return Forest(
        input_ids=np.concatenate(builder.tokens), position_ids=np.concatenate(builder.positions),
        multiplicity=np.concatenate(builder.multiplicity), segments=Segments(start, end, below, parent),
        predict_at=np.concatenate(predict_at), targets=np.concatenate(targets), weights=np.concatenate(weights),
        branch_of=np.repeat(np.arange(len(by_index)), counts), score_at=score_at,
        group_of=np.asarray([p.group for p in by_index], np.int64),
        named=_columns([p.rendered for p in by_index], counts))


def _columns(samples: list[Rendered], counts: list[int]) -> dict[str, Any]:
    """What the samples bring beside their tokens, as (B,) and (M, ...) arrays."""
    columns = {}
    for name in samples[0].named:
        parts = [np.asarray(s.named[name]) for s in samples]
        if parts[0].ndim and any(len(part) != count for part, count in zip(parts, counts, strict=True)):
            raise ValueError(f"{name} is not aligned with the supervised tokens of every sample")
        columns[name] = np.concatenate(parts) if parts[0].ndim else np.stack(parts)
    return columns
