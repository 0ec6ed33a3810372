"""Bottleneck adapters as a tuner of PEFT, which has none: small networks at the attention and the MLP of every block.

A module of the base is wrapped: its output h becomes h + up(f(down(h))), or, beside it, h + scale up(f(down(x))).
PEFT then saves, loads, switches and disables such adapters as it does its own, once `register` has told it of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

NO_MERGE = "A non-linearity between two layers cannot be merged into linear weights"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu}


class _Kind(str):
    """The name of the tuner. PEFT's own names are an enum, which cannot be extended; some of its code asks `value`."""

    @property
    def value(self) -> str:
        return str(self)


KIND = _Kind("BOTTLENECK")


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]    # PEFT is not typed
    """What a bottleneck adapter is, as saved in adapter_config.json."""

    target_modules: list[str] | str | None = field(default=None)
    """The modules to wrap: attention and MLPs, not linear layers."""
    hidden: int = 0
    size: int = 0
    activation: str = "relu"
    dropout: float = 0.0
    parallel: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = cast(Any, KIND)


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A module of the base with adapters at its output, or beside it."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("settings",)

    def __init__(self, base_layer: nn.Module, name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()     # by the name of the adapter
        self.settings: dict[str, BottleneckConfig] = {}
        self.merged_adapters: list[str] = []
        self._active_adapter = [name]
        self.add(name, config)

    def add(self, name: str, config: BottleneckConfig) -> None:
        """Another adapter, on the device of the base and in its precision, where that is no integer."""
        down, up = nn.Linear(config.hidden, config.size), nn.Linear(config.size, config.hidden)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        base = list(cast(Any, self.base_layer).parameters())
        precision = next((p.dtype for p in base if p.is_floating_point()), torch.float32)
        for kind, made in ((self.bottleneck_down, down), (self.bottleneck_up, up)):
            kind[name] = made if made.weight.is_meta else made.to(base[0].device, precision)
        self.settings[name] = config
        cast(Any, self).set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        base, active = cast(Any, self.base_layer), cast(Any, self.active_adapters)
        found = base(*args, **kwargs)
        if self.disable_adapters:
            return found
        # attention gives its weights, too, and some mixtures what their router says
        output = found[0] if isinstance(found, tuple) else found
        entered: Any = args[0] if args else kwargs.get("hidden_states")
        for name in active:
            if name in self.settings:       # not every adapter needs be at every layer
                output = output + self._added(name, entered if self.settings[name].parallel else output)
        return (output, *found[1:]) if isinstance(found, tuple) else output

    def _added(self, name: str, x: Tensor) -> Tensor:
        """scale up(f(down(x))), which is zero at the start; in float32 on a base in half precision."""
        config, down, up = self.settings[name], self.bottleneck_down[name], self.bottleneck_up[name]
        inner: Tensor = up(ACTIVATIONS[config.activation](down(x.to(cast(Tensor, down.weight).dtype))))
        return config.scale * functional.dropout(inner, config.dropout, self.training).to(x.dtype)


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """PEFT's handle on the adapters of a model."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(self, peft_config: Any, adapter_name: str, target: nn.Module, target_name: str,
                            parent: nn.Module, current_key: str, **_: Any) -> None:
        if isinstance(target, BottleneckLayer):
            target.add(adapter_name, peft_config)
            return
        made = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            made.requires_grad_(False)
        self._replace_module(parent, target_name, made, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """PEFT's own looks for the weight of a linear layer; an attention or an MLP has none itself."""
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise ValueError(f"{NO_MERGE}.")


def register() -> None:
    """Tell PEFT of the tuner; again is harmless."""
    from peft import mapping

    cast(Any, mapping.PEFT_TYPE_TO_CONFIG_MAPPING)[KIND] = BottleneckConfig
    cast(Any, mapping.PEFT_TYPE_TO_TUNER_MAPPING)[KIND] = BottleneckModel
    cast(Any, mapping.PEFT_TYPE_TO_PREFIX_MAPPING)[KIND] = BottleneckModel.prefix
