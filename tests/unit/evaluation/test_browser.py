"""The report in a real browser: it draws, runs nothing it was not given, and never scrolls sideways."""

from __future__ import annotations

from pathlib import Path

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
