"""Low-rank adaptation: frozen base, trainable low-rank updates of its linear layers (Hu et al. 2021, arXiv 2106.09685).

The update of a layer W is (alpha / rank) B A, with B zero at the start, so that training begins at the base itself.
All linear layers of the blocks are adapted unless `targets` says otherwise, as in QLoRA (arXiv 2305.14314, section 4).
PEFT does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape


class Method(PeftMethod):
    """LoRA by PEFT."""

    kind: Literal["lora", "qlora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of every update."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Scale of the update is alpha / rank; twice the rank unless given."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the input of every update."""
    targets: list[str] | None = None
    """Names of the layers to adapt, such as [q_proj, v_proj]; all linear layers unless given."""

    @property
    def exact_when_shared(self) -> bool:
        return self.dropout == 0

    def config(self, model: nn.Module) -> Any:
        from peft import LoraConfig

        self._check_targets(model)
        return LoraConfig(r=self.rank, lora_alpha=self.alpha or 2 * self.rank, lora_dropout=self.dropout,
                          target_modules=self.targets or "all-linear", task_type="CAUSAL_LM")

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        reason = ("above the usual 1e-5 to 5e-5, which is for full fine-tuning: an update that starts at zero and has "
                  "few parameters needs about ten times more")
        return (5e-4 if parameters < 1e9 else 2e-4), reason + ("; a base below 1B parameters bears more still"
                                                               if parameters < 1e9 else "")

    def count(self, shape: Shape) -> int:
        return sum(self.rank * (i + o) * n for name, i, o, n in shape.linear_shapes()
                   if self.targets is None or name in self.targets)

    def _check_targets(self, model: nn.Module) -> None:
        from torch import nn

        head = cast(Any, model).get_output_embeddings()
        names = {name.rpartition(".")[2] for name, module in model.named_modules()
                 if getattr(getattr(module, "weight", None), "ndim", 0) == 2
                 and module is not head and not isinstance(module, nn.Embedding)}
        unknown = sorted(set(self.targets or []) - names)
        if unknown:
            raise UserError(f"method.targets names layers that this base does not have: {', '.join(unknown)}.",
                            wanted=f"some of: {', '.join(sorted(names))}")
