"""Full fine-tuning: every parameter of the base trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from tuneloop.errors import UserError
from tuneloop.methods.base import MethodMemory, MethodSpec, quantised_bytes

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered


class Method(MethodSpec):
    """All parameters train; the result is a model of its own, as large as the base."""

    artefact: ClassVar[str] = "model"

    kind: Literal["full"] = "full"

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        return model.requires_grad_(True)

    def save(self, model: nn.Module, folder: Path) -> None:
        cast(Any, model).save_pretrained(folder)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        from tuneloop.models.load import load_model

        return load_model(folder)

    def merge(self, model: nn.Module) -> nn.Module:
        return model

    def reference(self, model: nn.Module) -> AbstractContextManager[None]:
        raise UserError("A fully fine-tuned model no longer holds its base.", fix="load the base a second time")

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if parameters < 1e9:
            return 5e-5, "the upper end of the usual 1e-5 to 5e-5, since the base is below 1B parameters"
        return 1e-5, "the lower end of the usual 1e-5 to 5e-5: every parameter moves, and large bases forget"

    def memory(self, shape: Shape) -> MethodMemory:
        return MethodMemory(shape.parameters, frozen_head=False, base_bytes=quantised_bytes(shape))
