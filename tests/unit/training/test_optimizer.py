"""The optimizers: what they are, what 8 bits change, what a CPU refuses; a run with them resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from tuneloop.errors import UserError
from tuneloop.training.optimizer import make_optimizer

LARGE, SMALL = (128, 64), (16, 16)


def stepped(kind: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, Any]:
    """A parameter after five steps on a bowl, and its state."""
    torch.manual_seed(0)
    target, parameter = torch.randn(shape), torch.nn.Parameter(torch.randn(shape))
    optimizer = make_optimizer(kind, [{"params": [parameter], "weight_decay": 0.1}], 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        (parameter - target).pow(2).sum().backward()
        optimizer.step()
    return parameter.detach(), optimizer.state[parameter]


def test_adamw_is_torchs() -> None:
    assert type(make_optimizer("adamw", [{"params": [torch.nn.Parameter(torch.zeros(2))]}], 0.1)) is torch.optim.AdamW


@pytest.mark.parametrize(("shape", "tolerance", "kept"), [(SMALL, 1e-6, torch.float32), (LARGE, 0.02, torch.uint8)])
def test_eight_bits_step_nearly_as_adamw(shape: tuple[int, ...], tolerance: float, kept: torch.dtype) -> None:
    (exact, _), (found, state) = stepped("adamw", shape), stepped("adamw_8bit", shape)
    assert (found - exact).abs().max() <= tolerance
    assert state["state1"].dtype == kept


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU pages")
@pytest.mark.parametrize("kind", ["paged_adamw", "paged_adamw_8bit"])
def test_a_cpu_has_nothing_to_page_to(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CUDA") as caught:
        stepped(kind, SMALL)
    assert "adamw_8bit" in caught.value.fix


def test_a_run_with_eight_bits_resumes_bit_for_bit(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = toy.labels_recipe(tmp_path, tiny_llama, method={"kind": "full"},
                               training={"optimizer": "adamw_8bit", "max_steps": 12})
    toy.run(recipe, tmp_path / "whole", until="train")

    def cut() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(recipe, tmp_path / "cut", until="train", watch=toy.Interrupting(8, cut))
    toy.resume(recipe, tmp_path / "cut", until="train")
    assert toy.same_bits(tmp_path / "whole", tmp_path / "cut")


def test_weight_decay_is_for_matrices_alone() -> None:
    """Scales that begin at 1, as those of (IA)3 do, would be pulled to 0."""
    from tuneloop.training.loop import _parameter_groups

    model = torch.nn.Module()
    shapes = {"matrix": (3, 4), "bias": (4,), "scale": (1, 4), "column": (4, 1), "number": ()}
    for name, shape in shapes.items():
        model.register_parameter(name, torch.nn.Parameter(torch.ones(shape)))
    decayed, kept = _parameter_groups(model, 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 4)]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {tuple(p.shape) for p in kept["params"]} == {(4,), (1, 4), (4, 1), ()}
