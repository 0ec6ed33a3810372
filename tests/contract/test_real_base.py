"""The real SmolLM2-135M: what our packing computes is what transformers and PEFT compute row by row, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import exact
from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.data.render import render
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Origin, Rendered

SYSTEM = Message("system", "You judge film reviews. Answer with one word, and give a reason only when asked for it.")
REVIEWS = [("A rich and intelligent film.", "positive"), ("The plot is thin and the jokes are old.", "negative"),
           ("The plot is thin, but I laughed.", "positive"), ("Worse than its own trailer!", "negative")]


def conversations() -> list[Conversation]:
    found = [(SYSTEM, Message("user", text), Message("assistant", label)) for text, label in REVIEWS]
    found.append((*found[0], Message("user", "Why?"), Message("assistant", "It uses its idea well.")))
    found.append((Message("user", "What is 2 + 2?"), Message("assistant", "4")))
    return [Conversation(messages, Origin("rows.jsonl", i)) for i, messages in enumerate(found)]


@pytest.mark.real
def test_shared_prefixes_equal_plain_transformers_on_the_real_base(real_base: Path) -> None:
    rows = [r for r in render(conversations(), ChatTokenizer(real_base)) if isinstance(r, Rendered)]
    assert len(rows) == 6
    base = load_model(real_base, dtype=torch.float32)
    packing = choose_packing(base, rows)
    assert (packing.mode, packing.share) == ("forest", True), packing.why
    model: Any = Method(rank=4).apply(base, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02)         # at the start B is zero, and then the gradient to A is
    theirs = exact.labelled_loss(model, rows)
    wanted = exact.gradients(model, theirs)
    for budget in (10**6, 256):     # in one piece, and in several after a trunk
        ours, gradients = exact.packed(ForestModel(model), rows, budget=budget)
        assert abs(ours / theirs.item() - 1) <= 1e-5
        assert exact.difference(gradients, wanted) <= 1e-5
