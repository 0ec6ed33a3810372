"""How samples go through a model: the best way that is exact on this very model, found by trying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tuneloop.compute.model import ForestModel, Mode
from tuneloop.compute.packing import MIN_SHARED_TOKENS, build_forest, trunk_forest
from tuneloop.compute.passes import passes
from tuneloop.compute.virtual import virtual_of
from tuneloop.errors import UserError
from tuneloop.types import Piece, Rendered

PROBE_TOKENS = 2 * MIN_SHARED_TOKENS + 8    # the fewest tokens of a row that can fork half-way and share its first half
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-4}
"""What re-ordering of sums may change, in nats and relative to the gradient; a wrong mask changes far more."""
COARSE = 0.1    # in half precision, and in 8 bits, where rounding may flip
NOISE = 0.01    # on parameters that begin at zero or near one


@dataclass(frozen=True)
class Packing:
    """How samples go through the model, and why.

    forest: no padding; prefixes once where `share`.
    padded: rows of a batch padded on the right, by the model's own attention.
    rows: one sample after the other through the model's own forward and head.
    """

    mode: Mode
    share: bool
    why: str


def choose_packing(model: nn.Module, samples: Sequence[Rendered], *, share: bool = True) -> Packing:
    """The first of sharing, packing and padding whose log-probs and gradients are the model's own, on its own rows.

    `share` off: the method has dropout, which must differ from row to row.
    """
    virtual = virtual_of(model)
    longest = max(len(s) for s in samples) + (0 if virtual is None else virtual.slots)
    window = _window(ForestModel(model).inner.config)
    refused = []
    if window is not None and window < longest:
        refused.append(f"the base's attention window of {window} tokens is shorter than the longest row of {longest}")
        first = 2
    else:
        first = 0 if share else 1
    eight_bits = any(p.dtype == torch.int8 for p in model.parameters())
    tolerance = COARSE if eight_bits else TOLERANCE.get(next(model.parameters()).dtype, COARSE)
    pair = _probe(samples[0], window)
    try:
        truth = _measure(model, "rows", _pieces(pair, False))
    except Exception as error:      # any model class of transformers may refuse in its own way
        why = str(error) or type(error).__name__
        raise UserError(f"This base cannot be trained: its own forward and backward fail: {why}.",
                        fix="choose another base") from error
    for packing in WAYS[first:]:
        try:
            found = _measure(model, packing.mode, _pieces(pair, packing.share))
            errors = [_error(found, truth)]
            if packing.share:
                errors.append(_error(_measure(model, packing.mode, _trunk_pieces(pair)), truth))
        except Exception as error:      # any model class of transformers may refuse in its own way
            refused.append(f"{packing.why}: refused ({error})")
            continue
        if max(errors) <= tolerance:
            off = "" if share or packing.mode != "forest" else "prefixes are not shared, as dropout must differ from " \
                                                               "row to row; "
            agree = f"; log-probs and gradients agree with the base's own to {max(errors):.0e}"
            why = "; ".join([*refused, f"{off}{packing.why}{agree}"])
            return Packing(packing.mode, packing.share, why)
        refused.append(f"{packing.why}: differs from the base's own by {max(errors):.1e}")
    return Packing("rows", False, "; ".join([*refused, "rows are computed one by one"]))


def confirm_packing(model: nn.Module, samples: Sequence[Rendered], packing: Packing) -> Packing:
    """`packing` as chosen on the base, where it is exact with a method applied, too; else what is.

    A method that has just been applied often changes nothing yet, so what it trains is moved a little while this looks.
    """
    with _moved(model):
        found = choose_packing(model, samples, share=packing.share)
    return packing if (found.mode, found.share) == (packing.mode, packing.share) else \
        replace(found, why=f"with the method applied: {found.why}")


@contextmanager
def _moved(model: nn.Module) -> Iterator[None]:
    """Noise on all that trains, taken back bit for bit."""
    kept = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad]
    draw = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.add_(NOISE * torch.randn(value.shape, generator=draw).to(value))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


WAYS = (
    Packing("forest", True, "prefixes shared, no padding"),
    Packing("forest", False, "no padding, prefixes not shared"),
    Packing("padded", False, "rows padded to the longest"),
)

Measured = tuple[Tensor, Tensor]        # log-probs (M,), gradient to the embeddings summed by token id


def _probe(sample: Rendered, window: int | None) -> list[Rendered]:
    """A row, and one that leaves it half-way and is shorter; both go on after the fork.

    The second's tokens are laid behind the first's, so that a layer which runs along the sequence (recurrence,
    convolution) is noticed as well as attention that sees too much.
    """
    draw, known = np.random.default_rng(0), int(sample.ids.max()) + 1       # any tokens that the model knows will do
    missing = max(0, min(PROBE_TOKENS, window or PROBE_TOKENS) - len(sample))
    ids = np.concatenate([sample.ids, draw.integers(0, known, missing)])
    half = len(ids) // 2
    weights = np.zeros(len(ids), np.float32)
    weights[half:half + MIN_SHARED_TOKENS] = weights[-1] = 1
    fork = np.concatenate([ids[:half], draw.integers(0, known, len(ids) - half)])
    short = max(half + 2, len(ids) - 3)
    ends = weights[:short].copy()
    ends[-1] = 1
    return [Rendered(ids, weights), Rendered(fork[:short], ends)]


def _pieces(pair: list[Rendered], share: bool) -> list[Piece]:
    return [Piece(build_forest(pair, share=share), [0, 1])]


def _trunk_pieces(pair: list[Rendered]) -> list[Piece]:
    """Both rows apart, after a trunk of what they share but its last token: what the fork shares comes in both ways."""
    given = len(pair[0].ids) // 2 - 1
    return [Piece(trunk_forest(pair[0].ids[:given], 2), []),
            *(Piece(build_forest([row]), [i], given, 0) for i, row in enumerate(pair))]


def _measure(model: nn.Module, mode: Mode, pieces: list[Piece]) -> Measured:
    device = next(model.parameters()).device
    logprobs = []
    with torch.enable_grad(), _still(model), _embedded(ForestModel(model).inner) as leaves:
        for _, _, out in passes(ForestModel(model, mode), pieces, device):
            out.logprobs.sum().backward()  # type: ignore[no-untyped-call]    # torch types no backward
            logprobs.append(out.logprobs.detach())
    size = 1 + max(int(ids.max()) for ids, _ in leaves)
    total = torch.zeros(size, leaves[0][1].shape[-1], dtype=leaves[0][1].dtype, device=device)
    for ids, leaf in leaves:
        total.index_add_(0, ids.flatten(), cast(Tensor, leaf.grad).flatten(0, -2))
    return torch.cat(logprobs), total


def _error(found: Measured, truth: Measured) -> float:
    """The larger of the greatest difference in log-prob and the relative difference of the gradients."""
    logprobs = (found[0] - truth[0]).abs().max()
    gradient = (found[1] - truth[1]).norm() / truth[1].norm()
    worst = float(max(logprobs, gradient))
    return worst if worst == worst else float("inf")


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Without dropout, and without gradients to weights."""
    was_training, trains = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trains:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter in trains:
            parameter.requires_grad_(True)


@contextmanager
def _embedded(inner: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects every forward's token ids and their embeddings as leaves, whose gradients tell of the whole pass."""
    leaves: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        leaves.append((args[0], leaf))
        return leaf

    handle = inner.get_input_embeddings().register_forward_hook(hook)
    try:
        yield leaves
    finally:
        handle.remove()


def _window(config: Any) -> int | None:
    """The shortest attention window of any layer; None when all of them see everything."""
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    return None if kinds and "sliding_attention" not in kinds else cast(int, window)
