"""A real browser, for the tests of pages."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PROBE = "<script>document.title = `${document.documentElement.scrollWidth}/${window.innerWidth}`</script></body>"
WIDTHS = [500, 1280]        # a headless window is never narrower than 500

needs_browser = pytest.mark.skipif(BROWSER is None,
                                   reason="no chromium here; it comes with the system's package of that name")


def check_fits(page: Path, width: int, scratch: Path) -> None:
    """Draw a page in a window of this width, and assert that it does not scroll sideways."""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    own = [f"--user-data-dir={scratch / 'profile'}", f"--window-size={width},900", "--dump-dom", page.as_uri()]
    done = subprocess.run([str(BROWSER), *FLAGS, *own], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"<title>(\d+)/(\d+)</title>", done.stdout)
    assert found, done.stdout[:500]
    assert int(found[1]) <= int(found[2])
