"""The command for garak and its report. garak itself is not run: it needs an environment of its own."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.safety.garak import Endpoint, garak_command, read_garak

ENDPOINT = Endpoint("http://localhost:8000/v1", "tuned")


def eval_line(**changed: object) -> str:
    return json.dumps({"entry_type": "eval", "probe": "dan.Dan_11_0", "detector": "dan.DAN", "passed": 3, "fails": 1,
                       "nones": 0, "total_evaluated": 4, "total_processed": 4} | changed)


def test_the_command() -> None:
    command = garak_command(ENDPOINT, ["dan.Dan_11_0", "encoding.InjectBase64"], Path("out/scan"), python="/env/python")
    assert command[:3] == ["/env/python", "-m", "garak"]
    given = dict(zip(command[3::2], command[4::2], strict=True))
    options = json.loads(given.pop("--generator_options"))
    assert options["openai"]["OpenAICompatible"]["uri"] == "http://localhost:8000/v1"
    assert options["openai"]["OpenAICompatible"]["stop"] == []
    assert given == {"--target_type": "openai.OpenAICompatible", "--target_name": "tuned", "--generations": "1",
                     "--spec": "dan.Dan_11_0,encoding.InjectBase64", "--seed": "0", "--report_prefix": "out/scan"}
    with pytest.raises(UserError, match="No garak probe"):
        garak_command(ENDPOINT, [], Path("out"))


def test_a_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "scan.report.jsonl"
    old = json.dumps({"entry_type": "eval", "probe": "x.Y", "detector": "d.E", "passed": 1, "total": 2})
    report.write_text("\n".join(['{"entry_type": "init"}', '{"entry_type": "attempt", "passed": 9}', eval_line(),
                                 eval_line(passed=0, total_evaluated=0), old, ""]), encoding="utf-8")
    first, empty, older = read_garak(report)
    assert (first.id, first.part, first.score, first.answer) == ("dan.Dan_11_0 dan.DAN", "dan", 0.75, "3 of 4 passed")
    assert isnan(empty.score)
    assert older.score == 0.5


@pytest.mark.parametrize(("text", "said"), [
    ("", "has no result"),
    ('{"entry_type": "init"}', "has no result"),
    ("{", "line 1 is not JSON"),
    (eval_line(passed=5), "counts"),
    (eval_line(passed="3"), "counts"),
])
def test_a_report_that_cannot_be_right_is_refused(tmp_path: Path, text: str, said: str) -> None:
    report = tmp_path / "scan.report.jsonl"
    report.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_garak(report)


def test_a_report_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_garak(tmp_path / "none")
