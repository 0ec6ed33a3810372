"""The shape read from file headers equals what transformers counts, for every family; broken files are named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tiny import FAMILIES, tiny_base
from tuneloop.errors import UserError
from tuneloop.models.shape import read_shape


def counted_by_torch(folder: Path) -> tuple[int, Counter[tuple[str, int, int]]]:
    """Parameters, and linear layers of the blocks by name and size, of the loaded model."""
    from torch import nn
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    model = AutoModelForCausalLM.from_pretrained(folder)
    linears: Counter[tuple[str, int, int]] = Counter()
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if isinstance(module, Conv1D):
            linears[leaf, module.nx, module.nf] += 1
        elif isinstance(module, nn.Linear) and leaf != "lm_head":
            linears[leaf, module.in_features, module.out_features] += 1
    return model.num_parameters(), linears


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_those_of_the_loaded_model(family: str, tmp_path: Path) -> None:
    shape = read_shape(tiny_base(tmp_path, family))
    parameters, linears = counted_by_torch(tmp_path)
    assert shape.parameters == parameters
    assert Counter({(name, i, o): count for name, i, o, count in shape.linear_shapes()}) == linears
    assert (shape.layers, shape.hidden, shape.heads, shape.head_dim, shape.intermediate) == (2, 32, 4, 8, 64)
    assert shape.kv_heads == (4 if family == "gpt2" else 2)
    assert (shape.vocab, shape.max_positions, shape.stored_dtype) == (384, 512, "float32")
    assert shape.stored_bytes == 4 * parameters
    assert shape.tied == (family != "mistral")
    assert shape.sliding_window == (16 if family == "gemma3_text" else None)


def test_shards_are_added_up(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole = read_shape(tiny_base(tmp_path / "whole"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert read_shape(tmp_path / "shards") == whole


def test_stored_dtype_and_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    tiny_base(tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert (shape.stored_dtype, shape.stored_bytes) == ("bfloat16", 2 * shape.parameters)


def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    tiny_base(tmp_path, "qwen2", sliding_window=64, use_sliding_window=False)
    assert read_shape(tmp_path).sliding_window is None


@pytest.mark.parametrize(("content", "said"), [
    (b"", "header is cut off"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "makes no sense"),
    (None, "No such file"),
])
def test_broken_weights_are_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    weights = tiny_base(tmp_path) / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_shape(tmp_path)
    assert str(weights) in error.value.found


def test_cut_off_weights_are_noticed(tmp_path: Path) -> None:
    weights = tiny_base(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        read_shape(tmp_path)


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "no configuration")])
def test_a_broken_config_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tiny_base(tmp_path) / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_shape(tmp_path)


def test_a_config_without_a_size_says_which(tmp_path: Path) -> None:
    path = tiny_base(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": None}))
    with pytest.raises(UserError, match="num_hidden_layers is None"):
        read_shape(tmp_path)
