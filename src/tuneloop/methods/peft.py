"""Any other tuner of PEFT, by passing its configuration through: `type` names it, `options` are its own.

    method: {kind: peft, type: VERA, options: {r: 64}}

How many parameters such a tuner trains is known by building it, so planning this method needs torch. It is built on the
meta device, without weights, and only where a tuner looks at the weights on the base itself.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod, said_by_peft
from tuneloop.methods._virtual import check_room
from tuneloop.methods.base import MethodMemory, int8_made, quantised_bytes

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered

REFUSED = {
    "LORA": "tuneloop has it as a method of its own: method: lora",
    "IA3": "tuneloop has it as a method of its own: method: ia3",
    "ADALORA": "it has to be told of every step to move ranks about, and adds a loss of its own; here neither happens",
    "CPT": "it scales the loss of its context tokens itself, and here the loss is the objective's",
    "MULTITASK_PROMPT_TUNING": "it wants the number of a task with every row, and rows here have none",
    "POLY": "it wants the number of a task with every row, and rows here have none",
    "XLORA": "it mixes adapters that have been trained before, and is given none here",
    "SHADOW": "it keeps a state beside the layers that sees the whole row, and part of it takes no gradient",
}
"""Tuners that cannot work here, and why."""
OURS = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
        "inference_mode")
"""Fields of every configuration that are no choice."""
MISLEADING = {
    "bias": "biases of the base itself would train, and the base could no longer be its own reference: "
            "use method: {kind: full, only: [biases]}",
    "alora_invocation_tokens": "the adapter would switch on within a row, which depends on how rows are packed",
    "layer_replication": "the base would get more layers than it has",
}
TOKENS = "method.options.num_virtual_tokens"
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE")
NOISY = ("PVERA",)      # they draw noise when training, as dropout does
NEITHER_LINEAR = ("LN_TUNING", "ADAPTION_PROMPT", "TRAINABLE_TOKENS")   # all linear layers would be wrong for them


class Method(PeftMethod):
    """A tuner of PEFT by the name that PEFT gives it."""

    kind: Literal["peft"] = "peft"
    type: str = "VERA"
    """Name of the tuner in PEFT (its PeftType); VeRA (arXiv 2310.11454) unless given, as it fits every family."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of its configuration in PEFT. Layers are PEFT's own choice for the family, or else all linear ones."""

    @property
    def exact_when_shared(self) -> bool:
        fields = _fields(self._class())
        dropouts = (self.options.get(name, fields[name].default) for name in fields if "dropout" in name)
        return self.type not in NOISY and not any(isinstance(rate, int | float) and rate for rate in dropouts)

    @property
    def slots(self) -> int:
        if self.type not in PROMPTS:
            return 0
        tokens = self.options.get("num_virtual_tokens")
        if type(tokens) is not int or tokens < 1:
            raise UserError(f"PEFT's {self.type} needs {TOKENS}, which is {tokens!r}." if tokens is not None else
                            f"PEFT's {self.type} needs {TOKENS}.", wanted="a positive whole number",
                            fix=f"set {TOKENS}=20, which is usual")
        return tokens

    def check(self, shape: Shape) -> None:
        """Unlike those of other methods, this needs PEFT: the names are its own."""
        super().check(shape)
        self._options()
        if self.type in PROMPTS:
            check_room(TOKENS, self.slots, shape)

    def config(self, model: nn.Module) -> Any:
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        kind, options = self._class(), self._options()
        tuner = next((t for name, t in PEFT_TYPE_TO_TUNER_MAPPING.items() if name.value == self.type), None)
        known = getattr(tuner, "target_module_mapping", {})
        family = getattr(cast(Any, model).config, "model_type", "")
        if "target_modules" in _fields(kind) and self.type not in NEITHER_LINEAR and family not in known:
            options = {"target_modules": "all-linear"} | options
        with said_by_peft(self.type, **OURS_TO_MEND):
            return kind(task_type="CAUSAL_LM", **options)

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        config = self.config(model)
        with said_by_peft(self.type, **OURS_TO_MEND):
            tuned = super().apply(model, seed, rows)
        if not any(p.requires_grad for p in tuned.parameters()):
            raise UserError(f"PEFT's {config.peft_type.value} finds nothing to train in this base.",
                            fix="name layers in method.options.target_modules, or choose another type")
        return tuned

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        with said_by_peft(self.type, **OURS_TO_MEND):
            return super().load(base, folder)

    def merge(self, model: nn.Module) -> nn.Module:
        if cast(Any, model).active_peft_config.is_prompt_learning or not hasattr(model, "merge_and_unload"):
            raise UserError(f"The result of PEFT's {self.type} cannot be merged into the base: it is no change of the "
                            "base's own weights.", fix="export the adapter instead: --to adapter")
        with said_by_peft(self.type, "cannot merge", "export the adapter instead: --to adapter"):
            return super().merge(model)

    def learning_rate(self, parameters: int) -> tuple[float, str]:
        if self.type in PROMPTS:
            return 1e-2, "what PEFT's examples use for virtual tokens: they learn slowly"
        if self.type == "OSF":
            return 5e-5, "that of full fine-tuning: it trains most directions of the base's own weights"
        return 1e-3, "above LoRA's usual 2e-4, as most other tuners train fewer parameters; try 3e-4 and 3e-3, too"

    def count(self, shape: Shape) -> int:
        return _measured(self, shape)[0]

    def memory(self, shape: Shape) -> MethodMemory:
        count, frozen_head = _measured(self, shape)
        results = Counter(int8_made(shape, self.bits))
        for _, _, outputs, n in shape.adaptable_shapes() if self.type not in PROMPTS else ():
            results[outputs] += 3 * n       # of a tuner that is not known, as LoRA makes them
        return MethodMemory(count, frozen_head, base_bytes=quantised_bytes(shape, self.bits), made=results,
                            inputs=frozenset() if self.type in PROMPTS else None)

    def _class(self) -> Any:
        """The class of configuration that `type` names, or a UserError."""
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        # our own tuner may stand there, too, under a name that is none of PEFT's
        kinds = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
                 if isinstance(kind, PeftType)}
        if self.type in REFUSED:
            raise UserError(f"method.type {self.type} cannot be used: {REFUSED[self.type]}.",
                            wanted=f"one of: {', '.join(sorted(set(kinds) - set(REFUSED)))}")
        if self.type not in kinds:
            raise UserError(f"method.type '{self.type}' is no tuner of the installed PEFT.",
                            wanted=f"one of: {', '.join(sorted(set(kinds) - set(REFUSED)))}",
                            fix=_meant(self.type.upper(), kinds))
        return kinds[self.type]

    def _options(self) -> dict[str, Any]:
        """`options`, or a UserError about one that the tuner does not have or that makes no sense here."""
        fields = [name for name in _fields(self._class()) if name not in (*OURS, *MISLEADING)]
        for name, value in self.options.items():
            if name in OURS:
                raise UserError(f"method.options.{name} is set by tuneloop.", fix="leave it out")
            if name in MISLEADING and value not in (None, False, "none"):
                raise UserError(f"method.options.{name} cannot be used: {MISLEADING[name]}.", fix="leave it out")
            if name not in fields and name not in MISLEADING:
                raise UserError(f"PEFT's {self.type} has no option '{name}'.",
                                wanted=f"some of: {', '.join(sorted(fields))}", fix=_meant(name, fields))
        return dict(self.options)


