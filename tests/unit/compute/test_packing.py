"""Forests and micro-batches against a brute-force oracle that knows nothing of tries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.compute import packing
from tuneloop.compute.packing import MIN_SHARED_TOKENS, build_forest
from tuneloop.types import Forest, Rendered


def rendered(ids: list[int], supervised: list[int]) -> Rendered:
    """A sample whose targets at `supervised` have the weights 1, 2, 3 ..."""
    weights = np.zeros(len(ids), np.float32)
    weights[supervised] = np.arange(1, len(supervised) + 1)
    return Rendered(np.array(ids, np.int64), weights)


@st.composite
def forking(draw: st.DrawFn) -> list[Rendered]:
    """Samples that extend or repeat the beginnings of earlier ones, forks closer than MIN_SHARED_TOKENS included."""
    token = st.integers(0, 2)       # so few that tails agree by chance, too
    samples: list[list[int]] = []
    for _ in range(draw(st.integers(1, 7))):
        start: list[int] = []
        if samples and draw(st.booleans()):
            parent = draw(st.sampled_from(samples))
            start = parent[:draw(st.integers(0, len(parent)))]
        ids = start + draw(st.lists(token, max_size=24))
        samples.append(ids + [0] * max(0, 2 - len(ids)))
    return [rendered(ids, sorted(draw(st.sets(st.integers(1, len(ids) - 1), min_size=1, max_size=4))))
            for ids in samples]


def inputs_of(sample: Rendered) -> list[int]:
    """What is fed: everything before the last target."""
    last = max(i for i, weight in enumerate(sample.weights) if weight and i)
    return [int(i) for i in sample.ids[:last]]


def path_to(forest: Forest, flat: int) -> list[int]:
    """Flat indices from the root to `flat`, found by walking from parent to parent."""
    s = forest.segments
    segment = next(i for i in range(len(s)) if s.start[i] <= flat < s.end[i])
    path = list(range(s.start[segment], flat + 1))
    while (segment := int(s.parent[segment])) >= 0:
        path = list(range(s.start[segment], s.end[segment])) + path
    return path


def fewest_tokens(samples: list[Rendered]) -> int:
    """Tokens of a trie in which every shared prefix counts once, however short."""
    return len({tuple(inputs_of(s)[:n]) for s in samples for n in range(1, len(inputs_of(s)) + 1)})


@pytest.mark.parametrize("share", [True, False])
@given(samples=forking())
@settings(max_examples=80, deadline=None)
def test_every_branch_reads_its_own_sample(samples: list[Rendered], share: bool) -> None:
    forest = build_forest(samples, share=share)
    through = np.zeros(forest.unique_tokens, int)
    m = 0
    for branch, sample in enumerate(samples):
        path = path_to(forest, int(forest.score_at[branch]))
        through[path] += 1
        assert forest.input_ids[path].tolist() == inputs_of(sample)
        assert forest.position_ids[path].tolist() == list(range(len(path)))
        for i in np.flatnonzero(sample.weights):
            assert forest.predict_at[m] == path[i - 1]
            assert forest.targets[m] == sample.ids[i]
            assert forest.weights[m] == sample.weights[i]
            assert forest.branch_of[m] == branch
            m += 1
    assert m == len(forest.targets) == len(forest.predict_at)
    assert forest.branches == len(samples)
    assert forest.multiplicity.tolist() == through.tolist()
    assert forest.logical_tokens == sum(len(inputs_of(s)) for s in samples)
    if not share:
        assert forest.unique_tokens == forest.logical_tokens


@given(samples=forking())
@settings(max_examples=80, deadline=None)
def test_segments_are_depth_first_and_descendants_one_slice(samples: list[Rendered]) -> None:
    forest = build_forest(samples)
    s = forest.segments
    assert s.start.tolist() == [0, *s.end[:-1].tolist()]
    for i in range(len(s)):
        children = [j for j in range(len(s)) if s.parent[j] == i]
        assert all(j > i for j in children)
        assert s.below[i] == max((int(s.below[j]) for j in children), default=int(s.end[i]))
        ends_here = bool(np.isin(forest.score_at, s.end[i] - 1).any())
        saved = (len(children) + ends_here - 1) * (s.end[i] - s.start[i])
        assert not children or saved >= MIN_SHARED_TOKENS       # else it does not pay


@given(samples=forking())
@settings(max_examples=80, deadline=None)
def test_all_is_shared_when_every_length_pays(samples: list[Rendered]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "MIN_SHARED_TOKENS", 1)
        assert build_forest(samples).unique_tokens == fewest_tokens(samples)


def test_a_forest_written_out_by_hand() -> None:
    """Two answers to one prompt of 16 tokens, and one row of its own."""
    prompt = list(range(100, 116))
    samples = [rendered([*prompt, 7, 8], [16, 17]),             # feeds the prompt and 7
               rendered([5, 6], [1]),                           # feeds 5
               rendered([*prompt, 3, 4, 9], [17, 18])]          # feeds the prompt, 3 and 4; 3 itself carries no loss
    forest = build_forest(samples, groups=[4, 2, 4])
    assert forest.input_ids.tolist() == [5, *prompt, 3, 4, 7]           # depth first, in the order of the tokens
    assert forest.position_ids.tolist() == [0, *range(16), 16, 17, 16]
    assert forest.multiplicity.tolist() == [1, *[2] * 16, 1, 1, 1]
    assert list(forest.segments) == [(0, 1, 1), (1, 17, 20), (17, 19, 19), (19, 20, 20)]
    assert forest.segments.parent.tolist() == [-1, -1, 1, 1]
    assert forest.predict_at.tolist() == [16, 19, 0, 17, 18]
    assert forest.targets.tolist() == [7, 8, 6, 4, 9]
    assert forest.weights.tolist() == [1, 2, 1, 1, 2]
    assert forest.branch_of.tolist() == [0, 0, 1, 2, 2]
    assert forest.score_at.tolist() == [19, 0, 18]
    assert forest.group_of.tolist() == [4, 2, 4]
    assert (forest.unique_tokens, forest.logical_tokens) == (20, 36)


@given(samples=forking(), share=st.booleans())
@settings(max_examples=80, deadline=None)
def test_tokens_are_counted_as_they_are_built(samples: list[Rendered], share: bool) -> None:
    counted = packing.unique_tokens(packing.sorted_paths(samples, None, False), share)
    assert counted == build_forest(samples, share=share).unique_tokens


@pytest.mark.parametrize(("answers", "tokens"), [(4, 1 + 6 + 4), (3, 3 * (1 + 6 + 1))])
def test_a_short_prompt_is_shared_where_many_answers_follow(answers: int, tokens: int) -> None:
    """Seven tokens before three answers would save 14 of them; before four they save 21, which pays."""
    samples = [rendered([*range(7), 10 + i, 20], [7, 8]) for i in range(answers)]
    assert build_forest(samples).unique_tokens == tokens


def test_a_sample_without_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="without a supervised token"):
        build_forest([Rendered(np.array([1, 2]), np.array([1, 0], np.float32))])     # nothing precedes the first token


def test_long_chains_of_prefixes_are_laid_out() -> None:
    """Every row is the beginning of the next, as when a conversation of many turns is cut after each."""
    step = MIN_SHARED_TOKENS + 1
    samples = [rendered([1] * (step * n), [step * n - 1]) for n in range(1, 601)]
    forest = build_forest(samples)
    assert forest.unique_tokens == 600 * step - 1


def test_a_row_that_forks_early_makes_later_forks_too_short_to_share() -> None:
    """Two rows share 30 tokens; with a third that shares 20 of them, the 10 after its fork no longer pay."""
    start = [1] * 20
    samples = [rendered([*start, *[2] * 10, *tail, 0], [35]) for tail in ([3] * 5, [4] * 5)]
    samples.append(rendered([*start, *[5] * 5, 0], [25]))
    assert build_forest(samples[:2]).unique_tokens == 30 + 5 + 5
    assert build_forest(samples).unique_tokens == 20 + 15 + 15 + 5


def test_the_last_supervised_token_is_fed_where_a_head_reads_it() -> None:
    samples = [rendered([1, 2, 3, 4, 9], [2, 3]), rendered([1, 2, 5], [2])]
    forest = build_forest(samples, keep_last=True)
    assert [forest.input_ids[i] for i in forest.score_at] == [4, 5]
    assert forest.targets.tolist() == [3, 4, 5]
    assert build_forest(samples).unique_tokens == forest.unique_tokens - 2


def test_columns_are_aligned_with_branches_and_with_targets() -> None:
    def with_columns(ids: list[int], at: list[int], margin: float) -> Rendered:
        row = rendered(ids, at)
        return Rendered(row.ids, row.weights, None, {"margin": np.float32(margin), "old": np.array(at, np.float32)})

    samples = [with_columns([1, 2, 3], [1, 2], 0.5), with_columns([1, 4, 5, 6], [3], 2.0)]
    named = build_forest(samples).named
    assert named["margin"].tolist() == [0.5, 2.0]
    assert named["old"].tolist() == [1, 2, 3]
    crooked = Rendered(samples[0].ids, samples[0].weights, None, {"margin": np.float32(0), "old": np.zeros(5)})
    with pytest.raises(ValueError, match="old is not aligned"):
        build_forest([samples[1], crooked])
