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


class NotByRows(Exception):
    """A layer that an adapter changes does not get its tokens as (B, m, d), as experts of a mixture do not."""


@dataclass(frozen=True)
class _Plan:
    """`names` of the adapters in use; their inputs are laid out as n times g rows, filled up with any row."""

    names: tuple[str, ...]
    rows: int                   # B
    width: int                  # m
    laid: Tensor | None         # (n * g,) the row that each of them is; None where rows lie so already
    place: Tensor | None        # (B,) where each row is among them; None as above
    none: Tensor | None         # (B, 1, 1) True for rows without an adapter; None where all have one


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

    def send(self, names: Sequence[str | None], width: int) -> None:
        """The adapters of the rows of the next forwards, of which each is `width` tokens."""
        used = tuple(sorted({name for name in names if name is not None}))
        if not used:
            self._plan = None
            return
        if used != self._stacked:
            self._stacks, self._stacked = {}, used
        of = {name: [row for row, given in enumerate(names) if given == name] for name in used}
        most = max(map(len, of.values()))
        laid = [row for name in used for row in of[name] + [0] * (most - len(of[name]))]
        place = [0] * len(names)
        for i, name in enumerate(used):
            for j, row in enumerate(of[name]):
                place[row] = i * most + j
        device = next(self.model.parameters()).device
        as_is = laid == list(range(len(names)))
        none = torch.tensor([name is None for name in names], device=device)
        self._plan = _Plan(used, len(names), width, None if as_is else torch.tensor(laid, device=device),
                           None if as_is else torch.tensor(place, device=device),
                           none[:, None, None] if None in names else None)

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
        given = args[0]
        if given.dim() != 3 or len(given) != plan.rows or given.shape[1] not in (plan.width, 1):
            raise NotByRows
        given = given.to(down.dtype)
        laid = given if plan.laid is None else given.index_select(0, plan.laid)
        added = torch.bmm(torch.bmm(laid.reshape(len(plan.names), -1, given.shape[2]), down), up)
        added = added.reshape(len(laid), given.shape[1], -1)
        if plan.place is not None:
            added = added.index_select(0, plan.place)
        if plan.none is not None:
            added = added.masked_fill(plan.none, 0)
        return (output + added).to(output.dtype)


def _stack(layer: Any, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """The adapters' matrices of one layer, turned and scaled; smaller ranks are filled with zeros. None: none has it.
    """
    if any(name in layer.lora_embedding_A for name in names):
        raise NotByRows
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
