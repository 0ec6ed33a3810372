"""What a method is: its part of the recipe, what it does to a model, and what it costs in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tuneloop.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered

BITS = {4: 0.516, 8: 1.0}
"""Bytes per quantised weight: NF4 with double quantisation (QLoRA, section 3), and int8; scales of rows are nothing."""


Widths = Mapping[float, float]
"""Tensors by their width, in numbers per token: how many of them there are, in all blocks together."""


@dataclass(frozen=True)
class MethodMemory:
    """What a method adds to the loaded base, and what its backward asks of the forward (`plan.block` counts with it).
    """

    trainable_parameters: int
    frozen_head: bool           # the head's weights take no gradient, so its logits need not be kept
    base_bytes: int             # the loaded base
    inputs: frozenset[str] | None = frozenset()
    """Linear layers whose inputs the gradient needs, by name; None: all of them."""
    norms: bool = False         # norms train, and so keep what they have normalised
    kept: Widths = field(default_factory=dict)      # further tensors that wait for the backward
    made: Widths = field(default_factory=dict)      # further tensors of the forward, those kept included
    blocks: int | None = None   # how many blocks the backward goes through, the last ones; None: all
    added: bool = True          # what trains is added to the base, in float32; else it is part of it


def quantised_bytes(shape: Shape, bits: int | None = None) -> int:
    """Bytes of a base whose linear layers in the blocks are quantised; the rest, and without `bits` all, is float32.

    The experts of a mixture belong to the rest: transformers holds them fused, as no linear layers.
    """
    linear = 0 if bits is None else sum(i * o * n for _, i, o, n in shape.adaptable_shapes())
    return 4 * (shape.parameters - linear) + (0 if bits is None else int(BITS[bits] * linear))


def int8_made(shape: Shape, bits: int | None) -> dict[float, float]:
    """What layers in 8 bits make of their inputs and results on the way: LLM.int8 goes by float16, int8 and int32.

    4 bits make nothing per token. The weights that are unpacked in every pass leave no trace in the peak.
    """
    made = Counter[float]()
    for _, inputs, outputs, count in shape.adaptable_shapes() if bits == 8 else ():
        made.update({inputs: 2 * count, outputs: 3 * count})
    return dict(made)


class MethodSpec(Spec):
    """A way to train: `apply` changes the model in place so that just what should train requires gradients.

    To add one, write `methods/<name>.py` with a class `Method(MethodSpec)`; the contract tests pick it up by its name.
    """

    artefact: ClassVar[str] = "adapter"
    """Folder of a run that holds what was trained: `adapter` (PEFT layout) or `model` (Hugging Face layout)."""

    space: ClassVar[Mapping[str, Any]] = {}
    """What `tuneloop search` tries of its options unless told: as in search.space, without `method.`."""

    kind: str
    """The method's name, as in `method: lora`."""

    @property
    def exact_when_shared(self) -> bool:
        """Whether a prefix computed once gives what it gives computed per row; dropout differs from row to row."""
        return True

    def load_options(self) -> dict[str, Any]:
        """Keyword arguments of `models.load.load_model` for the base (a quantised method loads it quantised)."""
        return {}

    @property
    def slots(self) -> int:
        """Positions that the method takes from every row, for virtual tokens."""
        return 0

    def check(self, shape: Shape) -> None:
        """Raise a UserError where a base of this shape cannot be trained so; without torch, before anything loads."""

    @abstractmethod
    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        """The model to train. `seed` makes the initialisation of new parameters reproducible.

        `rows` are training rows, for initialisations that look at data.
        """

    @abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what was trained into `folder`, in a layout other tools read."""

    @abstractmethod
    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """The tuned model from a freshly loaded base and what `save` wrote."""

    @abstractmethod
    def merge(self, model: nn.Module) -> nn.Module:
        """A plain transformers model with the same logits."""

    def undo(self, model: nn.Module) -> nn.Module | None:
        """The base that `apply` was given, as it was; None where it is gone, and must be loaded again."""
        return None

    @abstractmethod
    def reference(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context in which `model` behaves as the base, or a UserError where that is impossible."""

    @abstractmethod
    def learning_rate(self, parameters: int) -> tuple[float, str]:
        """The learning rate to plan with for a base of so many parameters, and why."""

    @abstractmethod
    def memory(self, shape: Shape) -> MethodMemory:
        """Trainable parameters for a base of this shape, without torch."""
