"""The check of exports: what it measures, and that it refuses what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_base
from tuneloop.errors import UserError
from tuneloop.exports import gguf_file, gguf_rope, merged
from tuneloop.exports.equality import (
    ERRORS,
    LOSSES,
    PROMPTS,
    TOLERANCES,
    difference,
    judged,
    judged_gguf,
    next_logprobs,
    prompts_of,
    read_gguf,
    require_same_tokens,
)
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape
from tuneloop.models.tokenizer import ChatTokenizer

ROWS = [{"prompt": f"Where is order {i}?"} for i in range(70)]


def table(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 40, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_differences_are_those_of_the_likeliest_tokens_of_either() -> None:
    wanted = table()
    found = wanted.clone()
    found[2, wanted[2].argmax()] -= 0.25
    apart = difference(wanted, found)
    assert apart.prompts == 5
    assert apart.max_difference == pytest.approx(0.25)
    assert 0 < apart.mean_difference < 0.25 / 40
    assert apart.divergence == pytest.approx(0.25 * float(wanted[2].max().exp()) / 5)
    risen = wanted.clone()
    risen[1, wanted[1].argmin()] = 0.0      # it was unlikely, and is now the likeliest
    assert difference(wanted, risen).max_difference == pytest.approx(-float(wanted[1].min()))
    assert difference(wanted, risen).top1_agreement == pytest.approx(0.8)
    assert difference(wanted, torch.full_like(wanted, torch.nan)).max_difference == float("inf")


@pytest.mark.parametrize("stored", sorted(TOLERANCES))
def test_beyond_the_tolerance_there_is_an_error_with_the_numbers(stored: str) -> None:
    wanted, limit = table(), TOLERANCES[stored]
    row = wanted.argmax(-1)[0]

    def moved(by: float) -> torch.Tensor:
        found = wanted.clone()
        found[0, row] += by
        return found

    words: Any = {"stored": stored, "what": "merged", "against": "the adapter", "read_by": "transformers"}
    report = judged(wanted, moved(0.9 * limit), **words)
    assert json.loads(json.dumps(report.to_json())).keys() >= {
        "prompts", "max_difference", "mean_difference", "top1_agreement", "tolerance", "against", "read_by"}
    assert report.tolerance == limit
    with pytest.raises(UserError) as caught:
        judged(wanted, moved(1.1 * limit), **words)
    assert caught.value.exit_code == 2
    assert f"{1.1 * limit:.2e}" in caught.value.found
    with pytest.raises(UserError):      # everywhere a little is too much, too
        judged(wanted, wanted + 0.5 * limit, **words)


WORDS: Any = {"against": "the adapter", "read_by": "llama_cpp", "tokens": "prompts"}


def test_a_gguf_file_may_lose_what_its_bits_cost_but_must_be_what_they_say() -> None:
    wanted = table()

    def apart(by: float) -> torch.Tensor:
        return wanted - by      # a divergence of `by` nats

    report = judged_gguf(wanted, apart(1.0), apart(1.0), stored="q4_0", **WORDS)
    assert report.divergence == pytest.approx(1.0, abs=1e-5)
    assert report.tolerance == LOSSES["q4_0"]
    for stored, limit in LOSSES.items():
        with pytest.raises(UserError, match="from the tuned one"):
            judged_gguf(wanted, apart(1.1 * limit), apart(1.1 * limit), stored=stored, **WORDS)
    with pytest.raises(UserError, match="something else"):
        judged_gguf(wanted, wanted, apart(1.1 * ERRORS["q4_0"]), stored="q4_0", **WORDS)
    with pytest.raises(UserError, match="something else"):
        judged_gguf(wanted, wanted, torch.full_like(wanted, torch.nan), stored="q4_0", **WORDS)


@pytest.fixture(scope="module")
def certain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base whose weights are large, so that its answers depend on all that it computes."""
    from safetensors.torch import load_file, save_file

    folder = tiny_base(tmp_path_factory.mktemp("certain"), hidden_size=64, intermediate_size=128, head_dim=16)
    weights = {name: 4 * weight if "proj" in name else weight
               for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("stored", sorted(LOSSES))
def test_a_gguf_file_written_wrong_is_told_from_one_of_few_bits(stored: Any, certain: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    tokenizer, model = ChatTokenizer(certain), load_model(certain, dtype=torch.float32)
    prompts = prompts_of(ROWS[:8], tokenizer)
    wanted = next_logprobs(model, prompts)
    gguf_file.round_weights(model, stored)
    rounded = next_logprobs(model, prompts)

    def judge() -> None:
        gguf_file.write(certain, tmp_path / "model.gguf", stored)
        judged_gguf(wanted, rounded, read_gguf(tmp_path / "model.gguf", prompts, tokenizer)[0], stored=stored, **WORDS)

    judge()
    with monkeypatch.context() as patch:
        patch.setattr(gguf_file, "_reader", lambda opened, name, _: lambda: opened.get_tensor(name).float().numpy())
        with pytest.raises(UserError, match="something else"):      # rows of each head in transformers' order
            judge()
    monkeypatch.setattr(gguf_rope, "_base", lambda *_: 100.0)
    with pytest.raises(UserError, match="something else"):
        judge()


def test_prompts_are_the_runs_own_and_at_most_64(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer(tiny_llama)
    prompts = prompts_of(ROWS, tokenizer)
    assert len(prompts) == PROMPTS == 64
    assert "Where is order 3?" in prompts[3].text
    assert list(prompts[3].ids) == tokenizer.encode([prompts[3].text])[0]
    assert len(prompts_of([], tokenizer)) == 1


def test_another_tokenizer_is_refused(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer(tiny_llama)
    prompts = prompts_of(ROWS[:3], tokenizer)
    require_same_tokens(prompts, tokenizer.encode, "us")
    for change in (lambda ids: ids[:-1], lambda ids: [*ids[:-1], 5], lambda ids: [1, *ids]):
        with pytest.raises(UserError, match="other tokens"):
            require_same_tokens(prompts, lambda texts, c=change: [c(ids) for ids in tokenizer.encode(texts)], "us")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_model_is_compared_as_it_was_written(dtype: str, tiny_llama: Path, tmp_path: Path) -> None:
    tokenizer, model = ChatTokenizer(tiny_llama), load_model(tiny_llama, dtype=torch.float32)
    prompts = prompts_of(ROWS[:4], tokenizer)
    wanted = next_logprobs(model, prompts)
    merged.write(model, tokenizer, tmp_path / "out", dtype)
    report, _ = merged.compare(tmp_path / "out", wanted, prompts, dtype)
    assert read_shape(tmp_path / "out").stored_dtype == dtype
    assert (report.max_difference == 0) == (dtype == "float32")
    merged.write(load_model(tiny_base(tmp_path / "other", seed=1), dtype=torch.float32), tokenizer, tmp_path / "out",
                 dtype)
    with pytest.raises(UserError, match="differs"):
        merged.compare(tmp_path / "out", wanted, prompts, dtype)


def test_the_dtype_is_that_of_the_bases_files(tiny_llama: Path, tmp_path: Path) -> None:
    assert merged.dtype_for(read_shape(tiny_llama), None) == "float32"
    merged.write(load_model(tiny_llama), ChatTokenizer(tiny_llama), tmp_path, "bfloat16")
    assert merged.dtype_for(read_shape(tmp_path), None) == "bfloat16"
    assert merged.dtype_for(read_shape(tmp_path), "float16") == "float16"
    with pytest.raises(UserError, match="no dtype"):
        merged.dtype_for(read_shape(tmp_path), "int8")


def test_numbers_too_large_for_float16_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    model = load_model(tiny_llama, dtype=torch.float32)
    next(model.parameters()).data[0, 0] = 1e6
    with pytest.raises(UserError, match="too large"):
        merged.write(model, ChatTokenizer(tiny_llama), tmp_path / "out", "float16")
