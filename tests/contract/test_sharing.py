"""Random trees: what is shared, cut and stitched together again gives the gradients of the rows one by one.

Llama, Qwen, Gemma with its sliding windows, a GPT-2 and a mixture of experts, each with LoRA and with all parameters,
in float64 (design: 1e-9). A router's softmax is float32 in transformers whatever the model is, so experts are held to
1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exact
from tiny import tiny_base
from tuneloop.compute import cut, packing
from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.methods.full import Method as Full
from tuneloop.methods.lora import Method as Lora
from tuneloop.models.load import load_model
from tuneloop.types import Rendered

BASES: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen3": {}, "gpt2": {}, "gemma3_text": {"sliding_window": 128},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}}
METHODS: dict[str, Callable[[], Any]] = {"lora": lambda: Lora(rank=4), "full": Full}


@st.composite
def trees(draw: st.DrawFn) -> list[Rendered]:
    """Rows that go on from the beginnings of earlier ones, with answers anywhere; at most 120 tokens each."""
    token = st.integers(3, 290)
    rows: list[list[int]] = []
    for _ in range(draw(st.integers(2, 6))):
        start: list[int] = []
        if rows and draw(st.integers(0, 4)):
            parent = draw(st.sampled_from(rows))
            start = parent[:draw(st.integers(0, min(80, len(parent))))]
        rows.append([*start, *draw(st.lists(token, min_size=2, max_size=40))])
    made = []
    for ids in rows:
        weights = np.zeros(len(ids), np.float32)
        weights[draw(st.lists(st.integers(1, len(ids) - 1), min_size=1, max_size=5))] = 1
        made.append(Rendered(np.array(ids, np.int64), weights))
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: tiny_base(tmp_path_factory.mktemp(family), family, **changes) for family, changes in BASES.items()}


@pytest.fixture(params=[f"{method}-{family}" for method in METHODS for family in BASES])
def model(request: pytest.FixtureRequest, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    method, _, family = request.param.partition("-")
    base: Any = exact.double(folders[family], monkeypatch)
    base.config._experts_implementation = "eager"       # the grouped kernel knows no float64
    made = METHODS[method]().apply(base, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)     # at the start B is zero, and then the gradient to A is
    monkeypatch.setattr(packing, "MIN_SHARED_TOKENS", 4)
    monkeypatch.setattr(cut, "MIN_TRUNK_TOKENS", 8)
    return made.double()


def assert_agree(model: Any, rows: list[Rendered], budget: int) -> None:
    tolerance = 1e-6 if "moe" in model.config.model_type else 1e-9
    plain, wanted = exact.packed(ForestModel(model, "rows"), rows, share=False)
    for options in ({"budget": 10**6}, {"budget": budget}, {"budget": budget, "trunks": False}, {"share": False}):
        loss, gradients = exact.packed(ForestModel(model), rows, **options)
        assert abs(loss / plain - 1) <= tolerance, options
        assert exact.difference(gradients, wanted) <= tolerance, options


def try_trees(model: Any, examples: int, **options: Any) -> None:
    @given(rows=trees(), budget=st.integers(20, 200))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), **options)
    def check(rows: list[Rendered], budget: int) -> None:
        assert_agree(model, rows, budget)

    check()


def test_random_trees(model: Any) -> None:
    try_trees(model, 6, derandomize=True)


@pytest.mark.slow
def test_many_random_trees(model: Any) -> None:
    try_trees(model, 60)


@pytest.mark.parametrize("family", BASES)
def test_dropout_of_the_method_is_visibly_off(family: str, folders: dict[str, Path]) -> None:
    """A prefix computed once would drop the same entries for every row: it is not shared, and the run says why."""
    method = Lora(rank=4, dropout=0.1)
    packed = choose_packing(load_model(folders[family], dtype=torch.float32), exact.sharing_rows(),
                            share=method.exact_when_shared)
    assert (packed.mode, packed.share) == ("forest", False)
    assert "dropout must differ from row to row" in packed.why
