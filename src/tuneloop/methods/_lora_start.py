"""Where LoRA begins: starts that look at the base's weights or at data, and how what they train stays a plain adapter.

PiSSA and OLoRA start from parts B0 A0 of a layer's own weight W, and train W - s B0 A0 + s B A. Other tools subtract
that part from W. Here W is left as it is, and a second, frozen adapter subtracts it: so the base is still there, to be
the reference, even where it is quantised; no rounding of W comes in; and the whole change, s B A - s B0 A0, is a LoRA
of W of twice the rank, A over A0 and B beside -B0, which is what gets saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tuneloop.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tuneloop.types import Rendered

TUNED, START = "default", "start"       # names of the adapters: the one that trains, and the frozen one
EVA_ROWS, EVA_BATCH, EVA_TOKENS, EVA_PASSES = 64, 16, 512, 8


def begin(model: nn.Module, start: str, seed: int, rows: Sequence[Rendered]) -> None:
    """Give the adapter of a PEFT model its start; PEFT itself has done `default` and `gaussian`."""
    import torch

    with torch.no_grad():
        if start == "orthogonal":
            for layer in _layers(model):
                _set(layer, TUNED, *_orthogonal(layer))
        elif start in ("pissa", "olora"):
            _second_adapter(model)
            cut = _largest if start == "pissa" else _first_of_qr
            for layer in _layers(model):
                a, b = _scaled(layer, *cut(_weight(layer), _rank(layer)))
                _set(layer, TUNED, a, b)
                _set(layer, START, a, -b)
        elif start == "loftq":
            _loftq(model)
        elif start == "eva":
            _eva(model, seed, rows)
    config = cast(Any, model).peft_config[TUNED]     # whoever loads what is saved must not start again
    config.init_lora_weights, config.eva_config = True, None


def save_whole_change(model: nn.Module, folder: Path) -> None:
    """Save the change of the untouched base, s B A - s B0 A0, as one LoRA of twice the rank."""
    import torch
    from peft import get_peft_model_state_dict

    peft: Any = model
    trained, given = (get_peft_model_state_dict(peft, adapter_name=name) for name in (TUNED, START))
    whole = {name: torch.cat([p, given[name]], 0 if ".lora_A." in name else 1) for name, p in trained.items()}
    config = peft.peft_config[TUNED]
    rank, alpha = config.r, config.lora_alpha
    # PEFT takes a state dict under the names that its layers have, with the adapter's
    named = {name.replace(".weight", f".{TUNED}.weight"): p for name, p in whole.items()}
    config.r, config.lora_alpha = 2 * rank, alpha * (2 ** 0.5 if config.use_rslora else 2)   # the scale stays
    try:
        peft.save_pretrained(folder, selected_adapters=[TUNED], state_dict=named)
    finally:
        config.r, config.lora_alpha = rank, alpha


def load_first_half(base: nn.Module, folder: Path) -> nn.Module:
    """The adapter of LoftQ on its own quantised base, which lacks B0 A0 already: A and B without A0 and -B0."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    rank = config["r"] // 2
    config |= {"r": rank, "lora_alpha": config["lora_alpha"] / (2 ** 0.5 if config["use_rslora"] else 2)}
    tensors = {name: (p[:rank] if ".lora_A." in name else p[:, :rank]).contiguous()
               for name, p in load_file(folder / "adapter_model.safetensors").items()}
    with TemporaryDirectory() as half:
        (Path(half) / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(tensors, Path(half) / "adapter_model.safetensors", metadata={"format": "pt"})
        return cast("nn.Module", PeftModel.from_pretrained(cast(Any, base), half))


def _layers(model: nn.Module) -> list[Any]:
    """The layers of PEFT, in the order of the model."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _rank(layer: Any) -> int:
    return int(layer.r[TUNED])


def _weight(layer: Any) -> Tensor:
    """The base's weight as (out, in), dequantised, in float32."""
    from peft.utils.integrations import dequantize_module_weight

    weight: Tensor = dequantize_module_weight(layer.get_base_layer()).detach().float()
    return weight.T if layer.fan_in_fan_out else weight


def _set(layer: Any, adapter: str, a: Tensor, b: Tensor) -> None:
    """Fill the adapter's A (rank, in) and B (out, rank); what a narrow layer has no use for stays zero."""
    for target, value in ((layer.lora_A[adapter].weight, a), (layer.lora_B[adapter].weight, b)):
        target.zero_()
        target[:value.shape[0], :value.shape[1]] = value


def _scaled(layer: Any, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`a` and `b` with the scale of the update taken out, so that it gives b a."""
    root = layer.scaling[TUNED] ** 0.5
    return a / root, b / root


def _largest(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The part of the largest singular values, which are split evenly (PiSSA, arXiv 2404.02948, equations 2 and 3)."""
    import torch

    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return root.unsqueeze(1) * v[:rank], u[:, :rank] * root


def _first_of_qr(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first columns of Q and rows of R (OLoRA, arXiv 2406.01775, algorithm 1)."""
    import torch

    q, r = torch.linalg.qr(weight)
    return r[:rank], q[:, :rank]


def _orthogonal(layer: Any) -> tuple[Tensor, Tensor]:
    """Rows of A and columns of B from odd and even rows of one orthogonal matrix: neither is zero, but B A is."""
    import torch

    rank, a = _rank(layer), layer.lora_A[TUNED].weight
    q, _ = torch.linalg.qr(torch.randn(rank, rank))
    left, right = torch.randn(layer.out_features, rank // 2), torch.randn(rank // 2, layer.in_features)
    return (q[0::2].T @ right / 10).to(a), (left @ q[1::2] / 10).to(a)


def _second_adapter(model: nn.Module) -> None:
    """Add the frozen adapter and switch both on."""
    from copy import deepcopy

    peft: Any = model
    config = deepcopy(peft.peft_config[TUNED])
    config.lora_dropout = 0.0
    peft.add_adapter(START, config)
    peft.base_model.set_adapter([TUNED, START])
    for name, p in model.named_parameters():
        if f".{START}." in name:
            p.requires_grad_(False)


def _loftq(model: nn.Module) -> None:
    """B A is the best low-rank part of what quantising lost (LoftQ, arXiv 2310.08659, with one step).

    PEFT's replace_lora_weights_loftq does the same, but lets alpha / rank scale it once more.
    """
    _second_adapter(model)
    stored = _Stored(cast(Any, model).get_base_model())
    names = {id(module): name.removeprefix("base_model.model.") for name, module in model.named_modules()}
    for layer in _layers(model):
        kept = _weight(layer)
        a, b = _scaled(layer, *_largest(stored.weight(names[id(layer)]).to(kept) - kept, _rank(layer)))
        _set(layer, TUNED, a, b)
        _set(layer, START, a, -b)
    # the frozen one only remembers the start: on the quantised base itself nothing is subtracted
    cast(Any, model).base_model.set_adapter(TUNED)


class _Stored:
    """The weights of a base in its files, one layer at a time."""

    def __init__(self, base: Any) -> None:
        from safetensors import safe_open

        from tuneloop.models.shape import STORED_AS_IN_OUT, weight_files

        files: list[Any] = [safe_open(path, "pt") for path in weight_files(Path(base.config._name_or_path))]
        self.places = {name: file for file in files for name in file.keys()}  # noqa: SIM118    # no mapping
        self.transposed = base.config.model_type in STORED_AS_IN_OUT

    def weight(self, layer: str) -> Tensor:
        """As (out, in). Some files leave out the first part of a name ("transformer.")."""
        names = [f"{layer}.weight", f"{layer}.weight".partition(".")[2]]
        name = next((name for name in names if name in self.places), None)
        if name is None:
            raise UserError(f"The files of this base do not hold the weight of {layer} under its name.",
                            wanted="for method.start loftq, weights to compare the quantised ones with",
                            fix="choose another method.start, such as default")
        found = cast("Tensor", self.places[name].get_tensor(name))
        return found.T if self.transposed else found


class _Batches:
    """Batches for EVA, which goes through them until its directions no longer turn; here only so many times."""

    def __init__(self, rows: Sequence[Rendered], seed: int, rank: int) -> None:
        chosen = np.random.default_rng(seed).permutation(len(rows))[:EVA_ROWS]
        cut = [rows[i].ids[:EVA_TOKENS] for i in chosen]
        tokens = sum(map(len, cut))
        if tokens < rank:
            raise UserError(f"The training rows have {tokens} tokens, fewer than method.rank {rank}.",
                            wanted="for method.start eva, at least as many tokens as the rank",
                            fix="lower method.rank, or choose another method.start")
        self.batches: list[list[Any]] = [[]]
        for row in cut:       # fewer tokens than directions would be left out
            if len(self.batches[-1]) >= EVA_BATCH and sum(map(len, self.batches[-1])) >= rank:
                self.batches.append([])
            self.batches[-1].append(row)
        if len(self.batches) > 1 and sum(map(len, self.batches[-1])) < rank:
            self.batches[-2:] = [self.batches[-2] + self.batches[-1]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        for batch in self.batches * EVA_PASSES:
            ids = [torch.from_numpy(np.asarray(row, np.int64)) for row in batch]
            yield {"input_ids": pad_sequence(ids, batch_first=True),
                   "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)}
        raise UserError("The training rows do not say in which directions to start: those that EVA finds keep turning.",
                        wanted="rows with more different tokens than method.rank",
                        fix="lower method.rank, or choose another method.start")


def _eva(model: nn.Module, seed: int, rows: Sequence[Rendered]) -> None:
    """A holds the main directions of each layer's inputs on some rows (EVA, arXiv 2410.07170)."""
    from peft import initialize_lora_eva_weights

    if not rows:
        raise UserError("method.start eva looks at training rows, and there are none here.",
                        fix="train with `tuneloop run`, or choose another method.start")
    peft: Any = model
    targets = peft.peft_config[TUNED].target_modules
    batches: Any = _Batches(rows, seed, peft.peft_config[TUNED].r)
    initialize_lora_eva_weights(peft, batches, show_progress_bar=False)
    peft.peft_config[TUNED].target_modules = targets
