"""Forest attention against a softmax over a dense mask, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tuneloop.compute import attention
from tuneloop.compute.attention import Layout, attend
from tuneloop.compute.packing import build_forest
from tuneloop.types import Forest, Rendered

HEADS = [(4, 4), (4, 2), (6, 1)]        # query heads, key heads


def random_forest(seed: int) -> Forest:
    """A few rows, most of which go on from the beginning of an earlier one."""
    draw = np.random.default_rng(seed)
    rows = [draw.integers(0, 50, draw.integers(2, 90))]
    for _ in range(draw.integers(0, 8)):
        parent = rows[draw.integers(len(rows))]
        start = parent[:draw.integers(0, len(parent))]
        rows.append(np.concatenate([start, draw.integers(0, 50, draw.integers(2, 30))]))
    weights = [np.ones(len(r), np.float32) for r in rows]
    return build_forest([Rendered(r, w) for r, w in zip(rows, weights, strict=True)])


def visible(forest: Forest) -> Tensor:
    """(T, T) whether token i may look at token j: j is on the path from the root to i."""
    s, tokens = forest.segments, forest.unique_tokens
    segment = np.repeat(np.arange(len(s)), s.end - s.start)
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    for i in range(tokens):
        mask[i, s.start[segment[i]]:i + 1] = True
        above = s.parent[segment[i]]
        while above >= 0:
            mask[i, s.start[above]:s.end[above]] = True
            above = s.parent[above]
    return mask


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """(1, H, T, D) by the definition of attention."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


def random_inputs(tokens: int, heads: tuple[int, int], dim: int = 8) -> list[Tensor]:
    """Query, key and value laid out as transformers does: (1, T, H, D) transposed."""
    return [torch.randn(1, tokens, h, dim, dtype=torch.float64).transpose(1, 2).requires_grad_()
            for h in (heads[0], heads[1], heads[1])]


def layout_of(forest: Forest) -> Layout:
    return Layout.of(forest.segments, int(forest.position_ids.max()) + 1)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("seed", range(12))
def test_outputs_and_gradients_equal_dense_attention(seed: int, heads: tuple[int, int]) -> None:
    forest = random_forest(seed)
    torch.manual_seed(seed)
    inputs = random_inputs(forest.unique_tokens, heads)
    out, _ = attend(torch.nn.Module(), *inputs, None, scaling=0.3, layout=layout_of(forest))
    expected = dense(*inputs, visible(forest), 0.3).transpose(1, 2)
    assert out.shape == (1, forest.unique_tokens, heads[0], 8)
    assert (out - expected).abs().max() <= 1e-9
    downstream = torch.randn_like(out)
    ours, theirs = torch.autograd.grad(out, inputs, downstream), torch.autograd.grad(expected, inputs, downstream)
    for got, wanted in zip(ours, theirs, strict=True):
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= 1e-9 * max(1, wanted.abs().max())


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_of_other_devices_gives_the_same(seed: int, heads: tuple[int, int]) -> None:
    forest = random_forest(seed)
    torch.manual_seed(seed)
    inputs = random_inputs(forest.unique_tokens, heads)
    cascade = attend(torch.nn.Module(), *inputs, None, layout=layout_of(forest))[0].transpose(1, 2)
    masked = attention._masked(*inputs, layout_of(forest), 8 ** -0.5)
    assert (cascade - masked).abs().max() <= 1e-9
    downstream = torch.randn_like(masked)
    for a, b in zip(torch.autograd.grad(cascade, inputs, downstream), torch.autograd.grad(masked, inputs, downstream),
                    strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max())


def test_the_seeds_cover_forks_within_forks_and_equal_neighbours() -> None:
    """The random trees above are not all trivial."""
    forests = [random_forest(seed) for seed in range(12)]
    assert any((f.segments.parent[f.segments.parent[f.segments.parent >= 0]] >= 0).any() for f in forests)
    rows = [Rendered(np.array([i, 1, 2, 3]), np.ones(4, np.float32)) for i in range(3)]
    assert layout_of(build_forest(rows)).runs == [(0, 3, 3)]


def test_equal_neighbours_in_one_call_equal_dense_attention() -> None:
    rows = [Rendered(np.concatenate([np.full(20, 9), [i, i + 1, i + 2, 5]]), np.ones(24, np.float32)) for i in range(4)]
    forest = build_forest(rows)
    assert (20, 4, 3) in layout_of(forest).runs
    torch.manual_seed(0)
    inputs = random_inputs(forest.unique_tokens, (4, 2))
    out = attend(torch.nn.Module(), *inputs, None, layout=layout_of(forest))[0].transpose(1, 2)
    expected = dense(*inputs, visible(forest), 8 ** -0.5)
    assert (out - expected).abs().max() <= 1e-9
    for a, b in zip(torch.autograd.grad(out.sin().sum(), inputs), torch.autograd.grad(expected.sin().sum(), inputs),
                    strict=True):
        assert (a - b).abs().max() <= 1e-9


@pytest.mark.parametrize(("given", "reason"), [
    ({"dropout": 0.1}, "no attention dropout"), ({"layout": None}, "takes a layout"),
    ({"sliding_window": 3}, "longer than the window of 3"), ({"s_aux": torch.zeros(4)}, "sinks"),
    ({"softcap": 50.0}, "soft-capped")])
def test_what_has_no_forest_form_is_refused(given: dict[str, object], reason: str) -> None:
    forest = build_forest([Rendered(np.arange(6), np.ones(6, np.float32))])
    inputs = random_inputs(forest.unique_tokens, (4, 2))
    with pytest.raises(RuntimeError, match=reason):
        attend(torch.nn.Module(), *inputs, None, **({"layout": layout_of(forest)} | given))     # type: ignore[arg-type]


def test_a_mask_is_refused() -> None:
    forest = build_forest([Rendered(np.arange(6), np.ones(6, np.float32))])
    inputs = random_inputs(forest.unique_tokens, (4, 2))
    with pytest.raises(RuntimeError, match="no mask"):
        attend(torch.nn.Module(), *inputs, torch.ones(1), layout=layout_of(forest))
