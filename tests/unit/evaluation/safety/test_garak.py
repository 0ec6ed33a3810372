"""The command for garak and its report. garak itself is not run: it needs an environment of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.safety.garak import Attacked, Endpoint, garak_command, read_garak, run_garak

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
                     "--spec": "probes.dan.Dan_11_0,probes.encoding.InjectBase64", "--seed": "0",
                     "--report_prefix": "out/scan"}
    chosen = garak_command(ENDPOINT, ["probes.dan", "-probes.dan.DUDE", "tag:owasp:llm01", "all"], Path("out"))
    assert chosen[chosen.index("--spec") + 1] == "probes.dan,-probes.dan.DUDE,tag:owasp:llm01,probes.all"
    with pytest.raises(UserError, match="No garak probe"):
        garak_command(ENDPOINT, [], Path("out"))


def test_a_report_is_read(tmp_path: Path) -> None:
    report = tmp_path / "scan.report.jsonl"
    old = json.dumps({"entry_type": "eval", "probe": "x.Y", "detector": "d.E", "passed": 1, "total": 2})
    report.write_text("\n".join(['{"entry_type": "init"}', '{"entry_type": "attempt", "passed": 9}', eval_line(),
                                 eval_line(passed=0, total_evaluated=0), old, ""]), encoding="utf-8")
    first, empty, older = read_garak(report)
    assert first == Attacked("dan.Dan_11_0", "dan.DAN", 3, 4)
    assert first.rate is not None
    # 0.1941 and 0.9937 are the ends of Clopper and Pearson for 3 of 4, in their own tables 0.194 and 0.994
    assert (first.rate.value, round(first.rate.low, 4), round(first.rate.high, 4)) == (0.75, 0.1941, 0.9937)
    assert empty.rate is None
    assert older.to_json()["rate"]["value"] == 0.5


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


def python_with_garak(folder: Path, *lines: str, code: int = 0) -> Path:
    """An interpreter whose garak notes how it was called and writes these lines as its report."""
    fake = folder / "python"
    fake.write_text(f"""#!{sys.executable}
import json, os, sys
given = sys.argv[1:]
prefix = given[given.index("--report_prefix") + 1]
with open(prefix + ".called.json", "w") as file:
    json.dump({{"command": given, "key": os.environ.get("OPENAICOMPATIBLE_API_KEY")}}, file)
print("garak says something")
with open(prefix + ".report.jsonl", "w") as file:
    file.write({chr(10).join(lines)!r})
sys.exit({code})
""")
    fake.chmod(0o755)
    return fake


def test_a_scan(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python = python_with_garak(tmp_path, eval_line(), eval_line(probe="encoding.InjectBase64", passed=4))
    found = run_garak(ENDPOINT, ["dan", "probes.encoding.InjectBase64", "lmrc"], Path("out"), python=str(python),
                      key="secret")
    assert [(one["probe"], one["passed"], one["judged"]) for one in found["probes"]] == [
        ("dan.Dan_11_0", 3, 4), ("encoding.InjectBase64", 4, 4)]
    assert found["probes"][1]["rate"]["high"] == 1.0
    assert [note for note in found["notes"] if "nothing of" in note] == [
        "garak reports nothing of lmrc: is there such a probe?"]
    called = json.loads((tmp_path / "out" / "garak.called.json").read_text())
    assert called["key"] == "secret"
    assert called["command"][:2] == ["-m", "garak"]
    everything = run_garak(ENDPOINT, ["all"], Path("out"), python=str(python))
    assert not any("nothing of" in note for note in everything["notes"])
    assert json.loads((tmp_path / "out" / "garak.called.json").read_text())["key"] == "none"
    capfd.readouterr()
    run_garak(ENDPOINT, ["dan"], tmp_path / "again", python=str(python))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "garak says something\n")       # stdout is for the result


def test_a_scan_that_fails(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exit code 3"):
        run_garak(ENDPOINT, ["dan"], tmp_path, python=str(python_with_garak(tmp_path, eval_line(), code=3)))
    with pytest.raises(UserError, match="has no result"):
        run_garak(ENDPOINT, ["dan"], tmp_path, python=str(python_with_garak(tmp_path)))
    with pytest.raises(UserError, match="cannot be run"):
        run_garak(ENDPOINT, ["dan"], tmp_path, python=str(tmp_path / "none"))
