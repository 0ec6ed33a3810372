"""Low-rank adaptation: frozen base, trainable low-rank updates of its linear layers (Hu et al. 2021, arXiv 2106.09685).

The update of a layer W is (alpha / rank) B A, with B zero at the start, so that training begins at the base itself.
All linear layers of the blocks are adapted unless `targets` says otherwise, as in QLoRA (arXiv 2305.14314, section 4);
the experts of a mixture and their router are not among them, since transformers holds them as no linear layers.
PEFT does the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod
from tuneloop.methods.base import MethodMemory
from tuneloop.models.shape import EXPERT_LAYERS

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import LinearShape, Shape
    from tuneloop.types import Rendered

TWO_PARTS = ("pissa", "olora", "loftq")
"""Starts whose B A is not zero: a second, frozen adapter holds what it was."""


class Method(PeftMethod):
    """LoRA by PEFT."""

    space: ClassVar[Mapping[str, Any]] = {"rank": [4, 8, 16, 32, 64]}

    kind: Literal["lora", "qlora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of every update."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Scale of the update is alpha / rank; twice the rank unless given."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of every update."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the layers to adapt, such as [q_proj, v_proj]; all linear layers unless given."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that large ranks learn as fast as small ones (rsLoRA, arXiv 2312.03732)."""
    dora: bool = False
    """Train the length of every output's weights apart from their direction (DoRA, arXiv 2402.09353); slower."""
    start: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "eva", "loftq"] = "default"
    """Where the update begins. `default` and `gaussian`: A random, B zero. `orthogonal`: both random, B A zero.
    `pissa` (arXiv 2404.02948): the largest singular directions of each weight train. `olora` (arXiv 2406.01775): the
    first directions of its QR decomposition. `eva` (arXiv 2410.07170): A takes the main directions of each layer's
    inputs on some training rows. `loftq` (arXiv 2310.08659), for a base in 4 bits: B A makes good what quantising lost.
    What pissa, olora and loftq train is saved as a LoRA of twice the rank, for the base as it was."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.start == "loftq" and self.bits != 4:
            raise ValueError("start loftq makes good what 4 bits lose, and needs `bits: 4` (as in method qlora)")
        if self.dora and self.start in TWO_PARTS:
            raise ValueError(f"start {self.start} subtracts a part of the weights by a second update, and `dora` would "
                             "take lengths without it; choose one of them")
        if self.start == "orthogonal" and self.rank % 2:
            raise ValueError("start orthogonal halves the rank, which must be even")
        return self

    @property
    def exact_when_shared(self) -> bool:
        return self.dropout == 0

    def check(self, shape: Shape) -> None:
        super().check(shape)
        there = {name for name, *_ in shape.adaptable_shapes()}
        self._refuse_unknown(there)
        narrow = [(min(i, o), name, i, o) for name, i, o, _ in self._adapted(shape) if 1 < min(i, o) < self.rank]
        if narrow:      # gates with a single output are adapted, too, at whatever rank
            side, name, inputs, outputs = min(narrow)
            raise UserError(f"method.rank {self.rank} is larger than the layer {name}, which has {inputs} inputs and "
                            f"{outputs} outputs.", wanted=f"at most {side}: an update of that rank can be anything",
                            fix=f"set method.rank to {side} or less, or leave {name} out of method.targets")

    def config(self, model: nn.Module) -> Any:
        from peft import EvaConfig, LoraConfig

        targets = self._targets(model)
        own: Any = {"gaussian": "gaussian", "eva": "eva"}.get(self.start, True)     # the others are done here
        eva = EvaConfig(rho=1.0) if self.start == "eva" else None   # every layer keeps its rank, as the plan counts
        return LoraConfig(r=self.rank, lora_alpha=cast(int, self.alpha or 2 * self.rank), lora_dropout=self.dropout,
                          target_modules=targets, task_type="CAUSAL_LM", use_rslora=self.rslora,
                          use_dora=self.dora, init_lora_weights=own, eva_config=eva)

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        from tuneloop.methods import _lora_start

        tuned = super().apply(model, seed, rows)
        if cast(Any, tuned).peft_config[_lora_start.TUNED].target_parameters:
            raise UserError("To PEFT, layers of this base share their names with the experts of the mixture.",
                            wanted="layers beside the experts, which are not adapted",
                            fix="name those of the attention in method.targets, such as [q_proj, v_proj]")
        _lora_start.begin(tuned, self.start, seed, rows)
        return tuned

    def save(self, model: nn.Module, folder: Path) -> None:
        from tuneloop.methods import _lora_start

        if self.start in TWO_PARTS and _lora_start.START in cast(Any, model).peft_config:
            _lora_start.save_whole_change(model, folder)
        else:
            super().save(model, folder)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        from tuneloop.methods import _lora_start

        if self.start == "loftq" and getattr(base, "is_quantized", False):
            return _lora_start.load_first_half(base, folder)
        return super().load(base, folder)

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        reason = ("above the usual 1e-5 to 5e-5, which is for full fine-tuning: an update that starts at zero and has "
                  "few parameters needs about ten times more")
        return (5e-4 if parameters < 1e9 else 2e-4), reason + ("; a base below 1B parameters bears more still"
                                                               if parameters < 1e9 else "")

    def count(self, shape: Shape) -> int:
        return sum((self.rank * (i + o) + self.dora * o) * n for _, i, o, n in self._adapted(shape))

    def memory(self, shape: Shape) -> MethodMemory:
        """Of two adapters, one is frozen and comes on top of the base; it is held in float32, too.

        A layer's result is made of four: its own, the update's, that one scaled, and the sum. DoRA keeps the first two
        for the lengths it trains.
        """
        found, adapted = super().memory(shape), self._adapted(shape)
        frozen = 4 * found.trainable_parameters if self.start in TWO_PARTS else 0
        kept, made = Counter[float](), Counter(found.made)
        for _, _, outputs, count in adapted:
            kept.update({self.rank: count, outputs: 2 * count * self.dora})
            made.update({self.rank: count, outputs: (6 if self.dora else 3) * count})
        return replace(found, base_bytes=found.base_bytes + frozen, inputs=frozenset(name for name, *_ in adapted),
                       kept=kept, made=made)

    def _adapted(self, shape: Shape) -> list[LinearShape]:
        return [linear for linear in shape.adaptable_shapes() if self.targets is None or linear[0] in self.targets]

    def _targets(self, model: nn.Module) -> list[str] | str:
        """What PEFT shall adapt, or a UserError about names that this base does not have."""
        from torch import nn

        head = cast(Any, model).get_output_embeddings()
        layers = [(name.rpartition(".")[2], module) for name, module in model.named_modules()
                  if getattr(getattr(module, "weight", None), "ndim", 0) == 2
                  and module is not head and not isinstance(module, nn.Embedding)]
        self._refuse_unknown({name for name, _ in layers})
        if self.targets is not None:
            return self.targets
        if any(name.endswith(".experts") for name, _ in model.named_modules()):     # to PEFT, "all-linear" means them
            return sorted({name for name, module in layers if isinstance(module, nn.Linear)} - EXPERT_LAYERS)
        return "all-linear"

    def _refuse_unknown(self, there: set[str]) -> None:
        unknown = sorted(set(self.targets or []) - there)
        if unknown:
            raise UserError(f"method.targets names layers that this base does not have: {', '.join(unknown)}.",
                            wanted=f"some of: {', '.join(sorted(there))}")
