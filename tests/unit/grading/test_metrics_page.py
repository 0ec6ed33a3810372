"""docs/metrics.md lists every metric as it is registered."""

from __future__ import annotations

import re
from pathlib import Path

from tuneloop.grading.metrics import FILES, METRICS, names

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
LISTED = {cells[0].strip("`"): cells[1:6] for line in PAGE.splitlines() if line.startswith("| `")
          for cells in [[cell.strip() for cell in line.strip("|").split("|")]]}


def test_every_metric_is_listed_as_registered() -> None:
    registered = {m.name: [m.kind, m.better or "neither", "0 to 1" if m.in_unit else
                           "any" if m.kind == "written" else "0 and up",
                           "yes" if m.default else "", m.needs] for m in METRICS.values()}
    assert registered == LISTED


def test_every_file_of_metrics_is_collected() -> None:
    folder = Path(FILES[0].__file__ or "").parent
    found = {path.stem for path in folder.glob("*.py") if re.search(r"^@metric\(", path.read_text(), re.MULTILINE)}
    assert found == {file.__name__.rpartition(".")[2] for file in FILES}


def test_defaults_can_be_measured_for_every_run() -> None:
    assert (names("labels")[0], names("open")[0], names("pairs")) == ("accuracy", "rouge_l", ["preference_accuracy"])
    for m in METRICS.values():
        if m.default:
            assert (m.in_unit, m.better, m.needs) == (True, "higher", "")
            assert m.value(["a", "b"], ["b", "b"]) <= 1
