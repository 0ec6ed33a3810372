"""How busy a step keeps the machine: FLOPs it executes, over what the same matrix products reach on their own.

Which products a step makes is seen by hooks in its first pass: per linear layer 2 T i o forward, as much again for the
gradient to its input and for the gradient to its weights, where these are asked for. Attention costs 4 H D FLOPs per
pair of query and key forward and 10 backward (scores are computed again). Then the head. The rate is measured on the
linear layers' products at the step's own number of tokens. The fused weights of experts and virtual
tokens are not counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tuneloop.compute.attention import Layout
from tuneloop.compute.model import ForestModel, logit_shaping
from tuneloop.types import Piece

REPEATS = 3
Product = tuple[int, int, str]      # in, out, "forward" | "input" | "weight"


class Meter:
    """Counts the products of a model once, then tells the utilisation of every step. `head` off: it is not computed."""

    def __init__(self, model: ForestModel, *, head: bool = True) -> None:
        self._model, self._head = model, head
        self._products: Counter[Product] = Counter()
        self._rate: float | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """See the products of one step; later steps make the same ones per token."""
        if self._products:
            yield
            return
        seen: list[tuple[nn.Module, tuple[Product, ...]]] = []
        head = self._model.inner.get_output_embeddings()

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            x, weight = args[0], module.weight
            if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
                return
            kinds = ["forward", *(["input"] if x.requires_grad else []),
                     *(["weight"] if weight.requires_grad else [])]
            seen.append((module, tuple((x.shape[-1], output.shape[-1], kind) for kind in kinds)))

        linear = [m for m in self._model.inner.modules() if m is not head and not isinstance(m, nn.Embedding)
                  and getattr(getattr(m, "weight", None), "ndim", 0) == 2 and not list(m.children())]
        handles = [m.register_forward_hook(hook) for m in linear]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        last = dict(seen)       # one pass of several
        again = 2 if self._model.checkpointing else 1
        for kinds in last.values():
            self._products.update({product: again if product[2] == "forward" else 1 for product in kinds})

    def utilisation(self, pieces: Sequence[Piece], seconds: float) -> float:
        """Executed FLOPs of the step per second, over the rate of its linear layers alone."""
        tokens = [p.computed_tokens for p in pieces if p.computed_tokens]
        if self._rate is None:
            self._rate = self._measure(max(tokens))
        return self.flops(pieces) / seconds / self._rate

    def flops(self, pieces: Sequence[Piece]) -> float:
        """FLOPs that a step over `pieces` executes."""
        tokens = sum(p.computed_tokens for p in pieces)
        linear = 2.0 * tokens * sum(i * o * count for (i, o, _), count in self._products.items())
        config = self._model.inner.config
        width = config.num_attention_heads * (getattr(config, "head_dim", None)
                                              or config.hidden_size // config.num_attention_heads)
        attention = 14 * config.num_hidden_layers * width * sum(_pairs(p) for p in pieces)
        positions = sum(len(set(p.forest.predict_at.tolist())) for p in pieces)
        head = 2 * self._head_products() * config.hidden_size * config.vocab_size * positions if self._head else 0
        return float(linear + attention + head)

    def _head_products(self) -> int:
        """Logits, and what the backward needs; a head that is no frozen matrix computes its logits twice."""
        weight = getattr(self._model.inner.get_output_embeddings(), "weight", None)
        if weight is not None and weight.requires_grad:
            return 4
        return 2 if logit_shaping(self._model.inner.config) is None else 3

    def _measure(self, tokens: int) -> float:
        """FLOPs per second of the products alone, each as often as it occurs."""
        flops = seconds = 0.0
        kind = next(self._model.parameters())
        for (i, o, which), count in self._products.items():
            x, w, g = (torch.randn(*shape, dtype=kind.dtype, device=kind.device)
                       for shape in ((tokens, i), (o, i), (tokens, o)))
            left, right = {"forward": (x, w.T), "input": (g, w), "weight": (g.T, x)}[which]
            times = sorted(_seconds(left, right) for _ in range(REPEATS + 1))
            flops += 2 * tokens * i * o * count
            seconds += times[len(times) // 2 - 1] * count
        return flops / seconds


def _seconds(left: Tensor, right: Tensor) -> float:
    began = time.perf_counter()
    float((left @ right)[0, 0])        # reading a number waits for the device
    return time.perf_counter() - began


def _pairs(piece: Piece) -> float:
    """Pairs of query and key in a piece."""
    layout = Layout.of(piece.forest.segments, 0, piece.given)
    own = sum(count * length * (length + 1) / 2 for _, count, length in layout.runs)
    return own + sum((below - max(end, piece.given)) * (end - start) for start, end, below in layout.crosses)
