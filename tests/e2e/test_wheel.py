"""What ordinary users do: the wheel, installed into a clean environment, runs a small recipe outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tiny import tiny_base

ROOT = Path(__file__).parents[2]
RECIPE = """\
base: ./base
data:
  train: rows.csv
  prompt: "Is this good or bad? {text}"
  answer: "{label}"
goal: {metric: accuracy, at_least: 0.5}
method: {kind: lora, rank: 4}
training: {epochs: 1}
"""


def call(*command: str | Path, cwd: Path, allowed: tuple[int, ...] = (0,)) -> str:
    """Run, with nothing of the checkout or of the developer's environment in reach; returns what was printed."""
    keep = {"HOME", "PATH", "TMPDIR", "SSL_CERT_FILE", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TUNELOOP_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name in keep or name.startswith("PIP_")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode in allowed, f"{command[:4]} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_all_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        legal = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    source = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "tuneloop").rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}
    assert held == source
    assert legal


@pytest.mark.slow
def test_an_installed_wheel_runs_a_recipe(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    call(programs / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    where = call(programs / "python", "-c", "import tuneloop; print(tuneloop.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    assert "recipe" in call(programs / "tuneloop", "--help", cwd=tmp_path)

    tiny_base(tmp_path / "base")
    words = ("good", "bad")
    rows = [f"film number {i} was {words[i % 2]},{words[i % 2]}" for i in range(80)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows, ""]))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    call(programs / "tuneloop", "run", "recipe.yaml", cwd=tmp_path, allowed=(0, 3, 4))     # no promise about the goal
    run = next((tmp_path / "runs").iterdir())
    for part in ("record.json", "certificate.json", "report.html", "adapter/adapter_config.json"):
        assert (run / part).is_file(), part
