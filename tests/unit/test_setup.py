"""Set-up fails early with the fix, says sizes first, and does nothing when all is up to date."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/setup.py, about to work in an empty folder on a machine that lacks nothing."""
    specification = importlib.util.spec_from_file_location("setup_tool", ROOT / "tools" / "setup.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp.json")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "python")
    monkeypatch.setattr(module, "PIP_INSTALL", ["pip", "install"])
    monkeypatch.setattr(module, "brings_cuda", lambda source: False)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(0, 0, 10**12))
    monkeypatch.setattr(module, "works", lambda python, modules="sys": "torch" not in modules)
    monkeypatch.setattr(module.subprocess, "call", lambda command, **_: calls.append(command) or 0)
    calls: list[list[str]] = []
    module.calls = calls
    (tmp_path / ".venv").mkdir()
    return module


def test_the_second_time_does_nothing(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    setup.main({"dev"})
    assert "torch" in capsys.readouterr().out
    assert any("-e" in command and f"{setup.ROOT}[dev]" in command for command in setup.calls)
    setup.calls.clear()
    setup.main({"dev"})
    setup.main({"eval"})
    assert setup.calls == []
    assert capsys.readouterr().out == ""


def test_what_was_asked_for_before_stays(setup: ModuleType) -> None:
    setup.main({"dev"})
    setup.main({"parity"})
    assert f"{setup.ROOT}[constrain,data,dev,eval,hpo,parity,people,quant]" in setup.calls[-1]


def test_other_locked_versions_are_installed(setup: ModuleType) -> None:
    setup.main({"dev"})
    setup.calls.clear()
    (setup.ROOT / "constraints.txt").write_text("torch==9")
    setup.main({"dev"})
    assert setup.calls


def test_a_failed_installation_is_not_taken_for_done(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.subprocess, "call", lambda *_, **__: 1)
    with pytest.raises(SystemExit, match="pip says above why"):
        setup.main({"dev"})
    assert not setup.STAMP.exists()


def test_an_old_python_alone_is_refused(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "works", lambda *_: False)
    with pytest.raises(SystemExit, match=r"Python 3\.11 to 3\.14 is needed(.|\n)*fix: .*install"):
        setup.main({"dev"})


def test_a_newer_python_on_path_is_found(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "works", lambda python, modules="sys": str(python).endswith("python3.12"))
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert setup.find_python() == "/usr/bin/python3.12"


def test_a_python_without_venv_gets_the_package(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "works", lambda python, modules="sys": modules == "sys" and python == sys.executable)
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv"):
        setup.main({"dev"})


def test_a_full_disk_is_refused(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * 10**9))
    with pytest.raises(SystemExit, match=r"3\.0 GB are free"):
        setup.main({"dev"})


@pytest.mark.parametrize(("system", "machine", "refused"), [
    ("Linux", "riscv64", True), ("Darwin", "x86_64", True), ("Darwin", "arm64", False), ("Windows", "AMD64", False)])
def test_a_compiler_is_wanted_only_where_it_is_needed(setup: ModuleType, system: str, machine: str, refused: bool,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup.platform, "machine", lambda: machine)
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    if refused:
        with pytest.raises(SystemExit, match="no C compiler"):
            setup.check_compiler()
    else:
        setup.check_compiler()


@pytest.mark.parametrize(("ordinary", "small", "gpu", "large", "elsewhere"), [
    (False, True, False, False, False), (False, True, True, False, False),
    (True, False, False, False, True), (True, True, False, True, False),
    (True, False, True, True, False)])
def test_without_a_gpu_torch_comes_without_cuda(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, gpu: bool,
                                                ordinary: bool, small: bool, large: bool, elsewhere: bool) -> None:
    monkeypatch.setattr(setup.platform, "system", lambda: "Linux")
    monkeypatch.setattr(setup.shutil, "which", lambda name: name if gpu and name == "nvidia-smi" else None)
    monkeypatch.setattr(setup, "brings_cuda", lambda source: small if source else ordinary)
    source, brings = setup.torch_source()
    assert (brings, setup.CPU_WHEELS in source) == (large, elsewhere)


def test_a_large_torch_needs_a_large_disk(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "torch_source", lambda: ([], True))
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda _: Usage(0, 0, 5 * 10**9))
    with pytest.raises(SystemExit, match="12 GB are needed"):
        setup.main({"dev"})


def test_the_stamp_names_what_was_installed(setup: ModuleType) -> None:
    setup.main({"eval"})
    assert json.loads(setup.STAMP.read_text())["extras"] == "eval"
