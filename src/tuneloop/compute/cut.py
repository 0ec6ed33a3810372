"""An optimizer step cut into pieces of at most a budget of tokens, so that no prefix is computed twice.

Groups are ordered by their tokens, so those that share a prefix are neighbours. A run of them that does not fit into
one piece, and whose common prefix is long enough to pay, gets a *trunk*: the prefix is computed once, the pieces after
it start from its keys and values, and its own backward comes last, with what they all left there. Trunks nest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tuneloop.compute.packing import (
    MIN_SHARED_TOKENS,
    Path,
    build_forest,
    common_prefix,
    sorted_paths,
    trunk_forest,
    unique_tokens,
)
from tuneloop.types import Denominator, Piece, Rendered

MIN_TRUNK_TOKENS = 4 * MIN_SHARED_TOKENS
"""A trunk is a pass of its own through the model; below so many tokens it does not pay."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Groups [low, high), the first `given` tokens of which the piece `parent` has computed."""

    low: int
    high: int
    given: int
    parent: int


@dataclass(slots=True)
class _Cutter:
    """Groups in the order of their tokens, and the pieces made so far."""

    groups: list[list[Path]]
    budget: int
    share: bool
    trunks: bool
    keep_last: bool
    pieces: list[Piece] = field(default_factory=list)

    def cut(self) -> list[Piece]:
        """Depth first, so that a trunk's pieces come right after it."""
        pending = [_Span(0, len(self.groups), 0, -1)]
        while pending:
            span = pending.pop()
            if span.high - span.low == 1 or self._fits(span.low, span.high):
                self._piece(span)
                continue
            common = self._common(span.low, span.high)
            if self.trunks and common - span.given >= MIN_TRUNK_TOKENS and common <= self.budget // 2:
                self._trunk(span, common)
                pending.append(_Span(span.low, span.high, common, len(self.pieces) - 1))
            else:
                pending += reversed(self._parts(span, common))
        return self.pieces

    def _parts(self, span: _Span, common: int) -> list[_Span]:
        """The span cut where neighbours share no more than all of it does; as many together as fit."""
        borders = [i for i in range(span.low + 1, span.high) if self._shared(i) <= common] + [span.high]
        parts, low, at = [], span.low, 0
        while low < span.high:
            at = self._last_that_fits(low, borders, at)
            parts.append(_Span(low, borders[at], span.given, span.parent))
            low, at = borders[at], at + 1
        return parts

    def _last_that_fits(self, low: int, borders: list[int], first: int) -> int:
        """The last border up to which groups from `low` keep to the budget; `first` if none does."""
        at, step = first, 1
        while at + step < len(borders) and self._fits(low, borders[at + step]):
            at += step
            step *= 2
        while step > 1:
            step //= 2
            at += step if at + step < len(borders) and self._fits(low, borders[at + step]) else 0
        return at

    def _fits(self, low: int, high: int) -> bool:
        return unique_tokens(self._paths(low, high), self.share) <= self.budget

    def _paths(self, low: int, high: int) -> list[Path]:
        return [path for group in self.groups[low:high] for path in group]

    def _shared(self, i: int) -> int:
        """Tokens that group `i` and the one before it have in common."""
        return min(_stem(self.groups[i - 1]), _stem(self.groups[i]),
                   common_prefix(self.groups[i - 1][0].inputs, self.groups[i][0].inputs))

    def _common(self, low: int, high: int) -> int:
        return min(self._shared(i) for i in range(low + 1, high))

    def _piece(self, span: _Span) -> None:
        chosen = sorted(self._paths(span.low, span.high), key=lambda path: path.index)
        forest = build_forest([p.rendered for p in chosen], groups=[p.group for p in chosen], share=self.share,
                              keep_last=self.keep_last)
        self.pieces.append(Piece(forest, [p.index for p in chosen], span.given, span.parent))

    def _trunk(self, span: _Span, common: int) -> None:
        tokens = self.groups[span.low][0].inputs[:common]
        forest = trunk_forest(tokens, len(self._paths(span.low, span.high)))
        self.pieces.append(Piece(forest, [], span.given, span.parent))


def cut_step(samples: Sequence[Rendered], token_budget: int, *, groups: Sequence[int] | None = None,
             share: bool = True, trunks: bool = True, keep_last: bool = False) -> list[Piece]:
    """The pieces of a step, in the order to compute them; every sample is in exactly one.

    A piece holds at most `token_budget` unique tokens, those of the trunks it starts from included; a group is never
    split, so one that is larger is a piece of its own. Branches keep the order of `samples` within a piece.
    """
    members: dict[int, list[Path]] = {}
    for path in sorted_paths(samples, groups, keep_last):
        members.setdefault(path.group, []).append(path)
    return _Cutter(list(members.values()), token_budget, share, share and trunks, keep_last).cut()


def totals_of(pieces: Sequence[Piece]) -> dict[Denominator, float]:
    """What sums over the pieces of a step can be divided by."""
    forests = [p.forest for p in pieces if p.samples]
    return {"weight": sum(float(f.weights.sum()) for f in forests), "branch": float(sum(f.branches for f in forests)),
            "group": float(sum(len(np.unique(f.group_of)) for f in forests))}


def _stem(group: list[Path]) -> int:
    """Tokens that all branches of a group have in common."""
    return common_prefix(group[0].inputs, group[-1].inputs)
