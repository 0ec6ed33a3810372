"""Rows of one batch answered with different LoRA adapters, or with none: one product with the base for all rows, and
the adapters' small products grouped (as in Punica, arXiv 2310.18547, and S-LoRA, arXiv 2311.03285).

Shapes: B rows, m tokens in each; n adapters in use, g rows of the one with most, r the largest rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuneloop.methods._peft import bare

EXTRAS = ("use_dora", "modules_to_save", "trainable_token_indices", "alora_invocation_tokens", "target_parameters",
          "layer_replication", "lora_bias", "arrow_config", "use_qalora")
"""Options of LoRA that are more than two matrices for each layer."""


def is_plain(config: Any) -> bool:
    """Whether an adapter is nothing but two matrices for each of its layers, so that it can share a batch."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    return (kind == "LORA" and config.bias == "none"
            and not any(getattr(config, name, None) for name in EXTRAS))


@dataclass(frozen=True)
class _Plan:
    names: tuple[str, ...]      # of the adapters in use
    rows: Tensor | None         # (k,) rows that have one; None where all do
    place: Tensor | None        # (k,) of each of them among the n * g; None where rows are laid out so already
    most: int                   # g


class Routes:
    """Which row of a batch takes which adapter, for a PEFT model whose adapters are all plain LoRA."""

    def __init__(self, model: Any) -> None:
        from peft.tuners.lora import LoraLayer

        self.model = model
        self._layers: list[nn.Module] = [m for m in model.modules() if isinstance(m, LoraLayer)]
        self._stacks: dict[int, tuple[Tensor, Tensor] | None] = {}
        self._stacked: tuple[str, ...] = ()
        self._plan: _Plan | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """While open, the model adds to every row what its adapter says, and none of its own."""
        hooks = [layer.register_forward_hook(self._add) for layer in self._layers]
        try:
            with bare(self.model):
                yield
        finally:
            for hook in hooks:
                hook.remove()
            self._stacks, self._stacked, self._plan = {}, (), None

    def send(self, names: Sequence[str | None]) -> None:
        """The adapters of the rows of the next forwards."""
        used = tuple(sorted({name for name in names if name is not None}))
        if not used:
            self._plan = None
            return
        if used != self._stacked:
            self._stacks, self._stacked = {}, used
        counts = dict.fromkeys(used, 0)
        rows, at = [], []
        for row, name in enumerate(names):
            if name is not None:
                rows.append(row)
                at.append((used.index(name), counts[name]))
                counts[name] += 1
        most = max(counts.values())
        place = [group * most + i for group, i in at]
        device = next(self.model.parameters()).device
        self._plan = _Plan(
            used, None if len(rows) == len(names) else torch.tensor(rows, device=device),
            None if place == list(range(len(used) * most)) else torch.tensor(place, device=device), most)

    def _add(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        plan = self._plan
        if plan is None:
            return output
        if id(layer) not in self._stacks:
            self._stacks[id(layer)] = _stack(layer, plan.names)
        matrices = self._stacks[id(layer)]
        if matrices is None:
            return output
        down, up = matrices                                             # (n, in, r), (n, r, out)
        given = args[0] if plan.rows is None else args[0][plan.rows]
        given = given.to(down.dtype)
        width, size = given.shape[1:]
        if plan.place is not None:
            spread = given.new_zeros(len(plan.names) * plan.most, width, size)
            spread[plan.place] = given
            given = spread
        added = torch.bmm(torch.bmm(given.reshape(len(plan.names), -1, size), down), up)
        added = added.reshape(len(plan.names) * plan.most, width, -1)
        if plan.place is not None:
            added = added[plan.place]
        added = added.to(output.dtype)
        return output + added if plan.rows is None else output.index_add(0, plan.rows, added)


def _stack(layer: Any, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """The adapters' matrices of one layer, turned and scaled; smaller ranks are filled with zeros. None: none has it.
    """
    has = [name in layer.lora_A for name in names]
    if not any(has):
        return None
    known = layer.lora_A[next(name for name, there in zip(names, has, strict=True) if there)].weight
    rank = max(layer.lora_A[name].weight.shape[0] for name, there in zip(names, has, strict=True) if there)
    outputs = next(layer.lora_B[name].weight.shape[0] for name, there in zip(names, has, strict=True) if there)
    down = known.new_zeros(len(names), known.shape[1], rank)
    up = known.new_zeros(len(names), rank, outputs)
    for i, name in enumerate(names):
        if has[i]:
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            down[i, :, :a.shape[0]] = a.T
            up[i, :a.shape[0]] = b.T * layer.scaling[name]
    return down, up
