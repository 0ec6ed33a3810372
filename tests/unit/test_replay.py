"""What a replay says, by hand; that it trains the same is in tests/e2e/test_certify.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tuneloop import replay as module
from tuneloop.errors import UserError
from tuneloop.record import RunFolder, environment
from tuneloop.replay import ELSEWHERE, Difference, Replay, replay


def line(step: int, loss: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {"event": "step", "step": step, "loss": loss, "grad_norm": 2.0, "learning_rate": 0.1} | changes


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of three steps, with a line of another event between them."""
    run = RunFolder(tmp_path / "run")
    run.write({"environment": environment()}, "record.json")
    run.write({}, "plan.json")
    for entry in (line(1), line(2, 0.5), {"event": "validation", "step": 2, "loss": 9.0}, line(3, 0.25)):
        run.append(entry, "metrics.jsonl")
    return run


def against(lines: list[dict[str, Any]], folder: RunFolder, monkeypatch: pytest.MonkeyPatch, steps: int = 20,
            tolerance: float | None = None) -> Replay:
    """The replay of `folder` if its training gave these lines."""
    monkeypatch.setattr(module, "_train", lambda run, count, watch: {e["step"]: e for e in lines[:count]})
    return replay(folder, steps, tolerance)


def test_the_same_numbers_are_equal(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = against([line(1), line(2, 0.5), line(3, 0.25)], folder, monkeypatch)
    assert (found.equal, found.first, found.largest, found.tolerance) == (True, None, 0.0, 0.0)
    assert (found.steps, found.recorded_steps) == (3, 3)
    assert found.lines() == ["EQUAL: 3 of 3 steps replayed; loss, gradient norm and learning rate are bit-equal to "
                             "metrics.jsonl."]


def test_the_first_step_that_differs_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(1), line(2, 0.4), line(3, 0.125)]
    found = against(lines, folder, monkeypatch)
    assert not found.equal
    assert found.beyond == found.first == Difference(2, "loss", 0.5, 0.4)
    assert found.first.relative == pytest.approx(0.2)       # 0.1 of 0.5
    assert found.largest == 0.5                             # step 3: 0.125 of 0.25
    assert "at step 2 the loss was 0.5 and is now 0.4, a relative difference of 2.0e-01" in found.lines()[0]
    assert "OMP_NUM_THREADS" in found.lines()[1]
    assert against(lines, folder, monkeypatch, steps=1).equal


def test_a_tolerance_lets_small_differences_pass_and_states_them(
        folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(1), line(2, 0.5, grad_norm=2.0001), line(3, 0.26)]
    found = against(lines, folder, monkeypatch, steps=2, tolerance=1e-3)
    assert found.equal
    assert found.first == Difference(2, "grad_norm", 2.0, 2.0001)
    assert "EQUAL within 0.001" in found.lines()[0]
    assert "5.0e-05" in found.lines()[0]
    found = against(lines, folder, monkeypatch, tolerance=1e-3)
    assert (found.first.step, found.beyond.step) == (2, 3)  # type: ignore[union-attr]


def test_a_line_that_was_taken_out_is_found(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_lines([line(1), line(3, 0.25)], "metrics.jsonl")
    found = against([line(1), line(2, 0.5), line(3, 0.25)], folder, monkeypatch, tolerance=1e9)
    assert (found.equal, found.beyond) == (False, Difference(2, "loss", None, 0.5))
    assert found.largest == math.inf
    assert "at step 2 the loss was missing and is now 0.5" in found.lines()[0]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["largest"] is None


def test_a_training_that_ends_before_the_recorded_one_is_not_equal(
        folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = against([line(1), line(2, 0.5)], folder, monkeypatch)
    assert found.beyond == Difference(3, "loss", 0.25, None)


def test_another_machine_is_named_and_its_rounding_passes(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    was = environment()
    was["packages"]["torch"] = "1.0"
    folder.write({"environment": was | {"cpus": 999}}, "record.json")
    near = 0.5 * (1 + ELSEWHERE / 2)
    found = against([line(1), line(2, near), line(3, 0.25)], folder, monkeypatch)
    assert found.equal
    now = environment()
    assert found.environment == [f"torch was 1.0 and is {now['packages']['torch']}",
                                 f"cpus was 999 and is {now['cpus']}"]
    assert "cpus was 999" in found.lines()[-1]
    assert not against([line(1), line(2, 0.5 * (1 + 2 * ELSEWHERE))], folder, monkeypatch, steps=2).equal


@pytest.mark.parametrize(("name", "told"), [("record.json", "has no record.json"), ("plan.json", "has no plan.json"),
                                            ("metrics.jsonl", "has not trained yet")])
def test_a_run_that_has_not_trained_is_bad_input(name: str, told: str, folder: RunFolder) -> None:
    folder.file(name).unlink()
    with pytest.raises(UserError, match=told):
        replay(folder, 20)
