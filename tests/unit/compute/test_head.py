"""The chunked head against log-softmax over whole logits, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tuneloop.compute import head as head_module
from tuneloop.compute.head import Reduced, Wanted, reduce_head

HIDDEN, VOCAB = 6, 11
Shaping = Callable[[Tensor], Tensor] | None


def capped(logits: Tensor) -> Tensor:
    return torch.tanh(logits / 3) * 3


def head_logprobs(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module, shaping: Shaping) -> Tensor:
    return reduce_head(hidden, at, targets, head, shaping, Wanted()).logprobs


def whole(hidden: Tensor, at: Tensor, targets: Tensor, head: nn.Module, shaping: Shaping) -> Tensor:
    """The same with all logits at once and plain autograd."""
    logits = head(hidden)
    return (shaping(logits) if shaping else logits).log_softmax(-1)[at, targets]


def make(positions: int, pairs: int, bias: bool = False) -> tuple[Tensor, Tensor, Tensor, nn.Linear]:
    torch.manual_seed(positions)
    hidden = torch.randn(positions, HIDDEN, dtype=torch.float64, requires_grad=True)
    at = torch.cat([torch.arange(positions), torch.randint(positions, (pairs - positions,))])   # some positions repeat
    order = torch.randperm(pairs)
    return hidden, at[order], torch.randint(VOCAB, (pairs,)), nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=torch.float64)


@pytest.mark.parametrize("positions", [1, 4, 5, 13])     # less than, exactly and more than chunks of 4
@pytest.mark.parametrize(("frozen", "bias", "shaping"), [
    (True, False, None), (False, False, None), (True, True, None), (True, False, capped), (False, False, capped)])
def test_values_and_gradients_equal_plain_autograd(positions: int, frozen: bool, bias: bool, shaping: Shaping,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK", 4)
    hidden, at, targets, head = make(positions, positions + 7, bias)
    head.requires_grad_(not frozen)
    inputs = [hidden] if frozen else [hidden, head.weight]
    got = head_logprobs(hidden, at, targets, head, shaping)
    expected = whole(hidden, at, targets, head, shaping)
    assert (got - expected).abs().max() <= 1e-12
    downstream = torch.randn_like(expected)
    for ours, theirs in zip(torch.autograd.grad(got, inputs, downstream),
                            torch.autograd.grad(expected, inputs, downstream), strict=True):
        assert (ours - theirs).abs().max() <= 1e-12


def test_the_frozen_head_takes_its_own_backward_and_others_do_not() -> None:
    hidden, at, targets, head = make(4, 6)
    head.requires_grad_(False)
    assert "FrozenHead" in type(head_logprobs(hidden, at, targets, head, None).grad_fn).__name__
    head.requires_grad_(True)
    assert "FrozenHead" not in type(head_logprobs(hidden, at, targets, head, None).grad_fn).__name__

    class Scaled(nn.Linear):        # as PEFT does: a linear layer of its own kind
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    other = Scaled(HIDDEN, VOCAB, bias=False, dtype=torch.float64).requires_grad_(False)
    got = head_logprobs(hidden, at, targets, other, None)
    assert (got - whole(hidden, at, targets, other, None)).abs().max() <= 1e-12


def test_without_gradient_nothing_is_kept() -> None:
    hidden, at, targets, head = make(5, 9)
    head.requires_grad_(False)
    with torch.no_grad():
        got = head_logprobs(hidden, at, targets, head, None)
    assert got.grad_fn is None
    assert (got - whole(hidden, at, targets, head, None)).abs().max() <= 1e-12


def test_half_precision_accumulates_in_float32() -> None:
    hidden, at, targets, head = make(5, 9)
    got = head_logprobs(hidden.detach().bfloat16(), at, targets, head.bfloat16().requires_grad_(False), None)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("positions", [1, 5, 13])
@pytest.mark.parametrize(("frozen", "shaping"), [(True, None), (False, None), (True, capped)])
def test_every_reducer_and_its_gradient_equal_plain_autograd(positions: int, frozen: bool, shaping: Shaping,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK", 4)
    hidden, at, targets, head = make(positions, positions + 7)
    head.requires_grad_(not frozen)
    select = torch.randint(VOCAB, (len(at), 3))
    got = reduce_head(hidden, at, targets, head, shaping, Wanted(True, True, select))
    logits = head(hidden)
    logprobs = (shaping(logits) if shaping else logits).log_softmax(-1)
    wanted = Reduced(logprobs[at, targets], -(logprobs.exp() * logprobs).sum(-1)[at], logprobs.mean(-1)[at],
                     logprobs[at].gather(1, select))
    for name in ("logprobs", "entropy", "mean_logprobs", "selected"):
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert (ours - theirs).abs().max() <= 1e-12
        downstream = torch.randn_like(theirs)
        one, other = (torch.autograd.grad(x, hidden, downstream, retain_graph=True)[0] for x in (ours, theirs))
        assert (one - other).abs().max() <= 1e-12, name
    both = [sum((getattr(r, n).sin().sum() for n in ("logprobs", "entropy", "mean_logprobs", "selected")),
                torch.zeros(())) for r in (got, wanted)]     # all at once
    one, other = (torch.autograd.grad(x, hidden)[0] for x in both)
    assert (one - other).abs().max() <= 1e-12


def test_the_most_likely_tokens_are_those_of_the_whole_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "CHUNK", 4)
    hidden, at, targets, head = make(9, 15)
    got = reduce_head(hidden, at, targets, head.requires_grad_(False), None, Wanted(top=4))
    values, ids = head(hidden).log_softmax(-1)[at].topk(4)
    assert got.top_ids is not None
    assert got.top_logprobs is not None
    assert torch.equal(got.top_ids, ids)
    assert (got.top_logprobs - values).abs().max() <= 1e-12