OURS_TO_MEND = {"doing": "refuses", "fix": "change method.options or method.type"}


def _fields(kind: Any) -> dict[str, Any]:
    return {field.name: field for field in dataclasses.fields(kind) if field.init}


def _meant(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def _measured(method: Method, shape: Shape) -> tuple[int, bool]:
    """How many parameters train, and whether the head is frozen and the base's own."""
    config = (shape.folder / "config.json").read_text(encoding="utf-8")
    return _measure(method.model_dump_json(), shape.folder, config)


@functools.lru_cache(maxsize=8)
def _measure(method: str, folder: Path, config: str) -> tuple[int, bool]:
    """The same; `config` is there to notice another base in the same folder."""
    import torch
    from torch import nn

    made = Method.model_validate_json(method)
    with torch.random.fork_rng(devices=[]):     # training must not notice whether it was planned in this process
        try:
            with torch.device("meta"):
                tuned = made.apply(_without_weights(folder), seed=0)
        except (UserError, RuntimeError):       # it looks at weights, or refuses: the base itself tells which
            from tuneloop.models.load import load_model

            tuned = made.apply(load_model(folder), seed=0)
    head: Any = cast(Any, tuned).get_base_model().get_output_embeddings()
    frozen = type(head) is nn.Linear and not head.weight.requires_grad
    return sum(p.numel() for p in tuned.parameters() if p.requires_grad), frozen


def _without_weights(folder: Path) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return cast("nn.Module", model.requires_grad_(False))
