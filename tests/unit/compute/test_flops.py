"""Executed FLOPs against torch's own counter, and attention by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import exact
from tiny import tiny_base
from tuneloop.compute.cut import cut_step
from tuneloop.compute.flops import Meter, _pairs
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.methods.full import Method as Full
from tuneloop.methods.lora import Method as Lora
from tuneloop.models.load import load_model
from tuneloop.objectives.sft import Objective

ROWS = exact.sharing_rows()


@pytest.mark.parametrize("method", [Lora(rank=4), Full()])
@pytest.mark.parametrize("budget", [10**6, 60])
def test_products_are_those_that_torch_counts(method: Lora | Full, budget: int, tmp_path: Path) -> None:
    model = ForestModel(method.apply(load_model(tiny_base(tmp_path), dtype=torch.float32), seed=0)).train()
    pieces = cut_step(ROWS, budget)
    meter = Meter(model)
    with meter.counting(), FlopCounterMode(display=False) as counter:
        for _, batch, out in passes(model, pieces, "cpu"):
            Objective().loss(out, batch).loss.backward()  # type: ignore[no-untyped-call]
    config = model.inner.config
    attention = 14 * config.num_hidden_layers * config.hidden_size * sum(_pairs(p) for p in pieces)
    counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items() if "mm" in str(op)}
    assert abs(sum(counted.values()) / (meter.flops(pieces) - attention) - 1) <= 0.03


def test_attention_pairs_by_hand() -> None:
    """A prefix of 20 tokens and two branches of 5 and 3 go on from it: 210 + 15 + 6 + 20 * 8 pairs."""
    rows = exact.sharing_rows(longest=44)[:2]
    whole, = cut_step(rows, 10**6)
    lengths = [len(r) - 1 for r in rows]
    own = [length - 20 for length in lengths]
    assert _pairs(whole) == 210 + sum(n * (n + 1) / 2 for n in own) + 20 * sum(own)
