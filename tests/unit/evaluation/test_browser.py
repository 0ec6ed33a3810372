"""The report in a real browser: it draws, runs nothing it was not given, and never scrolls sideways."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example_run import example_run

from tuneloop.evaluation.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PROBE = "<script>document.title = `${document.documentElement.scrollWidth}/${window.innerWidth}`</script></body>"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium here; it comes with the system's package of that name")
@pytest.mark.parametrize("width", [500, 1280])      # a headless window is never narrower than 500
@pytest.mark.parametrize("labels", [2, 20])
def test_the_report_never_scrolls_sideways(tmp_path: Path, width: int, labels: int) -> None:
    page = write_report(example_run(tmp_path / "run", labels=labels))
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    own = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom", page.as_uri()]
    done = subprocess.run([str(BROWSER), *FLAGS, *own], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>(\d+)/(\d+)</title>", done.stdout)
    assert found, done.stdout[:500]
    assert int(found[1]) <= int(found[2])
