"""The plan uses what was measured here, keeps the bar within the limit, and can be read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from plan_cases import rows, work

from tuneloop.models.outline import shape_named
from tuneloop.plan.auto import method_named
from tuneloop.plan.calibration import Fit
from tuneloop.plan.hardware import Hardware
from tuneloop.plan.make import SAFE, Plan, make
from tuneloop.plan.spec import TrainingSpec

SHAPE = shape_named("smollm2-135m-instruct")
GIB = 2**30
FIT = Fit(0.0, 2.0, 0.1, 2e-11, 0.05, 1e-11, 512, (0.1, 0.2), "2026-11-25")


def plan(gib: float = 16, fits: Any = lambda checkpointing: None, length: int = 256, **training: Any) -> Plan:
    machine = Hardware(2, int(gib * GIB), int(gib * GIB), 1e11)
    return make(TrainingSpec(**training), method_named("lora"), SHAPE, work(train=rows(64, length)), machine, fits)


def test_the_budget_fits_with_its_error_bar() -> None:
    for gib in (2.5, 4, 16):
        made = plan(gib)
        assert made.memory.high <= SAFE * gib * GIB or made["training.token_budget"] == 255
    assert plan(2.5)["training.token_budget"] < plan(16)["training.token_budget"]


def test_checkpointing_is_planned_where_the_longest_row_does_not_fit_without() -> None:
    made = plan(2.0, length=600)
    assert made["training.checkpointing"]
    assert "would not fit" in made.values["training.checkpointing"].why
    assert not plan(16, length=600)["training.checkpointing"]


def test_what_was_measured_is_used_and_said() -> None:
    asked: list[bool] = []

    def fits(checkpointing: bool) -> Fit:
        asked.append(checkpointing)
        return FIT

    plain, made = plan(), plan(fits=fits)
    assert set(asked) == {False, True}
    assert (made.calibrated, plain.calibrated) == ("2026-11-25", "")
    assert made.memory.error < plain.memory.error
    assert made.memory.activations == 2 * plain.memory.activations
    assert plain.cpu_seconds is None
    assert (made.cpu_seconds or 0) > made.seconds_by["training"]["steps"]


def test_a_peak_near_the_limit_is_told() -> None:
    needed = plan(token_budget=2048, length=200, checkpointing=False).memory.total_bytes / GIB
    tight = plan(token_budget=2048, memory_gb=1.05 * needed, length=200, checkpointing=False)
    assert tight.memory.total_bytes < tight.limit_bytes < tight.memory.high
    assert "--calibrate" in tight.notes[0]
    over = plan(token_budget=2048, memory_gb=0.5 * needed, length=200, checkpointing=False)
    assert "is more than" in over.notes[0]
    assert plan().notes == []


def test_rows_longer_than_the_window_are_padded_and_share_nothing() -> None:
    machine, given = Hardware(2, 16 * GIB, 16 * GIB, 1e11), rows(32, 200)
    shared = [replace(group, branches=(replace(group.branches[0], ids=given[0].branches[0].ids),)) for group in given]
    windowed = replace(SHAPE, sliding_window=100)
    made, plain = (make(TrainingSpec(), method_named("lora"), shape, work(train=shared), machine)
                   for shape in (windowed, SHAPE))
    assert made.sharing == 1
    assert plain.sharing > 2


def test_a_plan_is_read_back_as_it_was() -> None:
    made = plan(fits=lambda checkpointing: FIT)
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))).to_json() == made.to_json()


def test_plans_of_older_runs_can_be_read() -> None:
    """They had what trains in one part, and no bar."""
    written = plan().to_json()
    written["memory"] = {"available_bytes": 9, "limit_bytes": 8, "parts": {
        "runtime": 1, "weights": 2, "trainable": 3, "activations": 4, "head": 5}}
    for gone in ("seconds_by", "cpu_seconds", "calibrated"):
        del written[gone]
    found = Plan.from_json(written).memory
    assert (found.total_bytes, found.optimizer, found.gradients) == (15, 3, 0)
