"""Checkpoints: atomic, complete, at optimizer-step boundaries. A new one is whole before the last one goes."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tuneloop.errors import TrainingFailed


@dataclass
class Progress:
    """What the loop must remember to go on as if it had never stopped."""

    step: int = 0                           # optimizer steps done
    tokens: int = 0                         # unique tokens computed so far
    best_step: int | None = None
    best_loss: float | None = None          # validation loss at `best_step`
    stale_looks: int = 0                    # looks at the validation loss since the best
    stopped_early: bool = False
    why: str = ""                           # it was, where it was not for want of a new best
    seconds: float = 0.0
    cpu_seconds: float = 0.0                # of this process, in the steps
    peak_memory_bytes: int = 0
    reserved_memory_bytes: int | None = None    # what CUDA's allocator held
    measured_by: str = ""                   # kernel | allocator | samples
    token_budget: int | None = None         # what it has been lowered to


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write `step-N`, then remove the checkpoints before it, and parameters that are no longer the best."""
    def write(into: Path) -> None:
        torch.save({"parameters": {k: v.detach().cpu() for k, v in trainable(model).items()},
                    "optimizer": optimizer.state_dict()}, into / "state.pt")
        (into / "progress.json").write_text(json.dumps(asdict(progress), indent=2), encoding="utf-8")

    final = folder / f"step-{progress.step}"
    publish(final, write)
    for older in [*_steps(folder), *folder.glob("best-*")]:
        if older != final and older.name != f"best-{progress.best_step}":
            shutil.rmtree(older)
    return final


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Continue from the newest checkpoint in `folder`, or None if there is none."""
    found = _steps(folder)
    if not found:
        return None
    state = torch.load(found[-1] / "state.pt", map_location="cpu", weights_only=True)
    put(model, state["parameters"])
    optimizer.load_state_dict(state["optimizer"])
    return _progress(found[-1])


def newest_step(folder: Path) -> int:
    """Optimizer steps done at the newest checkpoint; 0 if there is none."""
    return max((_progress(path).step for path in _steps(folder)), default=0)


def save_best(folder: Path, model: nn.Module, step: int) -> None:
    """Write `best-N`, the parameters alone, then remove the others but the one that the newest checkpoint counts on."""
    from safetensors.torch import save_file

    final = folder / f"best-{step}"
    publish(final, lambda into: save_file({k: v.detach().cpu().contiguous() for k, v in trainable(model).items()},
                                          into / "parameters.safetensors"))
    needed = {final.name, *(f"best-{_progress(path).best_step}" for path in _steps(folder))}
    for older in folder.glob("best-*"):
        if older.name not in needed:
            shutil.rmtree(older)


def load_best(folder: Path, model: nn.Module, step: int) -> None:
    """Put the best parameters back."""
    from safetensors.torch import load_file

    put(model, load_file(folder / f"best-{step}" / "parameters.safetensors"))


@torch.no_grad()
def put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy `values` into the parameters that train; both must have the same names."""
    parameters = trainable(model)
    if parameters.keys() != values.keys():
        raise TrainingFailed("The checkpoint holds other parameters than the recipe trains.",
                             fix="a run is resumed with its own recipe only")
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


_FAILED_WRITES = ("PytorchStreamWriter", "inline_container", "unexpected pos", "open file failed")
"""Words of the RuntimeErrors that torch makes of a refusal of the file system."""


def publish(final: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside `final` and rename it into place, so that `final` is never half-written.

    A full disk (or any other refusal of the file system) leaves what was there before and is told as such.
    """
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        _sync(partial)
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in _FAILED_WRITES):
            raise
        kept = ", ".join(sorted(p.name for p in final.parent.glob("[!.]*"))) or "none"
        raise TrainingFailed(f"{final} could not be written: {error}. Kept from before: {kept}.",
                             fix="free disk space, then continue with `tuneloop run --resume RUN`") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _steps(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def _progress(path: Path) -> Progress:
    return Progress(**json.loads((path / "progress.json").read_text(encoding="utf-8")))
