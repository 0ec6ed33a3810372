"""Bottleneck adapters: a frozen base with small trainable networks at the attention and the MLP of every block.

Three placements: after both, before the residual is added (Houlsby et al. 2019, arXiv 1902.00751); after the MLP only
(Pfeiffer et al. 2020, arXiv 2005.00247); beside the MLP (He et al. 2021, arXiv 2110.04366). Each network narrows a
hidden state, applies a non-linearity and widens it again by weights that are zero at the start, so that training begins
at the base itself. In families that normalise what a block's part gives (Gemma), adapters come before that norm.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.methods.base import MethodMemory
    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
"""What families call these parts of a block."""
SCALE = 4.0
BLOCK_PART = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.([^.]+)\.")


class Method(PeftMethod):
    """Bottleneck adapters, as a tuner of PEFT's kind."""

    mergeable: ClassVar[bool] = False
    space: ClassVar[Mapping[str, Any]] = {"reduction": [4, 8, 16, 32]}

    kind: Literal["adapters"] = "adapters"
    placement: Literal["houlsby", "pfeiffer", "parallel"] = "pfeiffer"
    """`houlsby`: after attention and after the MLP. `pfeiffer`: after the MLP. `parallel`: beside the MLP."""
    reduction: Annotated[int, Field(ge=1)] = 16
    """By how much the bottleneck is narrower than a hidden state."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Width of the bottleneck, instead of `reduction`."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """The non-linearity of the bottleneck."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on what an adapter adds."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Factor of what a parallel adapter adds; 4 unless given, as in its paper."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scale is not None and self.placement != "parallel":
            raise ValueError("scale is for adapters beside the MLP, and needs `placement: parallel`")
        if self.size is not None and self.reduction != type(self).model_fields["reduction"].default:
            raise ValueError("size and reduction both say how wide the bottleneck is; leave one of them out")
        return self

    @property
    def exact_when_shared(self) -> bool:
        return self.dropout == 0

    def check(self, shape: Shape) -> None:
        super().check(shape)
        blocks: dict[str, set[str]] = {}
        for name in shape.weights:
            if found := BLOCK_PART.search(name):
                blocks.setdefault(found[1], set()).add(found[2])
        self._parts(list(blocks.values()), shape.layers)

    def config(self, model: nn.Module) -> Any:
        from tuneloop.methods import _bottleneck

        settings = cast(Any, model).config.get_text_config()
        hidden = settings.hidden_size
        parallel = self.placement == "parallel"
        return _bottleneck.BottleneckConfig(
            target_modules=self._targets(model, settings.num_hidden_layers), hidden=hidden, size=self._size(hidden),
            activation=self.activation, dropout=self.dropout, parallel=parallel, task_type=cast(Any, "CAUSAL_LM"),
            scale=(self.scale or SCALE) if parallel else 1.0)

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        from tuneloop.methods import _bottleneck

        _bottleneck.register()
        return super().apply(model, seed, rows)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        from tuneloop.methods import _bottleneck

        _bottleneck.register()
        return super().load(base, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        from tuneloop.methods import _bottleneck

        raise UserError(f"{_bottleneck.NO_MERGE}, so method adapters gives no plain model.",
                        fix="export the adapter instead: --to adapter")

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if parameters >= 1e9:
            return 3e-4, "within the 3e-5 to 3e-3 that Houlsby et al. (1902.00751) tried; lower for larger bases"
        return 1e-3, ("within the 3e-5 to 3e-3 that Houlsby et al. (1902.00751) tried; the 1e-4 of Pfeiffer et al. "
                      "(2005.00247) hardly moved a small base in 125 steps")

    def count(self, shape: Shape) -> int:
        size, adapters = self._size(shape.hidden), shape.layers * (2 if self.placement == "houlsby" else 1)
        return adapters * (2 * shape.hidden * size + size + shape.hidden)

    def memory(self, shape: Shape) -> MethodMemory:
        """An adapter keeps its own input and what enters its second layer; the sum is a tensor of its own."""
        found, size = super().memory(shape), self._size(shape.hidden)
        adapters = shape.layers * (2 if self.placement == "houlsby" else 1)
        bent = {"relu": 1, "gelu": 2, "silu": 2}[self.activation]       # ReLU keeps nothing but its result
        kept, made = Counter[float](), Counter(found.made)
        kept.update({shape.hidden: adapters, size: bent * adapters})
        made.update({shape.hidden: 3 * adapters, size: 2 * adapters})
        return replace(found, kept=kept, made=made)

    def _size(self, hidden: int) -> int:
        return self.size or max(1, hidden // self.reduction)

    def _targets(self, model: nn.Module, layers: int) -> str:
        """A regular expression for the full names of the modules to wrap, or a UserError."""
        from torch import nn

        decoder = getattr(model, "get_decoder", lambda: None)()
        inside = {id(m) for m in (decoder or model).modules()}
        lists = [(name, module) for name, module in model.named_modules()
                 if isinstance(module, nn.ModuleList) and len(module) == layers and id(module) in inside
                 and all(list(block.children()) for block in module)]
        name, blocks = min(lists, key=lambda found: found[0].count("."), default=("", nn.ModuleList()))
        parts = self._parts([{part for part, module in block.named_children() if _adds_no_residual(module)}
                             for block in blocks], layers)
        return rf"{re.escape(name)}\.\d+\.({'|'.join(parts)})"

    def _parts(self, blocks: list[set[str]], layers: int) -> list[str]:
        """Names of the parts of blocks that get adapters: one of every sort in each block, or a UserError."""
        wanted = {"attention": ATTENTION, "MLP": MLP} if self.placement == "houlsby" else {"MLP": MLP}
        for sort, names in wanted.items():
            missing = next((block for block in blocks if len(block.intersection(names)) != 1), None)
            if missing is not None or len(blocks) != layers:
                there = ", ".join(sorted(missing or ())) or "none that tuneloop finds"
                raise UserError(f"method.placement {self.placement} finds no {sort} of its own in every block of this "
                                f"base; the modules of a block are: {there}.", wanted=f"one of: {', '.join(names)}",
                                fix="use method: lora, which adapts linear layers")
        return [name for names in wanted.values() for name in names if any(name in block for block in blocks)]


def _adds_no_residual(module: nn.Module) -> bool:
    """Whether what it gives is without the residual, which Bloom's parts add themselves."""
    return "residual" not in inspect.signature(module.forward).parameters
