"""What `doctor` finds, on machines that lack things too."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tiny import tiny_base
from tuneloop import doctor
from tuneloop.errors import UserError
from tuneloop.models import cache, hub


@pytest.fixture(autouse=True)
def hub_that_answers(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(hub, "ask", lambda _: None)


def findings() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_everything_is_looked_at() -> None:
    found = findings()
    assert {"python", "torch", "device", "threads", "memory", "disk: cache", "disk: here", "packages", "model hub",
            "cached bases"} <= found.keys()
    assert found["python"].ok
    assert all(finding.detail for finding in found.values())
    assert all(finding.fix for finding in found.values() if finding.ok is False)


def test_a_machine_without_torch_gets_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "torch" else object())
    monkeypatch.setitem(sys.modules, "torch", None)
    assert findings()["torch"] == doctor.Finding("torch", False, "not installed", "pip install torch")


def test_a_torch_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "torch", None)
    torch = findings()["torch"]
    assert torch.ok is False
    assert "cannot be imported" in torch.detail


def test_little_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(1, 1, 1_000_000))
    found = findings()["disk: cache"]
    assert found.ok is None
    assert "TUNELOOP_CACHE" in found.fix


def test_a_silent_hub_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: str) -> None:
        raise hub.NoAnswerError("the model hub did not answer")

    monkeypatch.setattr(hub, "ask", silent)
    found = findings()["model hub"]
    assert found.ok is None
    assert "smollm2-135m-instruct" in found.fix


def test_a_hub_that_refuses_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise UserError("gated")

    monkeypatch.setattr(hub, "ask", refuse)
    assert findings()["model hub"].detail == "gated"


def test_cached_bases_are_listed() -> None:
    assert "models fetch" in findings()["cached bases"].fix
    tiny_base(cache.base_folder("mine"))
    assert findings()["cached bases"].detail == "mine"


def test_a_missing_extra_gets_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_extra_names", lambda: ["eval"])
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=1", "nowhere-to-be-found>=1; extra == 'eval'"])
    found = findings()["extra: eval"]
    assert (found.ok, found.fix) == (None, "pip install 'tuneloop[eval]'")
    assert "nowhere" not in findings()["packages"].detail


def test_threads_that_are_held_back_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert findings()["threads"].fix == "unset OMP_NUM_THREADS"
