"""What blocks keep and make, against what autograd saves and what torch's dispatcher hands out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuneloop.catalog import Catalog
from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.methods.base import MethodMemory
from tuneloop.models.formula import tensors_of
from tuneloop.models.shape import Shape, shape_of
from tuneloop.objectives.sft import Objective
from tuneloop.plan.block import Tensors, tensors
from tuneloop.types import Rendered

LENGTH, ROWS, EVERYTHING = 33, 6, 1e9
METHODS: list[dict[str, Any]] = [
    {"kind": "full"}, {"kind": "full", "only": ["norms"]}, {"kind": "lora"}, {"kind": "adapters"}, {"kind": "ia3"},
    {"kind": "adapters", "placement": "houlsby", "activation": "silu"}]


def config(family: str, layers: int) -> dict[str, Any]:
    """Widths that differ, so that no two are taken for each other; the queries are wider than the hidden state."""
    if family == "gpt2":
        return {"model_type": "gpt2", "n_embd": 96, "n_layer": layers, "n_head": 4, "n_inner": 400, "vocab_size": 64,
                "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0,
                "eos_token_id": 0}
    return {"model_type": family, "hidden_size": 96, "num_hidden_layers": layers, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 40, "intermediate_size": 400, "vocab_size": 64,
            "max_position_embeddings": 64, "tie_word_embeddings": True, "sliding_window": 64, "layer_types": None,
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "use_sliding_window": False}


class Made(TorchDispatchMode):
    """Bytes of all tensors with a storage of their own."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        self.total += sum(t.untyped_storage().nbytes() for t in tree_leaves(out) if isinstance(t, torch.Tensor)
                          and t.untyped_storage().data_ptr() not in given)
        return out


def rows(lengths: list[int], shared: int = 0) -> list[Rendered]:
    random = np.random.default_rng(0)
    prefix = random.integers(1, 64, shared)
    return [Rendered(np.concatenate([prefix, random.integers(1, 64, length - shared)]),
                     (np.arange(length) == length - 1).astype(np.float32)) for length in lengths]


def measured(family: str, method: dict[str, Any], layers: int, given: list[Rendered], mode: Any) -> tuple[float, float]:
    """Numbers that wait for the backward, and numbers made in a forward, per token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    told = config(family, layers)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(told.pop("model_type"), **told),
                                             dtype=torch.float32).requires_grad_(False)
    wrapped = ForestModel(method_of(method).apply(model, 0), mode)
    wrapped.train()
    pieces = cut_step(given, 10**6, share=mode == "forest")
    tokens = sum(piece.computed_tokens for piece in pieces)
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = [out for _, _, out in passes(wrapped, pieces, "cpu", Objective().needs)]
    own = {p.untyped_storage().data_ptr() for p in wrapped.parameters()}
    with Made() as made:
        outputs += [out for _, _, out in passes(wrapped, pieces, "cpu", Objective().needs)]
    return sum(size for place, size in saved.items() if place not in own) / 4 / tokens, made.total / 4 / tokens


def method_of(method: dict[str, Any]) -> Any:
    return Catalog("method", "tuneloop.methods", "Method").get(method["kind"])(**method)


def shape(family: str, layers: int = 3) -> Shape:
    told = config(family, layers)
    return shape_of(told, Path(family), tensors_of(told))


def per_block(family: str, method: dict[str, Any], given: list[Rendered], mode: Any = "forest") -> tuple[float, float]:
    """The difference that a block makes: what lies around them and what the first does not need drops out."""
    few, many = (measured(family, method, layers, given, mode) for layers in (2, 4))
    return (many[0] - few[0]) / 2, (many[1] - few[1]) / 2


def counted(family: str, method: dict[str, Any], **how: bool) -> Tensors:
    made = shape(family)
    return tensors(made, method_of(method).memory(made), **how)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3_text", "gpt2"])
def test_a_block_keeps_and_makes_what_is_counted(family: str, method: dict[str, Any]) -> None:
    kept, made = per_block(family, method, rows([LENGTH] * ROWS))
    expected = counted(family, method)
    assert expected.kept_per_token / 3 == pytest.approx(kept, rel=0.015)        # a norm's mean square is left out
    assert expected.all(EVERYTHING) / 3 == pytest.approx(made, rel=0.025)


def test_parts_of_an_attention_are_merged_where_a_prefix_is_shared() -> None:
    kept, made = per_block("llama", {"kind": "lora"}, rows([LENGTH] * ROWS, shared=20))
    expected = counted("llama", {"kind": "lora"}, shared=True)
    assert expected.kept_per_token / 3 == pytest.approx(kept, rel=0.015)
    assert expected.all(EVERYTHING) / 3 == pytest.approx(made, rel=0.04)


def test_padded_rows_of_unequal_length_copy_keys_and_values_for_every_head() -> None:
    lengths = [LENGTH, LENGTH - 8] * 3
    kept, _ = per_block("llama", {"kind": "lora"}, rows(lengths), "padded")
    real = sum(length - 1 for length in lengths) / (len(lengths) * (LENGTH - 1))      # of what is computed
    expected = counted("llama", {"kind": "lora"}, padded=True)
    assert expected.kept_per_token / 3 == pytest.approx(kept * real, rel=0.05)


def test_adapting_fewer_layers_keeps_fewer_inputs() -> None:
    kept, made = per_block("llama", {"kind": "lora", "targets": ["q_proj", "v_proj"]}, rows([LENGTH] * ROWS))
    expected = counted("llama", {"kind": "lora", "targets": ["q_proj", "v_proj"]})
    assert expected.kept_per_token / 3 == pytest.approx(kept, rel=0.015)
    assert expected.all(EVERYTHING) / 3 == pytest.approx(made, rel=0.025)


def test_blocks_below_the_lowest_that_trains_keep_nothing() -> None:
    made = shape("llama", 6)
    whole = tensors(made, method_of({"kind": "full"}).memory(made)).kept_per_token
    assert tensors(made, method_of({"kind": "full", "layers": 2}).memory(made)).kept_per_token == whole / 3


def test_what_is_dropped_is_told_by_width() -> None:
    found = Tensors(kept={10: 2, 20: 1}, made={10: 5, 20: 4})
    assert found.kept_per_token == 40
    assert found.dropped(narrower=100) == 10 * 3 + 20 * 3
    assert found.dropped(narrower=20) == 30
    assert found.all(narrower=20) == 50


def test_a_frozen_base_keeps_nothing_for_its_weights() -> None:
    """Two norms, queries, keys, values and result, gate, its activation and up; one sum per head."""
    found = tensors(shape("llama"), MethodMemory(0, frozen_head=True, base_bytes=0))
    assert found.kept_per_token / 3 == 2 * 96 + 2 * 160 + 2 * 80 + 3 * 400 + 4


def test_eight_bits_make_more_on_the_way_and_four_do_not() -> None:
    made = shape("llama")
    plain, eight, four = (tensors(made, method_of({"kind": "lora", "bits": bits}).memory(made)).all(EVERYTHING)
                          for bits in (None, 8, 4))
    linear = [(i, o, n) for _, i, o, n in made.adaptable_shapes()]
    assert eight - plain == sum((2 * i + 3 * o) * n for i, o, n in linear)
    assert four == plain
