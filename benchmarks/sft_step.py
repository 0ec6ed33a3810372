"""One optimizer step's forward and backward: forest against padded batches, on equal rows, weights and losses.

The padded side is plain transformers + PEFT at its best: right-padded, the head at supervised positions only. Losses
are first asserted to agree; then both sides take turns, and the ratio is taken pair by pair.
`python benchmarks/sft_step.py [--repeats N]`; SmolLM2-135M, LoRA rank 16 on all linear layers, fp32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.models.resolve import resolve
from tuneloop.objectives.sft import Objective
from tuneloop.types import Rendered

BASE = "smollm2-135m-instruct"
COLUMNS = ("workload", "tokens, logical / unique", "padded s", "forest s", "ratio, median", "least to most",
           "loss difference")
WORKLOADS = {       # name -> shared prefix, question, answer, rows per step (tokens)
    "short reviews (44/20/2 × 16)": (44, 20, 2, 16),
    "prefix 256 (256/24/16 × 8)": (256, 24, 16, 8),
    "prefix 512 (512/32/32 × 16)": (512, 32, 32, 16),
    "nothing shared (0/48..192/64 × 8)": (0, 192, 64, 8),
}


def rows(prefix: int, question: int, answer: int, count: int) -> list[Rendered]:
    """Random tokens of the given shape; where nothing is shared, questions are of different lengths."""
    random = np.random.default_rng(0)
    shared = random.integers(100, 40_000, prefix)
    made = []
    for i in range(count):
        length = question if prefix else question // 4 + (question - question // 4) * i // (count - 1)
        ids = np.concatenate([shared, random.integers(100, 40_000, length + answer)])
        made.append(Rendered(ids, (np.arange(len(ids)) >= len(ids) - answer).astype(np.float32)))
    return made


def forest_step(model: ForestModel, samples: list[Rendered]) -> float:
    """The product's own path, packing included."""
    batch = to_batch(build_forest(samples))
    loss = Objective().loss(model(batch), batch).loss / float(batch.weights.sum())
    loss.backward()
    return float(loss.detach())


def padded_step(model: Any, samples: list[Rendered]) -> float:
    """transformers + PEFT: right-padded rows, logits at supervised positions only."""
    width = max(map(len, samples))
    ids, mask, weights = (torch.zeros(len(samples), width, dtype=torch.long) for _ in range(3))
    for i, s in enumerate(samples):
        ids[i, :len(s)] = torch.from_numpy(s.ids)
        mask[i, :len(s)] = 1
        weights[i, :len(s)] = torch.from_numpy(s.weights).long()
    hidden = model.get_base_model().model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    where = weights[:, 1:] > 0
    logits = model.get_base_model().lm_head(hidden[:, :-1][where])
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][where])
    loss.backward()
    return float(loss.detach())


def seconds(step: Callable[[], float], model: Any) -> float:
    """Wall time of one step; gradients are dropped outside of it."""
    model.zero_grad(set_to_none=True)
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    model = Method(rank=16).apply(load_model(resolve(BASE, Path.cwd()).path), seed=0)
    forest = ForestModel(model).train()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name, shape in WORKLOADS.items():
        samples = rows(*shape)
        pair = [lambda s=samples: padded_step(model, s), lambda s=samples: forest_step(forest, s)]
        losses = [step() for step in pair]      # warms up too
        assert abs(losses[0] - losses[1]) < 1e-4, losses
        timed = [[seconds(step, model) for step in pair] for _ in range(repeats)]
        ratios = [a / b for a, b in timed]
        packed = build_forest(samples)
        cells = [name, f"{packed.logical_tokens} / {packed.unique_tokens}",
                 *(f"{statistics.median(times):.2f}" for times in zip(*timed, strict=True)),
                 f"**{statistics.median(ratios):.2f}×**", f"{min(ratios):.2f} to {max(ratios):.2f}",
                 f"{abs(losses[0] - losses[1]):.0e}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
