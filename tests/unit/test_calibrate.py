"""`tuneloop plan --calibrate`: two micro-batches in a process of its own, which later plans use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toy import labels_recipe
from tuneloop import calibrate
from tuneloop.calibrate import micro_batches
from tuneloop.errors import UserError
from tuneloop.plan import calibration
from tuneloop.prepared import Prepared
from tuneloop.training.watch import Silent


def test_the_longest_rows_come_first_then_a_shorter_batch(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, training={"token_budget": 100, "batch_size": 8})
    ready = Prepared(recipe, Silent())
    plan = ready.plan()
    longest, shorter = micro_batches(ready, plan)
    most = max(len(group.branches[0]) for group in ready.work.train)
    assert len(longest.groups[0].branches[0]) == most
    assert len(longest.groups) > 1
    assert shorter.tokens < longest.tokens <= 100
    assert 0 < shorter.heads < longest.heads
    assert len(longest.groups) <= 8


def answer(monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | None, code: int = 0, stderr: str = "") -> None:
    """A process that leaves `told` behind."""
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "tuneloop.calibrate"]
        assert Path(command[3]).is_file()
        if told is not None:
            Path(command[4]).write_text(json.dumps(told))
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(calibrate.subprocess, "run", run)


def test_what_goes_wrong_there_is_said_here(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    answer(monkeypatch, {"error": {"found": "No rows.", "wanted": "rows", "fix": "add some"}})
    with pytest.raises(UserError) as caught:
        calibrate.calibrate(recipe, Silent())
    assert (caught.value.found, caught.value.wanted, caught.value.fix) == ("No rows.", "rows", "add some")
    answer(monkeypatch, None, code=-9)
    with pytest.raises(UserError, match="memory ran out"):
        calibrate.calibrate(recipe, Silent())
    answer(monkeypatch, None, code=1, stderr="Traceback\nValueError: odd")
    with pytest.raises(UserError, match="ValueError: odd"):
        calibrate.calibrate(recipe, Silent())


@pytest.mark.slow
def test_a_plan_uses_what_was_measured(tiny_llama: Path, tmp_path: Path, own_cache: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, training={"token_budget": 256})
    before = Prepared(recipe, Silent()).plan()
    told = calibrate.calibrate(recipe, Silent())
    assert len(told) == 3
    assert "tokens at once take" in told[0]
    after = Prepared(recipe, Silent()).plan()
    assert (before.calibrated, bool(after.calibrated)) == ("", True)
    assert after.cpu_seconds
    assert after.memory.error == calibration.ERROR < before.memory.error
    [file] = (own_cache / "calibrations").glob("*.json")
    written = json.loads(file.read_text())
    points = written["measured"]["points"]
    assert [point["tokens"] for point in points] == sorted((point["tokens"] for point in points), reverse=True)
    assert all(point["peak_bytes"] > 0 and point["cpu_seconds"] > 0 for point in points)
    assert {"machine", "versions"} <= written.keys()
    other = labels_recipe(tmp_path, tiny_llama, training={"token_budget": 256}, method={"kind": "lora", "rank": 8})
    assert Prepared(other, Silent()).plan().calibrated == ""        # another method, which nobody measured
