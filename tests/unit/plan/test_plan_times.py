"""Everything that a recipe asks for counts in the time it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_cases import rows, work

from tuneloop.models.outline import shape_named
from tuneloop.plan import estimate, times
from tuneloop.plan.calibration import Fit
from tuneloop.plan.times import Beside, Clock, stages

SHAPE = shape_named("smollm2-135m-instruct")
CLOCK = Clock(SHAPE, 1e11)


def seconds(**changes: object) -> times.Stages:
    return stages(CLOCK, work(**changes), training=100.0, looks=6, share=True)


def test_base_and_tuned_model_answer_the_same_rows() -> None:
    found = seconds()
    assert found["baseline"]["test rows"] == found["evaluation"]["test rows"] > 0
    assert found["training"]["steps"] == 100
    assert "few_shot" not in found["baseline"]
    assert "suites" not in found["evaluation"]


def test_other_contenders_answer_the_test_rows_too() -> None:
    plain = seconds(choices=0)["baseline"]["test rows"]
    beside = Beside(few_shot=4, prompt_search=64, rivals=2)
    found = seconds(choices=0, beside=beside)["baseline"]
    assert found["rivals"] == pytest.approx(2 * plain, rel=0.02)
    assert found["few_shot"] > plain
    assert found["prompt search"] > 3 * plain       # 32 test rows, 64 answers on the way to the prompt, and proposals


def test_suites_are_asked_before_and_after() -> None:
    found = seconds(beside=Beside(suites=("knowledge", "harmful"), suite_items=30))
    assert found["baseline"]["suites"] == found["evaluation"]["suites"]
    whole = seconds(beside=Beside(suites=("knowledge", "harmful"), suite_items=30, needed=frozenset({"harmful"})))
    assert whole["baseline"]["suites"] > 2 * found["baseline"]["suites"]        # what the goal bounds is asked in full


def test_what_begins_too_late_is_left_out() -> None:
    beside = Beside(few_shot=4, prompt_search=500, suites=("knowledge",), rivals=3)
    every = seconds(choices=0, beside=beside)["baseline"]
    minutes = (every["few_shot"] + every["prompt search"] / 2) / 60
    found = seconds(choices=0, beside=replace(beside, minutes=minutes))
    assert found["baseline"]["prompt search"] == every["prompt search"]      # begun in time, and then finished
    assert not {"rivals", "suites"} & found["baseline"].keys()
    assert "suites" not in found["evaluation"]


def test_perturbed_rows_extraction_and_a_judge_come_after_training() -> None:
    found = seconds(beside=Beside(perturbed=200, extracted=50, judged=64))["evaluation"]
    assert {"perturbed rows", "extraction", "judge"} <= found.keys()


def test_written_answers_take_longer_than_chosen_ones() -> None:
    assert seconds(choices=0)["baseline"]["test rows"] > 2 * seconds(choices=2)["baseline"]["test rows"]


def test_models_that_are_asked_about_the_rows_come_on_top() -> None:
    once, twice = (seconds(frozen_passes=n)["training"]["frozen models"] for n in (1, 2))
    assert twice == pytest.approx(2 * once, abs=0.11)


def test_the_largest_step_is_larger_than_the_mean_one() -> None:
    even, uneven = rows(160), [*rows(80, 32), *rows(80, 96, seed=1)]
    assert times.largest_step(even, 16, False) == times.tokens_per_step(even, 16, False)[0] == 16 * 63
    mean, _ = times.tokens_per_step(uneven, 16, False)
    assert mean < times.largest_step(uneven, 16, False) <= 16 * 95


def test_a_clock_by_hand() -> None:
    flops = estimate.forward_flops(SHAPE, 100, 10)
    assert CLOCK.reading(100, 10) == pytest.approx(flops / (1e11 * estimate.EFFICIENCY))
    fit = Fit(0.0, 1.0, 0.0, 0.0, 0.25, 1e-10, 100, (0.0, 0.0))
    assert replace(CLOCK, fit=fit).of(flops, 3) == pytest.approx(0.75 + flops * 1e-10)
