"""A prefix computed once for several forwards: its keys, values and hidden states, cut off from their graph.

What starts from a prefix leaves its gradients in the prefix's leaves; `backward` then carries their sum through the
graph of the prefix, once. So the forwards in between hold one graph at a time, beside that of the prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Prefix:
    """Tokens that forwards can start from. Layers are known by the identity of their attention module."""

    tokens: int                                             # how many, those of the prefixes above included
    keys: dict[int, Tensor] = field(default_factory=dict)           # (1, Hkv, virtual + tokens, D) leaves
    values: dict[int, Tensor] = field(default_factory=dict)
    hidden: Tensor | None = None                                    # (tokens, d) leaf
    virtual: int = 0                                        # virtual tokens above them, which are not counted as tokens
    _sources: list[tuple[Tensor, Tensor]] = field(default_factory=list)     # tensor in the graph, its leaf

    def record(self, module: nn.Module, key: Tensor, value: Tensor, above: Prefix | None) -> None:
        """Keep a layer's keys and values, behind those of the prefix that this one starts from."""
        layer = id(module)
        if layer in self.keys:      # computed again by activation checkpointing
            return
        if above is not None:
            key, value = (torch.cat([kept[layer], own], 2) for kept, own in ((above.keys, key), (above.values, value)))
        self.keys[layer], self.values[layer] = self._leaf(key), self._leaf(value)

    def close(self, hidden: Tensor) -> Prefix:
        """Keep the last hidden states (tokens, d), those of the prefix above included."""
        self.hidden = self._leaf(hidden)
        return self

    def backward(self) -> None:
        """Carry what the leaves have received through the prefix itself, and let its graph go."""
        reached = [(source, leaf.grad) for source, leaf in self._sources if leaf.grad is not None]
        if reached:
            torch.autograd.backward([source for source, _ in reached], [grad for _, grad in reached])
        self._sources.clear()

    def _leaf(self, source: Tensor) -> Tensor:
        leaf = source.detach()
        if source.requires_grad:
            leaf.requires_grad_()
            self._sources.append((source, leaf))
        return leaf


def chain(alive: list[tuple[int, Prefix]], parent: int) -> Prefix | None:
    """The prefix of the piece `parent`, once every prefix that is not above it has gone through its backward."""
    while alive and alive[-1][0] != parent:
        alive.pop()[1].backward()
    return alive[-1][1] if alive else None
