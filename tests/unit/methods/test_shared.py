"""What all methods have in common: quantised bases are refused before anything loads, precision is the base's."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from toy import labels_recipe, run
from tuneloop.catalog import Catalog
from tuneloop.errors import UserError
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape
from tuneloop.plan.estimate import activation_bytes_per_token
from tuneloop.record import RunFolder

CATALOG = Catalog("method", "tuneloop.methods", "Method")
QUANTISED = [name for name in CATALOG.names if name != "full"]


@pytest.mark.parametrize("name", QUANTISED)
def test_bits_need_bitsandbytes_and_a_base_in_full(name: str, tiny_llama: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    shape, method = read_shape(tiny_llama), CATALOG.get(name)(kind=name, bits=4)
    real, there = importlib.util.find_spec, True
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda n, *r: (object() if there else None) if n == "bitsandbytes" else real(n, *r))
    method.check(shape)
    with pytest.raises(UserError, match="quantised already"):
        method.check(replace(shape, quantised="gptq"))
    there = False
    with pytest.raises(UserError, match="bitsandbytes"):
        method.check(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_model_is_loaded_in_the_precision_of_its_base(dtype: torch.dtype, tiny_llama: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.models.load.precision", lambda: torch.bfloat16)
    loaded = CATALOG.get("full")().load(load_model(tiny_llama, dtype=dtype), tiny_llama)
    assert {p.dtype for p in loaded.parameters()} == {dtype}


def test_virtual_tokens_are_in_the_plan(tiny_llama: Path, tmp_path: Path) -> None:
    planned = []
    for tokens in (20, 50):
        folder = tmp_path / str(tokens)
        run(labels_recipe(tmp_path, tiny_llama, method={"kind": "prompt", "tokens": tokens}), folder, "plan")
        planned.append(RunFolder(folder).read("plan.json")["memory"]["parts"]["activations"])
    shape = read_shape(tiny_llama)
    kept = activation_bytes_per_token(shape, method=CATALOG.get("prompt")().memory(shape))
    assert planned[1] - planned[0] == pytest.approx(30 * kept, abs=1)
