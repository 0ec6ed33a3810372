"""Machines by name, and this one, without torch."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.plan import hardware
from tuneloop.plan.hardware import gpu_here, here, named


def test_an_accelerator_an_offer_and_an_instance() -> None:
    device, offer, instance = named("a100-40gb"), named("AWS-p4d"), named("p4d.24xlarge")
    assert (device.memory_bytes, device.devices, device.usd_per_hour) == (40_000_000_000, 1, None)
    assert (offer.memory_bytes, offer.devices, offer.usd_per_hour) == (40_000_000_000, 8, 32.77)
    assert instance == offer
    assert offer.total_watts == 8 * 400
    assert device.dtype_bytes == 2
    assert named("v100-32gb").dtype_bytes == 4      # it has no bfloat16
    assert named("v100-32gb").flops_per_second == 15.7e12


@pytest.mark.parametrize(("name", "meant"), [("a100", "a100-40gb or a100-80gb"), ("aws-p4", "aws-p4d or aws-p4de"),
                                             ("h10-80gb", "h100-80gb"), ("p4d.24xlrge", "p4d.24xlarge")])
def test_did_you_mean(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"No machine is called '{name}'") as caught:
        named(name)
    assert meant in caught.value.fix


def test_this_machine_is_measured() -> None:
    found = here()
    assert (found.name, found.kind, found.dtype_bytes, found.total_watts) == ("here", "cpu", 4, None)
    assert 0 < found.available_bytes <= found.memory_bytes
    assert found.flops_per_second > 1e8
    assert hardware.bandwidth_here() > 1e8


def answering(text: str) -> Any:
    return lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout=text, stderr="")


@pytest.mark.parametrize(("told", "torch", "found"), [
    ("NVIDIA A100-SXM4-80GB, 81920, 80000\n", "2.13.0", "here: a100-80gb"),
    ("Tesla T4, 15360, 15000\nTesla T4, 15360, 15000\n", "2.13.0+cu128", "here: t4"),
    ("NVIDIA A100-SXM4-80GB, 81920, 80000\n", "2.13.0+cpu", None),
    ("NVIDIA Unheard Of, 81920, 80000\n", "2.13.0", None),
    ("", "2.13.0", None),
])
def test_a_gpu_here_is_known_by_its_drivers_name(told: str, torch: str, found: str | None,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda name: name)
    monkeypatch.setattr(hardware.subprocess, "run", answering(told))
    monkeypatch.setattr(hardware, "version", lambda name: torch)
    gpu = gpu_here()
    assert (gpu.name if gpu else None) == found
    if gpu:
        total, free = (int(part) * 2**20 for part in told.splitlines()[0].split(",")[1:])
        assert (gpu.memory_bytes, gpu.available_bytes, gpu.kind) == (total, free, "cuda")


def test_no_gpu_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    assert gpu_here() is None
