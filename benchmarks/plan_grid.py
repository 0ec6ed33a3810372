"""How far the plan is off: peaks and processor seconds of training steps, measured one by one and compared with it.

`python benchmarks/plan_grid.py run FILE` measures every cell that FILE (JSONL) does not have yet, each in a process of
its own; `summary FILE` says how far the arithmetic was off, and how far after a calibration on two cells of the same
base, method and checkpointing (the shortest and the longest, as `tuneloop plan --calibrate` does it). Bases are random
weights of real shapes, saved once into --bases. Steps go through the training loop's own code; the peak is the kernel's
high-water mark above the process after it has trained a tiny model of the same kind.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop.catalog import Catalog
from tuneloop.compute.packing import build_forest
from tuneloop.models.shape import read_shape
from tuneloop.plan import estimate
from tuneloop.plan.calibration import Fit, Point
from tuneloop.types import Group, Rendered

MIB = 2**20
STEPS = 3                   # the last ones have the optimizer's state
LIMITS = np.arange(0.5, 1.505, 0.01)    # of a measured peak: limits that the plan has to judge
CLEAR = 0.1                 # limits nearer to the peak than the calibrated error bar are called tight, not judged

BASES: dict[str, dict[str, Any]] = {
    "llama-10m": {"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "intermediate_size": 704, "vocab_size": 16_000},
    "gpt2-27m": {"model_type": "gpt2", "n_embd": 384, "n_layer": 8, "n_head": 6, "n_inner": 1536, "vocab_size": 32_000},
    "qwen3-48m": {"model_type": "qwen3", "hidden_size": 512, "num_hidden_layers": 10, "num_attention_heads": 8,
                  "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1536, "vocab_size": 32_768},
    "gemma3-79m": {"model_type": "gemma3_text", "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 4,
                   "num_key_value_heads": 1, "head_dim": 128, "intermediate_size": 2048, "vocab_size": 65_536,
                   "sliding_window": 4096, "query_pre_attn_scalar": 128},
    "smollm2-135m": {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
                     "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49_152},
    "qwen2-186m": {"model_type": "qwen2", "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12,
                   "num_key_value_heads": 2, "intermediate_size": 3072, "vocab_size": 65_536},
    "qwen2-494m": {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
                   "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936},
}
SMALL = ((64, 256, 0), (256, 2048, 0), (512, 1024, 0), (128, 768, 96))
MIDDLE = ((64, 256, 0), (256, 1024, 0), (512, 512, 0), (128, 512, 96))
LARGE = ((128, 128, 0), (256, 512, 0), (64, 384, 32), (32, 256, 0))
"""(tokens of a row, tokens at once, tokens that all rows share): the first two calibrate, the others test."""

GROUPS: list[tuple[str, dict[str, Any], bool, str, tuple[tuple[int, int, int], ...]]] = [
    ("llama-10m", {"kind": "lora"}, False, "adamw", SMALL),
    ("llama-10m", {"kind": "full"}, False, "adamw", SMALL),
    ("gpt2-27m", {"kind": "lora"}, False, "adamw", SMALL),
    ("gpt2-27m", {"kind": "full"}, True, "adamw", SMALL),
    ("qwen3-48m", {"kind": "lora"}, True, "adamw", SMALL),
    ("qwen3-48m", {"kind": "prefix"}, False, "adamw", SMALL),
    ("qwen3-48m", {"kind": "full"}, False, "adamw", MIDDLE),
    ("gemma3-79m", {"kind": "lora"}, False, "adamw", MIDDLE),
    ("gemma3-79m", {"kind": "adapters"}, False, "adamw", MIDDLE),
    ("smollm2-135m", {"kind": "lora"}, False, "adamw", MIDDLE),
    ("smollm2-135m", {"kind": "lora"}, True, "adamw", MIDDLE),
    ("smollm2-135m", {"kind": "full"}, False, "adamw", MIDDLE),
    ("smollm2-135m", {"kind": "qlora"}, False, "adamw", MIDDLE),
    ("qwen2-186m", {"kind": "lora"}, False, "adamw", MIDDLE),
    ("qwen2-186m", {"kind": "full"}, True, "adamw_8bit", MIDDLE),
    ("qwen2-494m", {"kind": "lora"}, True, "adamw", LARGE),
    ("gpt2-27m", {"kind": "lora", "bits": 8}, False, "adamw", SMALL),
]


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    base: str
    method: dict[str, Any]
    checkpointing: bool
    optimizer: str
    length: int                 # tokens of a row
    budget: int                 # tokens at once
    shared: int                 # tokens that all rows have in common
    fits: bool                  # calibrates its group

    @property
    def name(self) -> str:
        """What it is known by in the file."""
        method = "-".join(str(v) for v in self.method.values())
        again = "-checkpointing" if self.checkpointing else ""
        return f"{self.base} {method}{again} {self.optimizer} {self.length}x{self.budget} shared {self.shared}"

    @property
    def group(self) -> str:
        """Cells that one calibration serves."""
        return self.name.rsplit(" ", 3)[0]

    def rows(self, vocab: int) -> list[Group]:
        """Rows of random tokens, a quarter of each supervised, that fill the budget."""
        random = np.random.default_rng(self.length)
        count = max(1, (self.budget - self.shared) // (self.length - self.shared))
        prefix = random.integers(1, vocab, self.shared)
        weights = (np.arange(self.length) >= self.length * 3 // 4).astype(np.float32)
        return [Group((Rendered(np.concatenate([prefix, random.integers(1, vocab, self.length - self.shared)]),
                                weights),)) for _ in range(count)]


def cells() -> list[Cell]:
    return [Cell(base, method, again, optimizer, *size, fits=i < 2) for base, method, again, optimizer, sizes in GROUPS
            for i, size in enumerate(sizes)]


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────

def base_folder(name: str, bases: Path) -> Path:
    """The base of that name, made of random weights if it is not there; half precision on disk, as on the hub."""
    folder = bases / name
    if not (folder / "config.json").exists():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        told = dict(BASES[name])
        positions = {"n_positions": 2048} if "n_embd" in told else {"max_position_embeddings": 4096}
        config = AutoConfig.for_model(told.pop("model_type"), **told, **positions, tie_word_embeddings=True)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def tiny_folder(name: str, bases: Path) -> Path:
    """A base of the same family with two layers, to warm up with."""
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
             "head_dim": 16, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128, "vocab_size": 512,
             "num_key_value_heads": 2}
    BASES[f"tiny-{name}"] = {key: small.get(key, value) for key, value in BASES[name].items()}
    return base_folder(f"tiny-{name}", bases)


def measure(cell: Cell, bases: Path, threads: int) -> dict[str, Any]:
    """Peak above the runtime, and seconds of a step, in this process."""
    import torch

    from tuneloop.training.peak import release, resident_bytes

    torch.set_num_threads(threads)
    warm = Cell(**asdict(cell) | {"length": 48, "budget": 192, "shared": 24})
    _steps(warm, tiny_folder(cell.base, bases), 512)
    release()
    runtime = resident_bytes()
    shape = read_shape(base_folder(cell.base, bases))
    found = _steps(cell, shape.folder, shape.vocab)
    return {"name": cell.name, "cell": asdict(cell), "runtime_bytes": runtime,
            "peak_bytes": found.pop("peak_bytes") - runtime, "threads": threads, **found}


def _steps(cell: Cell, folder: Path, vocab: int) -> dict[str, Any]:
    from tuneloop.compute.check import PROBE_TOKENS
    from tuneloop.compute.model import ForestModel
    from tuneloop.models.load import load_model
    from tuneloop.objectives.sft import Objective
    from tuneloop.training.loop import begin
    from tuneloop.training.peak import HighWater, release
    from tuneloop.training.source import Drawn
    from tuneloop.training.step import Settings, run_step

    assert PROBE_TOKENS
    rows, method = cell.rows(vocab), method_of(cell)
    base = load_model(folder, **method.load_options())
    model = ForestModel(method.apply(base, 0, [group.branches[0] for group in rows]))
    settings = Settings(
        steps=STEPS, batch_size=len(rows), learning_rate=1e-4, schedule="constant", warmup=0.0, weight_decay=0.0,
        max_grad_norm=1.0, token_budget=cell.budget, evaluate_every=STEPS, checkpoint_every=STEPS, patience=1,
        share=True, checkpointing=cell.checkpointing, memory_bytes=2**50, seed=0, optimizer=cell.optimizer)
    taken = []
    with HighWater() as high:
        release()
        high.mark()
        high.peak_bytes = 0     # loading is no part of a step
        trainer, _ = begin(model, Objective(), settings, lambda entry: None, high)
        for step in range(STEPS):
            began, busy = time.perf_counter(), time.process_time()
            entry = run_step(trainer, Drawn(rows, Objective(), {}), step)
            taken.append((time.process_time() - busy, time.perf_counter() - began, entry))
    entry = taken[-1][2]
    return {"peak_bytes": high.peak_bytes, "how": high.how, "cpu_seconds": min(t[0] for t in taken[1:]),
            "seconds": min(t[1] for t in taken[1:]), "tokens": entry["tokens"], "pieces": entry["pieces"],
            "heads": entry["supervised_tokens"], "trainable": sum(p.numel() for p in model.parameters()
                                                                   if p.requires_grad)}


def method_of(cell: Cell) -> Any:
    return Catalog("method", "tuneloop.methods", "Method").get(cell.method["kind"])(**cell.method)


def run(file: Path, bases: Path, threads: int, only: str) -> None:
    """Measure what is missing, each cell in a process of its own."""
    known = {line["name"] for line in read(file)}
    wanted = [cell for cell in cells() if cell.name not in known and only in cell.name]
    for number, cell in enumerate(wanted, 1):
        command = [sys.executable, __file__, "cell", str(file), "--bases", str(bases), "--threads", str(threads),
                   "--only", cell.name]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{cell.name} FAILED: {done.stderr[-1500:]}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(found) + "\n")
        print(f"{number}/{len(wanted)} {cell.name}: {found['peak_bytes'] / MIB:.0f} MiB, {found['cpu_seconds']:.2f} s "
              f"of processor a step ({time.perf_counter() - began:.0f} s in all)", flush=True)


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def point(line: dict[str, Any], bases: Path) -> Point:
    """What was measured, beside what the arithmetic says."""
    cell = Cell(**line["cell"])
    method, shape = method_of(cell), read_shape(base_folder(cell.base, bases))
    forest = build_forest([r for group in cell.rows(shape.vocab) for r in group.branches])
    length, shared = cell.length - 1, cell.shared
    rows = (forest.unique_tokens - shared) / (length - shared)
    pairs = shared**2 / 2 + rows * ((length - shared) * shared + (length - shared) ** 2 / 2)
    cost = method.memory(shape)
    expected = estimate.training_memory(
        shape, cost, forest.unique_tokens + method.slots, cell.checkpointing, cell.optimizer,
        heads=len(np.unique(forest.predict_at)), shared=bool(cell.shared or method.slots), accumulates=False)
    flops = estimate.training_flops(shape, cost, line["tokens"], line["heads"], pairs, cell.checkpointing)
    return Point(forest.unique_tokens, expected, line["peak_bytes"], flops, line["pieces"], line["cpu_seconds"],
                 line["seconds"])


def summary(file: Path, bases: Path) -> None:
    """How far off, cell by cell and in all."""
    measured = [(Cell(**line["cell"]), point(line, bases), line) for line in read(file)]
    closed = [abs(p.off) for _, p, _ in measured]
    table, tested = [], []
    for group in dict.fromkeys(cell.group for cell, *_ in measured):
        mine = [(cell, p, line) for cell, p, line in measured if cell.group == group]
        fits = [p for cell, p, _ in mine if cell.fits]
        fit = Fit.of(fits) if len(fits) == 2 else None
        for cell, p, _ in mine:
            row = {"cell": cell, "point": p, "closed": p.off}
            if fit is not None and not cell.fits:
                memory = fit.applied(p.expected)
                row |= {"fitted": (memory.total_bytes - memory.runtime) / p.peak_bytes - 1,
                        "cpu": fit.cpu_seconds(p.flops, p.pieces) / p.cpu_seconds - 1}
                tested.append(row)
            table.append(row)
    for row in table:
        cell, p = row["cell"], row["point"]
        fitted = f"{row['fitted']:+.1%} | {row['cpu']:+.1%}" if "fitted" in row else "fits | fits"
        print(f"| {cell.name} | {p.tokens} | {p.peak_bytes / MIB:,.0f} | {p.cpu_seconds:.2f} | {row['closed']:+.1%} | "
              f"{fitted} |")
    print()
    tell("arithmetic, above the runtime", closed)
    tell("arithmetic, what a step adds to weights, gradients, moments",
         [abs(p.figure / max(1, p.peak_bytes - p.fixed) - 1) for _, p, _ in measured])
    tell("calibrated, cells not used to fit", [abs(row["fitted"]) for row in tested])
    tell("processor seconds after calibration", [abs(row["cpu"]) for row in tested])
    judged("arithmetic", [(1 + row["closed"], estimate.ERROR) for row in table])
    judged("calibrated", [(1 + row["fitted"], CLEAR) for row in tested])


def tell(what: str, errors: Sequence[float]) -> None:
    if errors:
        ordered = sorted(errors)
        high = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
        print(f"{what}: median {statistics.median(ordered):.1%}, 95th percentile {high:.1%}, worst {ordered[-1]:.1%}, "
              f"{len(ordered)} cells")


def judged(what: str, ratios: Sequence[tuple[float, float]]) -> None:
    """Over a sweep of limits: how often the plan says `fits` of what does not, and the other way round.

    `ratios`: the plan's figure over the measured peak, and the plan's error bar. It says that a step fits where the
    upper end of the bar does, that it does not where the lower end does not, and otherwise that it is tight.
    """
    said = [(limit >= ratio * (1 + bar), limit < ratio * (1 - bar), limit >= 1) for ratio, bar in ratios
            for limit in LIMITS]
    wrong_yes = sum(yes and not fits for yes, _, fits in said) / max(1, sum(not fits for *_, fits in said))
    wrong_no = sum(no and fits for _, no, fits in said) / max(1, sum(fits for *_, fits in said))
    tight = sum(not yes and not no for yes, no, _ in said) / len(said)
    point = [(limit >= ratio, limit >= 1) for ratio, _ in ratios for limit in LIMITS]
    bare = [sum(yes and not fits for yes, fits in point) / sum(not fits for _, fits in point),
            sum(not yes and fits for yes, fits in point) / sum(fits for _, fits in point)]
    print(f"{what}: false 'fits' {wrong_yes:.2%}, false 'does not fit' {wrong_no:.2%}, tight {tight:.0%} of limits "
          f"from {LIMITS[0]:.0%} to {LIMITS[-1]:.0%} of the peak; by the figure without its bar {bare[0]:.1%} and "
          f"{bare[1]:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "cell", "summary", "list"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--bases", type=Path, default=Path("/tmp/plan-bases"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cells whose name has this in it")
    given = parser.parse_args()
    if given.action == "list":
        print("\n".join(cell.name for cell in cells()))
    elif given.action == "cell":
        cell = next(cell for cell in cells() if cell.name == given.only)
        print(json.dumps(measure(cell, given.bases, given.threads)))
    elif given.action == "run":
        run(given.file, given.bases, given.threads, given.only)
    else:
        summary(given.file, given.bases)


if __name__ == "__main__":
    main()
