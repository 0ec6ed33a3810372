"""Shapes without files: the formula gives what transformers builds and what is published, and says what it cannot."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny import FAMILIES, tiny_base, tiny_config, tiny_tokenizer
from tuneloop.errors import UserError
from tuneloop.models import hub
from tuneloop.models.aliases import aliases
from tuneloop.models.formula import tensors_of
from tuneloop.models.outline import outline_of, outlines, remote_outline, shape_named
from tuneloop.models.shape import read_shape

MORE = ("gemma2", "phi3", "gpt_neox", "opt")       # families with a form of their own beside the tiny bases


def built(config: Any) -> dict[str, list[int]]:
    """Names and sizes of what transformers builds, without weights; a tied head is left out."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = {"gpt_neox": ("lm_head.weight", "embed_out.weight")}       # in memory, and in the hub's files
    old, new = heads.get(config.model_type, ("", ""))
    return {new if name == old else name: list(p.shape) for name, p in model.named_parameters()}


def config_of(family: str) -> Any:
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "vocab_size": 100, "pad_token_id": 0}
    own: dict[str, dict[str, Any]] = {
        "gemma2": {"num_key_value_heads": 2, "head_dim": 8}, "phi3": {"num_key_value_heads": 2},
        "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
        "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4},
        "qwen3_moe": {"num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16,
                      "num_experts_per_tok": 2, "mlp_only_layers": [], "decoder_sparse_step": 1}}
    return AutoConfig.for_model(family, **(sizes | own.get(family, {})))


@pytest.mark.parametrize("family", [*FAMILIES, *MORE])
def test_the_formula_names_what_transformers_builds(family: str) -> None:
    config = tiny_config(family, tiny_tokenizer()) if family in FAMILIES else config_of(family)
    made = {name: size for name, (_, size) in tensors_of(config.to_dict()).items()}
    assert made == built(config)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_of_a_mixture_it_counts_as_many_parameters(family: str) -> None:
    config = config_of(family)      # transformers fuses the experts, so the names differ
    made = sum(math.prod(size) for _, size in tensors_of(config.to_dict()).values())
    assert made == sum(map(math.prod, built(config).values()))


@pytest.mark.parametrize("name", outlines())
def test_shapes_have_as_many_parameters_as_is_published(name: str) -> None:
    published = outlines()[name].parameters
    rounded = name == "gpt3-175b"       # the paper gives three digits
    assert shape_named(name).parameters == pytest.approx(published, rel=0.003 if rounded else 0)


def test_every_alias_has_a_shape() -> None:
    for alias in aliases().values():
        assert shape_named(alias.name).parameters == alias.parameters


@pytest.mark.real
def test_the_shape_of_the_real_base_is_that_of_its_files(real_base: Path) -> None:
    made, read = shape_named("smollm2-135m-instruct"), read_shape(real_base)
    assert (made.weights, sorted(made.linears), made.tied) == (read.weights, sorted(read.linears), read.tied)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_folder_with_a_config_alone_has_the_shape_of_the_whole_base(family: str, tmp_path: Path) -> None:
    whole = read_shape(tiny_base(tmp_path / "whole", family))
    assert outline_of("whole", tmp_path) is None
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "alone")
    alone = outline_of("alone", tmp_path)
    assert alone is not None
    in_order = [replace(shape, linears=tuple(sorted(shape.linears))) for shape in (alone, whole)]
    assert in_order[0] == in_order[1]


def test_names_are_shapes_aliases_or_nearly_shapes(tmp_path: Path) -> None:
    assert outline_of("smollm2-135m-instruct", tmp_path) is None        # it can be fetched and trained
    assert outline_of("org/name", tmp_path) is None
    found = outline_of("70B-like", tmp_path)
    assert found is not None
    assert found.layers == 80
    with pytest.raises(UserError, match="did you mean '70b-like'"):
        outline_of("70b-lik", tmp_path)
    with pytest.raises(UserError, match="did you mean 'gpt3-175b'"):
        shape_named("gpt-175b")


def test_what_would_be_fetched_is_known_by_its_config_alone(tmp_path: Path, own_cache: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(hub_id: str, only: str | None = None) -> Path:
        asked.append((hub_id, only))
        (tmp_path / "config.json").write_text(json.dumps(outlines()["8b-like"].config))
        return tmp_path

    monkeypatch.setattr(hub, "cached", lambda hub_id: None)
    monkeypatch.setattr(hub, "ask", lambda hub_id: None)
    monkeypatch.setattr(hub, "download", download)
    found = remote_outline("org/name", tmp_path)
    assert found is not None
    assert found.parameters == 8_030_261_248
    assert asked == [("org/name", "config.json")]
    alias = remote_outline("qwen3-0.6b", tmp_path)
    assert alias is not None
    assert alias.parameters == 596_049_920
    (tmp_path / "local").mkdir()
    assert remote_outline("local", tmp_path) is None


def test_what_is_here_is_planned_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base(tmp_path / "base")
    monkeypatch.setattr(hub, "cached", lambda hub_id: base)
    assert remote_outline("org/name", tmp_path) is None
    assert remote_outline("qwen3-0.6b", tmp_path) is None


def test_without_the_hub_a_shape_is_offered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HF_HUB_OFFLINE") as caught:
        remote_outline("org/name", tmp_path)
    assert "70b-like" in caught.value.fix


@pytest.mark.parametrize(("change", "said"), [
    ({"model_type": "mamba"}, "the family mamba cannot be counted"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
    ({"intermediate_size": ...}, "has no intermediate_size"),
])
def test_what_cannot_be_counted_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = outlines()["8b-like"].config | change
    config = {name: value for name, value in config.items() if value is not ...}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        outline_of(".", tmp_path)
