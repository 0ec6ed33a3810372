"""What a run took against its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toy import labels_recipe, run, tuneloop
from tuneloop.record import RunFolder
from tuneloop.truth import lines, truth

GIB = 2**30
PLAN: dict[str, Any] = {
    "memory": {"total_bytes": 3 * GIB, "low_bytes": 2 * GIB, "high_bytes": 4 * GIB, "parts": {"runtime": GIB}},
    "steps": 100, "cpu_seconds": 200.0, "calibrated": "2026-11-25",
    "seconds": {"baseline": 10.0, "training": 100.0, "evaluation": 20.0}}
RECORD: dict[str, Any] = {
    "training": {"peak_memory_bytes": 5 * GIB, "measured_by": "kernel", "cpu_seconds": 160.0, "steps": 50},
    "timings_seconds": {"data": 3.0, "baseline": 10.0, "training": 80.0}}


def test_planned_against_measured_by_hand() -> None:
    found = truth(PLAN, RECORD)
    assert found["peak_bytes"]["off"] == -0.4
    assert found["peak_bytes"]["off_above_runtime"] == -0.5      # 2 of 4 GiB
    assert found["cpu_seconds"]["off"] == -0.375                # 100 of 160, as half of the steps were taken
    assert {stage: one["off"] for stage, one in found["seconds"].items()} == {"baseline": 0.0, "training": 0.25}
    assert lines(found) == [
        "peak memory of training 5.00 GiB, planned 3.00 (2.00 to 4.00): 40% too low, above the runtime 50% too low",
        "processor seconds of 50 steps 160, planned 200: 38% too low",
        "baseline 10 s, planned 10: right", "training 80 s, planned 100: 25% too high"]


def test_what_was_not_planned_or_not_done_is_not_compared() -> None:
    found = truth(PLAN | {"cpu_seconds": None}, RECORD)
    assert "--calibrate" in lines(found)[1]
    assert truth(PLAN, {})["seconds"] == {}
    assert lines(truth(PLAN, {})) == []


def test_a_run_keeps_it_and_shows_it(tiny_llama: Path, tmp_path: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama, training={"epochs": 1}), tmp_path / "run", "train")
    record = RunFolder(tmp_path / "run").read("record.json")
    found = record["plan_truth"]
    assert set(found["seconds"]) == {"baseline", "training"}
    assert found["peak_bytes"]["measured"] == record["training"]["peak_memory_bytes"] > 0
    assert found["peak_bytes"]["by"] in ("kernel", "samples", "allocator")
    assert found["cpu_seconds"]["measured"] > 0
    shown = tuneloop("runs", "show", tmp_path / "run", cwd=tmp_path).stdout
    assert all(line in shown for line in lines(found))


@pytest.mark.parametrize("stage", ["baseline", "training", "evaluation"])
def test_a_stage_that_took_no_time_is_no_division_by_zero(stage: str) -> None:
    found = truth(PLAN, {"timings_seconds": {stage: 0.0}})
    assert found["seconds"][stage]["off"] is None
    assert lines(found)[0].endswith("nothing to compare")
