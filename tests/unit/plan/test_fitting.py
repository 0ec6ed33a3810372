"""What to change so that the longest row fits, each way by the plan's own arithmetic."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from plan_cases import rows, work

from tuneloop.models.outline import shape_named
from tuneloop.plan import fitting
from tuneloop.plan.auto import method_named
from tuneloop.plan.fitting import advice
from tuneloop.plan.make import Peak, peak_of

SHAPE = shape_named("smollm2-360m-instruct")
LONGEST = 1024


def peak(kind: str = "lora", checkpointing: bool = False) -> Peak:
    return peak_of(method_named(kind), SHAPE, work(train=rows(16, LONGEST)), checkpointing, "adamw", 8,
                   lambda again: None)


@pytest.fixture(autouse=True)
def no_quantising(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where bitsandbytes is not installed."""
    monkeypatch.setattr(fitting, "SMALLER", ("lora",))


def test_checkpointing_is_offered_where_it_fits() -> None:
    again = peak(checkpointing=True).at(LONGEST)
    told = advice(peak(), LONGEST, again.high)
    assert told.startswith(f"set training.checkpointing=true (about {again.total_bytes / 2**30:.1f} GiB), or ")
    assert "training.checkpointing=true" not in advice(peak(), LONGEST, again.high - 2**20)
    assert "training.checkpointing" not in advice(peak(checkpointing=True), LONGEST, again.high)


def test_a_method_that_takes_less_is_offered() -> None:
    limit = peak("lora").at(LONGEST).high
    assert "method=lora (about" in advice(peak("full"), LONGEST, limit)
    assert "method=" not in advice(peak("lora"), LONGEST, limit - 2**20)


def test_shorter_rows_are_offered_as_long_as_they_fit() -> None:
    told = advice(peak(), LONGEST, peak().at(500).high)
    length = int(re.search(r"data\.max_length_tokens=(\d+)", told)[1])  # type: ignore[index]
    assert 64 <= length <= 500
    assert peak().at(length).high <= peak().at(500).high < peak().at(length + 64).high


def test_where_nothing_fits_a_smaller_base_or_another_machine_remains() -> None:
    assert advice(peak(), LONGEST, 2**30) == \
        "take a smaller base (`tuneloop models`), or another machine (`tuneloop plan --on`)"


def test_what_was_measured_of_this_method_says_nothing_of_another() -> None:
    from tuneloop.plan.calibration import Fit

    high = replace(peak("full"), fit=Fit(0.0, 100.0, 0.0, 0.0, 0.0, 0.0, 100, (0.0, 0.0)))
    assert "method=lora (about" in advice(high, LONGEST, peak("lora").at(LONGEST).high)
