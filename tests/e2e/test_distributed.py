"""Several processes share the micro-batches of a step: the same losses, and only the main one writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from toy import labels_recipe

pytestmark = pytest.mark.slow

FIT = """
import json, os, signal, sys
from pathlib import Path
import torch
from toy import labels_recipe
from tuneloop.compute.model import ForestModel
from tuneloop.prepared import Prepared
from tuneloop.models.load import load_model
from tuneloop.recipe import load
from tuneloop.training.loop import Settings, fit
from tuneloop.training.watch import Silent
from tuneloop.types import Group

folder, out, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
rank = os.environ.get("RANK", "0")
recipe = load(folder / "recipe.yaml")
ready = Prepared(recipe, Silent())
model = ForestModel(recipe.method.apply(load_model(ready.base.path, dtype=torch.float32), recipe.seed))
settings = Settings(**{"steps": 8, "batch_size": 10, "learning_rate": 0.01, "schedule": "cosine", "warmup": 0.1,
                       "weight_decay": 0.01, "max_grad_norm": 1.0, "token_budget": 40, "evaluate_every": 3,
                       "checkpoint_every": 3, "patience": 3, "share": True, "checkpointing": False,
                       "memory_bytes": 2**40, "seed": 0} | options["settings"])
told, looks = [], []

def report(entry):
    told.append(entry)
    if entry["event"] == "step" and entry["step"] == options.get("interrupt_at"):
        signal.raise_signal(signal.SIGINT)

ended = "done"
try:
    train, validation = ([Group((r,)) for r in ready.rows.tokens[part]] for part in ("train", "validation"))
    progress = fit(model, recipe.objective, train, validation, settings, out / "checkpoints", report=report,
                   look=looks.append)
except KeyboardInterrupt:
    ended = "interrupted"
kept = {name: float(p.double().sum()) for name, p in model.named_parameters() if p.requires_grad}
(out / f"rank-{rank}.json").write_text(json.dumps({"told": told, "looks": looks, "ended": ended, "kept": kept}))
if torch.distributed.is_initialized():      # or gloo's threads may be cut off while they still run
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def fit(processes: int, folder: Path, out: Path, interrupt_at: int | None = None, **settings: Any) -> list[Any]:
    """Train in so many processes; what each of them told."""
    out.mkdir(exist_ok=True)
    (folder / "fit.py").write_text(FIT)
    words = [str(folder / "fit.py"), str(folder), str(out),
             json.dumps({"settings": settings, "interrupt_at": interrupt_at})]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1",
                 f"--master-port={port}", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *words], env=environment, text=True, check=False, capture_output=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def series(told: Any, event: str, key: str = "loss") -> list[float]:
    return [entry[key] for entry in told["told"] if entry["event"] == event]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    made = tmp_path_factory.mktemp("distributed")
    labels_recipe(made, tiny_llama)
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> Any:
    return fit(1, folder, folder / "alone")[0]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_agree_with_one(processes: int, folder: Path, alone: Any) -> None:
    """Micro-batches of a step do not divide evenly, so some processes compute one without weight."""
    main, *others = fit(processes, folder, folder / f"together-{processes}")
    counts = series(alone, "step", "pieces")
    assert any(count % processes for count in counts)
    assert series(main, "step") == pytest.approx(series(alone, "step"), rel=1e-5)
    assert series(main, "step", "grad_norm") == pytest.approx(series(alone, "step", "grad_norm"), rel=1e-4)
    assert series(main, "validation") == pytest.approx(series(alone, "validation"), rel=1e-5)
    assert main["looks"] == alone["looks"] == [3, 6, 8]
    for other in others:
        assert other["told"] == other["looks"] == []
        assert other["kept"] == main["kept"]            # the best parameters, in all processes
    for one, other in zip(sorted(alone["kept"].items()), sorted(main["kept"].items()), strict=True):
        assert other == (one[0], pytest.approx(one[1], rel=1e-3, abs=1e-4))
    checkpoints = folder / f"together-{processes}" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"best-8", "step-8"}


def test_processes_stop_together_and_go_on_bit_by_bit(folder: Path) -> None:
    whole = fit(2, folder, folder / "whole")
    cut = fit(2, folder, folder / "cut", interrupt_at=4)         # only the main process reports, and is interrupted
    assert [told["ended"] for told in cut] == ["interrupted", "interrupted"]
    assert (folder / "cut" / "checkpoints" / "step-4").is_dir()
    rest = fit(2, folder, folder / "cut")
    assert series(cut[0], "step") + series(rest[0], "step") == series(whole[0], "step")
    best = "checkpoints/best-8/parameters.safetensors"
    one, other = load_file(folder / "whole" / best), load_file(folder / "cut" / best)
    assert all((one[name] == other[name]).all() for name in one)
