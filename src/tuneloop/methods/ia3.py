"""(IA)3: learnt scales of keys, values and of what enters the MLP's last layer (Liu et al. 2022, arXiv 2205.05638).

Every scale starts at one, so that training begins at the base itself. It is among the smallest methods there are: one
number for each output of a key or value layer, and for each input of a down projection. PEFT does the work. Where a
base holds queries, keys and values in one layer (GPT-2), the queries are scaled, too, as in PEFT's own choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod
from tuneloop.models.shape import BLOCK_WEIGHT, STORED_AS_IN_OUT

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.methods.base import MethodMemory
    from tuneloop.models.shape import Shape

ATTENTION = ("k_proj", "v_proj", "c_attn", "query_key_value", "qkv_proj", "Wqkv")
"""What families call the layers that make keys and values."""
FEEDFORWARD = ("down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2", "fc_out")
"""What they call the last layer of the MLP."""
EXPERTS = ".experts."       # experts are stored one by one, but transformers holds them fused: no layers to scale


class Method(PeftMethod):
    """(IA)3 by PEFT."""

    kind: Literal["ia3"] = "ia3"
    targets: list[str] | None = None
    """Names of the layers to scale; those of keys and values and the MLP's last one unless given."""
    feedforward: list[str] | None = None
    """Those of the targets whose input is scaled instead of their output; the MLP's last one unless given."""

    def config(self, model: nn.Module) -> Any:
        from peft import IA3Config

        targets, feedforward = self._chosen(_layers(model))
        experts = any(EXPERTS in name for name, _ in model.named_modules())
        return IA3Config(target_modules=targets, feedforward_modules=feedforward, task_type="CAUSAL_LM",
                         exclude_modules=r".*\.experts\..*" if experts else None)

    def check(self, shape: Shape) -> None:
        super().check(shape)
        self._chosen(_stored_layers(shape))

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        return 3e-3, "that of the paper (2205.05638): so few scales, all starting at one, need large steps"

    def count(self, shape: Shape) -> int:
        return sum(self._widths(shape))

    def memory(self, shape: Shape) -> MethodMemory:
        """A scale keeps what it scales, and makes another."""
        widths = Counter[float](self._widths(shape))
        found = super().memory(shape)
        return replace(found, kept=widths, made=widths + Counter(found.made))

    def _widths(self, shape: Shape) -> list[int]:
        """How many numbers each scaled layer has scales for."""
        layers, found = _stored_layers(shape), []
        targets, feedforward = self._chosen(layers)
        for name in layers:
            if _is_one_of(name, targets):
                rows, columns = shape.weights[f"{name}.weight"]
                inputs, outputs = (rows, columns) if shape.model_type in STORED_AS_IN_OUT else (columns, rows)
                found.append(inputs if _is_one_of(name, feedforward) else outputs)
        return found

    def _chosen(self, layers: list[str]) -> tuple[list[str], list[str]]:
        """Targets, and those of them that are scaled at their input, or a UserError that lists what there is."""
        there = sorted({name.rpartition(".")[2] for name in layers})
        known = [t for t in (*ATTENTION, *FEEDFORWARD) if any(_is_one_of(name, [t]) for name in layers)]
        targets = known if self.targets is None else self.targets
        unknown = sorted(t for t in targets if not any(_is_one_of(name, [t]) for name in layers))
        if unknown or not targets:
            found = f"method.targets names layers that this base does not have: {', '.join(unknown)}." if unknown else \
                "This base has no layers of keys, values or MLPs under a name that ia3 knows."
            raise UserError(found, wanted=f"some of: {', '.join(there)}", fix="name them in method.targets")
        feedforward = [t for t in targets if t in FEEDFORWARD] if self.feedforward is None else self.feedforward
        stray = sorted(set(feedforward) - set(targets))
        if stray:
            raise UserError(f"method.feedforward names layers that are no targets: {', '.join(stray)}.",
                            wanted=f"some of: {', '.join(targets)}", fix="add them to method.targets")
        return targets, feedforward


def _is_one_of(name: str, targets: Iterable[str]) -> bool:
    """Whether PEFT takes the layer of this name for one of the targets."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _layers(model: nn.Module) -> list[str]:
    """Full names of the linear layers of all blocks."""
    from torch import nn

    head = cast(Any, model).get_output_embeddings()
    return [name for name, module in model.named_modules()
            if getattr(getattr(module, "weight", None), "ndim", 0) == 2 and EXPERTS not in name
            and module is not head and not isinstance(module, nn.Embedding)]


def _stored_layers(shape: Shape) -> list[str]:
    """The same from the names of the stored tensors."""
    return [name.removesuffix(".weight") for name, size in shape.weights.items()
            if len(size) == 2 and BLOCK_WEIGHT.search(name) and EXPERTS not in name]
