"""Columns that a run asks of models: each model has its own entries in the cache."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import exact
from tiny import tiny_base
from tuneloop.compute.model import ForestModel
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.needs import add_columns
from tuneloop.training.watch import Silent
from tuneloop.types import Group

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}       # bitsandbytes quantises blocks of 64


def reference(folder: Path, bits: Any) -> np.ndarray[Any, Any]:
    """What the base says of a row, asked as a run of LoRA on it asks."""
    method = Method(bits=bits)
    model = ForestModel(load_model(folder, dtype=torch.float32, **method.load_options()))
    objective = SimpleNamespace(needs=frozenset({"reference_logprobs"}))
    ready = SimpleNamespace(asked={}, base=SimpleNamespace(path=folder), weights={"base": "the same files"},
                            recipe=SimpleNamespace(objective=objective))
    session: Any = SimpleNamespace(ready=ready, method=method, model=model, packing=SimpleNamespace(share=True),
                                   plan={"training.token_budget": 64}, watch=Silent())
    [[group]] = add_columns(session, [Group((exact.sharing_rows()[0],))])
    found: np.ndarray[Any, Any] = group.branches[0].named["reference_logprobs"]
    return found


@pytest.mark.usefixtures("own_cache")
def test_a_quantised_base_is_another_reference_than_the_same_files_in_full(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = tiny_base(tmp_path / "base", **WIDE)
    found = [reference(folder, bits) for bits in (None, 4, 8)]
    assert np.array_equal(found[0], reference(folder, None))
    assert all(np.abs(a - b).max() > 1e-4 for a, b in ((found[0], found[1]), (found[0], found[2]),
                                                       (found[1], found[2])))
