"""A step cut into pieces: what every cut must keep to, and examples worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.compute import cut
from tuneloop.compute.cut import cut_step
from tuneloop.types import Piece, Rendered


def row(*ids: int, supervised: int = 1) -> Rendered:
    """The last tokens carry loss."""
    weights = np.zeros(len(ids), np.float32)
    weights[-supervised:] = 1
    return Rendered(np.array(ids, np.int64), weights)


def fed(sample: Rendered) -> list[int]:
    return sample.ids[:-1].tolist()


def held(pieces: list[Piece]) -> list[list[int]]:
    return [p.samples for p in pieces]


@st.composite
def families(draw: st.DrawFn) -> list[Rendered]:
    """Rows that go on from long beginnings of earlier ones."""
    rows: list[list[int]] = []
    for _ in range(draw(st.integers(1, 9))):
        start = []
        if rows and draw(st.integers(0, 3)):
            parent = draw(st.sampled_from(rows))
            start = parent[:draw(st.integers(0, len(parent)))]
        rows.append([*start, *draw(st.lists(st.integers(0, 2), min_size=2, max_size=60))])
    return [row(*ids) for ids in rows]


@given(samples=families(), budget=st.integers(1, 300), share=st.booleans(), trunks=st.booleans(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_what_every_cut_keeps_to(samples: list[Rendered], budget: int, share: bool, trunks: bool,
                                 data: st.DataObject) -> None:
    groups = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=len(samples), max_size=len(samples)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "MIN_TRUNK_TOKENS", 17)
        pieces = cut_step(samples, budget, groups=groups, share=share, trunks=trunks)
        assert held(pieces) == held(cut_step(samples, budget, groups=groups, share=share, trunks=trunks))
    assert sorted(i for piece in pieces for i in piece.samples) == list(range(len(samples)))
    for piece in pieces:
        alone = len(piece.samples) == 1 or (groups is not None and len({groups[i] for i in piece.samples}) == 1)
        assert piece.forest.unique_tokens <= budget or alone
        for branch, sample in enumerate(piece.samples):
            assert piece.forest.input_ids[:piece.given].tolist() == fed(samples[sample])[:piece.given]
            assert (piece.forest.group_of == piece.forest.group_of[branch]).sum() == (
                1 if groups is None else groups.count(groups[sample]))
    assert (share and trunks) or all(piece.samples for piece in pieces)
    stands_on_what_came_just_before(pieces)


def stands_on_what_came_just_before(pieces: list[Piece]) -> None:
    """Pieces come depth first, and begin with what their trunk computed."""
    above: list[int] = []
    for i, piece in enumerate(pieces):
        while above and above[-1] != piece.parent:
            above.pop()
        assert bool(above) == (piece.parent >= 0)
        if above:
            trunk = pieces[piece.parent].forest.input_ids
            assert piece.given == len(trunk)
            assert np.array_equal(piece.forest.input_ids[:piece.given], trunk)
        if not piece.samples:
            above.append(i)


def test_a_prefix_that_spans_pieces_is_computed_once() -> None:
    start = [7] * 64
    samples = [row(*start, *[i] * 10, 9) for i in range(8)]
    pieces = cut_step(samples, 130)
    assert held(pieces) == [[], [0, 1, 2, 3, 4, 5], [6, 7]]
    assert [(p.given, p.parent, p.computed_tokens) for p in pieces] == [(0, -1, 64), (64, 0, 60), (64, 0, 20)]
    assert sum(p.forest.logical_tokens for p in pieces if p.samples) == 8 * 74


def test_trunks_nest() -> None:
    """System prompt, two documents, questions on each."""
    system = [1] * 70
    documents = [[*system, *[d] * 80] for d in (2, 3)]
    samples = [row(*document, *[10 + i] * 30, 9) for document in documents for i in range(8)]
    pieces = cut_step(samples, 300)
    assert held(pieces) == [[], [], [0, 1, 2, 3, 4], [5, 6, 7], [], [8, 9, 10, 11, 12], [13, 14, 15]]
    assert [p.parent for p in pieces] == [-1, 0, 1, 1, 0, 4, 4]
    assert [p.computed_tokens for p in pieces] == [70, 80, 150, 90, 80, 150, 90]


def test_a_short_prefix_gets_no_trunk() -> None:
    samples = [row(*[7] * 40, *[i] * 10, 9) for i in range(8)]
    assert held(cut_step(samples, 70)) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_prefix_of_more_than_half_the_budget_gets_no_trunk() -> None:
    """It would leave too little room for what starts from it."""
    samples = [row(*[7] * 80, *[i] * 10, 9) for i in range(4)]
    assert held(cut_step(samples, 110)) == [[0, 1, 2], [3]]
    assert held(cut_step(samples, 160)) == [[0, 1, 2, 3]]


def test_a_sample_that_is_all_prefix_computes_nothing_of_its_own() -> None:
    start = [7] * 70
    samples = [row(*start, 9), *(row(*start, *[i] * 75, 9) for i in range(2))]
    pieces = cut_step(samples, 140)
    assert held(pieces) == [[], [0], [1], [2]]
    assert [p.computed_tokens for p in pieces] == [70, 0, 75, 75]


def test_a_budget_that_holds_all_makes_one_piece() -> None:
    samples = [row(*[i] * 20) for i in range(9)]
    assert held(cut_step(samples, 9 * 19)) == [list(range(9))]
    assert [len(p) for p in held(cut_step(samples, 9 * 19 - 1))] == [8, 1]
    assert [len(p) for p in held(cut_step(samples, 3 * 19))] == [3, 3, 3]


def test_neighbours_share_their_prefix_in_a_piece() -> None:
    prompts = [[p] * 40 for p in (1, 2)]
    samples = [row(*prompts[i % 2], 10 + i, 3) for i in range(8)]       # given in turns
    assert held(cut_step(samples, 44)) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_group_is_never_split() -> None:
    samples = [row(*[i % 3] * 20, 30 + i, 9) for i in range(6)]
    assert held(cut_step(samples, 30, groups=[0, 1, 0, 1, 0, 1])) == [[0, 2, 4], [1, 3, 5]]
