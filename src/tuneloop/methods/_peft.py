"""What the methods that PEFT carries out have in common: apply, save, load, merge, and the base itself as reference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from tuneloop.errors import UserError
from tuneloop.methods.base import MethodMemory, MethodSpec, int8_made, quantised_bytes

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered


class PeftMethod(MethodSpec):
    """A method that says which configuration of PEFT it is, and how many parameters that trains."""

    mergeable: ClassVar[bool] = True
    """Whether the result can be written as a plain model."""

    bits: Literal[4, 8] | None = None
    """Load the frozen base quantised: 4 (NF4, double quantisation) or 8 (LLM.int8). Needs the extra `quant`."""

    @abstractmethod
    def config(self, model: nn.Module) -> Any:
        """The configuration of PEFT for this base."""

    @abstractmethod
    def count(self, shape: Shape) -> int:
        """How many parameters train."""

    def check(self, shape: Shape) -> None:
        super().check(shape)
        if self.bits is None:
            return
        from tuneloop.models.load import need_bitsandbytes

        need_bitsandbytes()
        if shape.quantised is not None:
            raise UserError(f"The weights of this base are quantised already ({shape.quantised}).",
                            wanted=f"for method.bits {self.bits}, a base in full precision",
                            fix="choose that base, or leave method.bits out")

    def load_options(self) -> dict[str, Any]:
        return {} if self.bits is None else {"bits": self.bits}

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        import torch
        from peft import get_peft_model

        config = self.config(model)
        torch.manual_seed(seed)
        with said_by_peft(config.peft_type.value):
            return cast("nn.Module", get_peft_model(cast(Any, model), config))

    def save(self, model: nn.Module, folder: Path) -> None:
        cast(Any, model).save_pretrained(folder)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(cast(Any, base), folder)
        return cast("nn.Module", tuned.requires_grad_(False))       # virtual tokens come back as if to be trained

    def merge(self, model: nn.Module) -> nn.Module:
        if not self.mergeable:
            raise UserError(f"The result of method {self.kind} cannot be merged into the base: it is no change of the "
                            "base's own weights.", fix="export the adapter instead: --to adapter")
        if getattr(cast(Any, model).get_base_model(), "is_quantized", False):
            raise UserError("An adapter cannot be merged into a quantised base without losing precision.",
                            wanted="the base in full precision", fix="load the base without quantisation and the "
                                                                      "adapter onto it, as `tuneloop export` does")
        return cast("nn.Module", cast(Any, model).merge_and_unload())

    def undo(self, model: nn.Module) -> nn.Module | None:
        peft = cast(Any, model)
        base = peft.get_base_model() if peft.active_peft_config.is_prompt_learning else peft.unload()
        return cast("nn.Module", base.requires_grad_(False))

    @contextmanager
    def reference(self, model: nn.Module) -> Iterator[None]:
        with bare(model):
            yield

    def memory(self, shape: Shape) -> MethodMemory:
        return MethodMemory(self.count(shape), frozen_head=True, base_bytes=quantised_bytes(shape, self.bits),
                            made=int8_made(shape, self.bits))


@contextmanager
def bare(model: nn.Module) -> Iterator[None]:
    """The base without its adapters."""
    trains = [(p, p.requires_grad) for p in model.parameters()]     # PEFT makes all of an adapter train afterwards
    try:
        with cast(Any, model).disable_adapter():
            yield
    finally:
        for parameter, was in trains:
            parameter.requires_grad_(was)


@contextmanager
def said_by_peft(name: str, doing: str = "refuses this base",
                 fix: str = "change the options of method, or choose another one") -> Iterator[None]:
    """PEFT's own refusals as errors that the user can mend, in its words."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise UserError(f"PEFT's {name} {doing}: {str(error).rstrip('.')}.", fix=fix) from error
