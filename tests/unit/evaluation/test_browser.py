"""The report in a real browser: it draws, runs nothing it was not given, and never scrolls sideways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_run import example_run

from browser import WIDTHS, check_fits, needs_browser
from tuneloop.evaluation.report import write_report


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("labels", [2, 20])
def test_the_report_never_scrolls_sideways(tmp_path: Path, width: int, labels: int) -> None:
    check_fits(write_report(example_run(tmp_path / "run", labels=labels)), width, tmp_path)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [{"labels": 20, "lost": 0.4}, {"task": "open", "people": "tuned"}])
def test_nor_does_one_with_everything(tmp_path: Path, width: int, kind: dict[str, Any]) -> None:
    check_fits(write_report(example_run(tmp_path / "run", audit=True, **kind)), width, tmp_path)
