"""A fit goes through what was measured, and is used for the same base, method and machine only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tuneloop.plan import calibration
from tuneloop.plan.calibration import ERROR, Fit, Point, keep, key, known, line
from tuneloop.plan.estimate import Memory

MADE = Memory(weights=1000, gradients=0, optimizer=100, activations=300, head=50, runtime=600, other=50)


def point(figure: int, measured: int, flops: float = 1e9, cpu: float = 2.0) -> Point:
    """A step that adds `measured` bytes to weights and moments, where arithmetic says `figure`."""
    expected = replace(MADE, activations=figure - 100)
    return Point(figure, expected, 1100 + measured, flops, 1, cpu, cpu / 2)


def test_two_points_are_reproduced() -> None:
    points = [point(400, 500), point(4000, 4100)]
    fit = Fit.of(points, "2026-11-25")
    for one in points:
        found = fit.applied(one.expected)
        assert found.total_bytes - found.runtime == pytest.approx(one.peak_bytes, abs=2)
        assert (found.weights, found.optimizer, found.runtime, found.error) == (1000, 100, 600, ERROR)
    assert fit.off == (round(1500 / 1600 - 1, 4), round(5100 / 5200 - 1, 4))
    assert fit.most_tokens == 4000


def test_between_them_it_is_affine() -> None:
    fit = Fit.of([point(400, 500), point(4400, 2500)])      # half of the figure, and 300
    found = fit.applied(replace(MADE, activations=2300))
    assert found.activations + found.head + found.other == pytest.approx(300 + 0.5 * 2400, abs=2)
    assert min(found.parts.values()) >= 0


def test_time_is_so_much_a_piece_and_so_much_a_flop() -> None:
    fit = Fit.of([point(400, 500, flops=1e9, cpu=2.0), point(4000, 4100, flops=5e9, cpu=8.0)])
    assert fit.cpu_seconds(3e9, pieces=1) == pytest.approx(5.0)
    assert fit.cpu_seconds(3e9, pieces=3) == pytest.approx(6.0)         # 0.5 s for every further piece
    assert fit.seconds(3e9, pieces=1) == pytest.approx(2.5)
    odd = Fit.of([point(400, 500, flops=1e9, cpu=1.0), point(4000, 4100, flops=5e9, cpu=8.0)])
    assert odd.cpu_per_piece == 0       # no piece takes less than nothing


def test_a_line_through_points_too_near_each_other_goes_through_the_origin() -> None:
    assert line([(100, 210), (105, 200)]) == (0, 410 / 205)
    assert line([(100, 300), (1000, 200)]) == (0, 500 / 1100)       # nor does more take less
    assert line([(100, 210), (200, 310)]) == pytest.approx((110, 1))


def test_everything_that_a_peak_depends_on_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    method = {"kind": "lora", "rank": 16}
    names = {key("a", method, optimizer="adamw", checkpointing=False)}
    names |= {key("b", method, optimizer="adamw", checkpointing=False),
              key("a", method | {"rank": 8}, optimizer="adamw", checkpointing=False),
              key("a", method, optimizer="adamw_8bit", checkpointing=False),
              key("a", method, optimizer="adamw", checkpointing=True)}
    monkeypatch.setattr(calibration, "machine", lambda: {"name": "another"})
    names.add(key("a", method, optimizer="adamw", checkpointing=False))
    monkeypatch.setattr(calibration, "versions", lambda: {"torch": "99"})
    names.add(key("a", method, optimizer="adamw", checkpointing=False))
    assert len(names) == 7
    assert key("a", method, optimizer="adamw", checkpointing=False) in names


def test_what_is_kept_is_found_again(own_cache: Path) -> None:
    fit = Fit.of([point(400, 500), point(4000, 4100)], "2026-11-25")
    assert not calibration.any_kept()
    assert known("x") is None
    file = keep("x", fit, {"measured": {"by": "kernel"}})
    assert file.is_relative_to(own_cache)
    assert calibration.any_kept()
    assert known("x") == fit
    file.write_text("{}")
    assert known("x") is None       # a broken file is no measurement
