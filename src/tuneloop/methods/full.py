"""Full fine-tuning: every parameter of the base trains, or just some blocks, biases or norms of it.

`only: [biases]` is BitFit (Ben Zaken et al. 2021, arXiv 2106.10199), `only: [norms]` is the tuning of layer norms
(Zhao et al. 2023, arXiv 2312.11420). Whatever trains, the result is a whole model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from tuneloop.errors import UserError
from tuneloop.methods.base import MethodMemory, MethodSpec, quantised_bytes

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered

BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")
KINDS = {
    "biases": re.compile(r"(?:\.|_)bias$"),
    "norms": re.compile(r"(?:^|\.)(?:[^.]*norm[^.]*|ln_?[^.]*)\.(?:weight|bias)$"),
}
"""What the names of biases and of norms (their own biases included) look like, in files as in models."""


class Method(MethodSpec):
    """What is chosen trains, all unless said otherwise; the result is a model of its own, as large as the base."""

    artefact: ClassVar[str] = "model"

    kind: Literal["full"] = "full"
    layers: int | Annotated[list[int], Field(min_length=1)] | None = None
    """Blocks that train: 4 the last four, -4 the first four, [0, 5] these, counted from 0. The rest is frozen."""
    only: Annotated[list[Literal["biases", "norms"]], Field(min_length=1)] | None = None
    """Train just the biases, the norms, or both, of the blocks that train."""

    @property
    def partial(self) -> bool:
        """Whether some of the base is frozen; its embedding and head then are."""
        return self.layers is not None or self.only is not None

    def check(self, shape: Shape) -> None:
        if shape.quantised is not None:
            raise UserError(f"The weights of this base are quantised ({shape.quantised}), and quantised weights cannot "
                            "train.", wanted="a base in full precision", fix="choose that base, or method: lora")
        self._trained(shape.weights, shape.layers)

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        named = dict(model.named_parameters())
        blocks = cast(Any, model).config.get_text_config().num_hidden_layers
        trained = set(self._trained(named, blocks))
        for name, parameter in named.items():
            parameter.requires_grad_(name in trained)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        cast(Any, model).save_pretrained(folder)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        from tuneloop.models.load import load_model

        return load_model(folder, dtype=next(base.parameters()).dtype)

    def merge(self, model: nn.Module) -> nn.Module:
        return model

    def reference(self, model: nn.Module) -> AbstractContextManager[None]:
        raise UserError("A fully fine-tuned model no longer holds its base.", fix="load the base a second time")

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if self.only is not None:
            return 1e-3, "the upper end of BitFit's 1e-4 to 1e-3 (2106.10199): so few parameters need large steps"
        if self.layers is not None:
            return (1e-4 if parameters < 1e9 else 2e-5), ("twice that of full fine-tuning: the frozen blocks keep what "
                                                          "the base knows, and fewer have to do the work")
        if parameters < 1e9:
            return 5e-5, "the upper end of the usual 1e-5 to 5e-5, since the base is below 1B parameters"
        return 1e-5, "the lower end of the usual 1e-5 to 5e-5: every parameter moves, and large bases forget"

    def memory(self, shape: Shape) -> MethodMemory:
        names = self._trained(shape.weights, shape.layers)
        linear = {name for name, *_ in shape.linear_shapes()}
        inputs = frozenset(part for name in names if name.endswith(".weight")
                           and (part := name.removesuffix(".weight").rpartition(".")[2]) in linear)
        blocks = [int(found[1]) for name in names if (found := BLOCK.search(name))]
        return MethodMemory(
            sum(math.prod(shape.weights[name]) for name in names), frozen_head=self.partial,
            base_bytes=quantised_bytes(shape), inputs=inputs, norms=any(KINDS["norms"].search(name) for name in names),
            blocks=shape.layers - min(blocks, default=0) if self.partial else None, added=False)

    def _trained(self, names: Iterable[str], blocks: int) -> list[str]:
        """Names of the parameters that train, of a base with so many blocks, or a UserError."""
        names = list(names)
        if self.layers is not None:
            chosen = self._blocks(blocks)
            names = [name for name in names if (found := BLOCK.search(name)) and int(found[1]) in chosen]
        if self.only is None:
            return names
        there = {kind: [name for name in names if pattern.search(name)] for kind, pattern in KINDS.items()}
        missing = [kind for kind in self.only if not there[kind]]
        if missing:
            kinds = " and ".join(kind for kind, found in there.items() if found) or "neither biases nor norms"
            where = "This base has" if self.layers is None else "The blocks of method.layers have"
            raise UserError(f"{where} no {' and no '.join(missing)} to train.", wanted=f"what is there: {kinds}",
                            fix="change method.only, or choose another method such as lora")
        wanted = {name for kind in self.only for name in there[kind]}
        return [name for name in names if name in wanted]

    def _blocks(self, blocks: int) -> set[int]:
        """Numbers of the blocks that train."""
        if isinstance(self.layers, list):
            wrong = [str(n) for n in self.layers if not 0 <= n < blocks]
            if not wrong:
                return set(self.layers)
            found = f"method.layers names blocks that this base does not have: {', '.join(wrong)}."
        else:
            assert self.layers is not None
            if 0 < abs(self.layers) <= blocks:
                return set(range(blocks)[-self.layers:] if self.layers > 0 else range(-self.layers))
            found = f"method.layers asks for {self.layers} of {blocks} blocks."
        raise UserError(found, wanted=f"1 to {blocks} (the last ones), -1 to -{blocks} (the first ones), or a list of "
                                      f"numbers from 0 to {blocks - 1}")
