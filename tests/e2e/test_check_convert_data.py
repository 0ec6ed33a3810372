"""`tuneloop check`, `convert` and `data …` as a user types them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toy import chat_rows, labels_csv, labels_recipe, open_rows, run, write_jsonl
from tuneloop import cli
from tuneloop.data.fix import FIXES

Call = Callable[..., tuple[int, str]]
PERSONAL = {"prompt": "Where is my parcel?",
            "completion": "Ask anna.meier@firma-beispiel.de or ben.ott@firma-beispiel.de"}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process and in `tmp_path`: exit code, and what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "250")

    def run_words(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tuneloop", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        shown = capfd.readouterr()
        return code, shown.out + shown.err

    return run_words


def varied(count: int = 60) -> list[dict[str, Any]]:
    return [{"prompt": f"Who lives at {i * 37 % 101} {street} street?", "completion": f"{name} has {i} keys."}
            for i in range(count) for street, name in [(["oak", "river", "mill"][i % 3], ["Tim", "Ann", "Joe"][i % 3])]]


# --- check -----------------------------------------------------------------------------------------------------------

def test_check_of_a_file(call: Call, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [*varied(), {"prompt": "And?", "completion": ""}])
    code, shown = call("check", "rows.jsonl", "--html", "report.html")
    assert code == 2
    assert "will not train" in shown
    assert "1 row cannot be read: the answer is empty: rows.jsonl line 61" in shown
    assert "rows.jsonl line 61" in (tmp_path / "report.html").read_text()
    code, shown = call("check", "rows.jsonl", "data.drop_empty=true", "--json")
    report = json.loads(shown)
    assert code == {"ready": 0, "fix first": 3}[report["verdict"]]
    assert {"file": "rows.jsonl", "lines": [61]} in [place for f in report["findings"] for place in f["places"]]


def test_check_of_a_file_against_a_base(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    write_jsonl(tmp_path / "chats.jsonl", chat_rows())
    code, shown = call("check", "chats.jsonl", "--base", tiny_llama, "--only", "encoding")
    assert (code, "its loss mask covers exactly the answer" in shown) == (0, True)


def test_check_finds_evaluation_rows(call: Call, tmp_path: Path) -> None:
    rows = varied()
    write_jsonl(tmp_path / "rows.jsonl", rows)
    asked = "In which year did the old harbour master of the northern town first sell three wooden boats to a museum?"
    write_jsonl(tmp_path / "exam.jsonl", [{"input": asked, "ideal": "1962"}])
    assert call("check", "rows.jsonl", "--against", "exam.jsonl", "--only", "contamination")[0] == 0
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {"prompt": asked, "completion": "In 1962."}])
    code, shown = call("check", "rows.jsonl", "--against", "exam.jsonl", "--only", "contamination")
    assert code == 3
    assert "rows.jsonl line 61" in shown


def test_check_of_standard_input(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(json.dumps(row) + "\n" for row in [*varied(), {"prompt": "And?", "completion": ""}])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, shown = call("check", "-", "--only", "encoding")
    assert code == 2
    assert "line 61" in shown


def test_check_says_when_a_run_has_read_other_rows(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "runs" / "first", "check")
    assert "read other rows" not in call("check", "recipe.yaml", "--only", "encoding")[1]
    (tmp_path / "rows.csv").write_text(labels_csv(61))
    shown = call("check", "recipe.yaml", "--only", "encoding")[1]
    assert "first read other rows: rows.csv has changed: it had" in shown


def test_a_run_keeps_what_was_found(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "run", "check")
    found = json.loads((tmp_path / "run" / "data" / "findings.json").read_text())
    assert found["rows"] == 60
    assert "proof" in found["looked_for"]
    assert (tmp_path / "run" / "data" / "findings.html").exists()
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["data"]["files"][0]["shown"] == "rows.csv"
    assert len(record["data"]["versions"]["train"]) == 64


@pytest.mark.parametrize(("words", "told"), [
    (["nowhere.jsonl"], "nowhere.jsonl does not exist"),
    (["rows.jsonl", "other.jsonl"], "More than one thing to look at"),
    (["rows.jsonl", "--only", "duplicate"], "did you mean 'duplicates'"),
    (["rows.jsonl", "data.promt=x"], "did you mean 'data.prompt'"),
    (["recipe.yaml", "--base", "x"], "a recipe names its base itself"),
])
def test_check_refuses(words: list[str], told: str, call: Call, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", varied())
    code, shown = call("check", *words)
    assert code == 2
    assert told in shown


def test_a_missing_evaluation_set_stops_a_run(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, shown = call("run", "recipe.yaml", "data.evaluation_sets=[exam.jsonl]", "--until", "check")
    assert code == 2
    assert "exam.jsonl does not exist" in shown


def test_what_is_wrong_with_all_rows_together_is_in_the_report(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, shown = call("check", "recipe.yaml", "data.split.test=59", "--only", "encoding", "--json")
    assert code == 2
    report = json.loads(shown)
    assert report["verdict"] == "will not train"
    assert "leaves nothing to train on" in report["findings"][0]["what"]


# --- convert ---------------------------------------------------------------------------------------------------------

def test_convert(call: Call, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", open_rows(12))
    assert call("convert", "rows.jsonl", "chats.json", "--to", "sharegpt") == (
        0, "chats.json holds 12 sharegpt rows.\n")
    assert json.loads((tmp_path / "chats.json").read_text())[0]["conversations"][0] == {
        "from": "human", "value": "Where is order 0?"}
    assert "exists already" in call("convert", "rows.jsonl", "chats.json", "--to", "chat")[1]
    assert call("convert", "chats.json", "back.jsonl", "--to", "prompt-completion")[0] == 0
    assert [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines()] == open_rows(12)


def test_convert_says_what_a_format_cannot_hold(call: Call, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "Q", "chosen": "yes", "rejected": "no"}] * 3)
    code, shown = call("convert", "pairs.jsonl", "chats.jsonl", "--to", "chat")
    assert code == 2
    assert "pairs.jsonl line 1" in shown
    assert not (tmp_path / "chats.jsonl").exists()
    code, shown = call("convert", "pairs.jsonl", "chats.jsonl", "--to", "chat", "--lossy")
    assert code == 0
    assert "left out of 3 rows" in shown


# --- versions --------------------------------------------------------------------------------------------------------

def test_from_a_file_to_a_mended_version_and_a_run_of_it(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    rows = open_rows(40)
    write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[0], PERSONAL])
    code, shown = call("data", "fix", "rows.jsonl", "deduplicate", "redact", "kinds=email", "--name", "clean")
    assert code == 0, shown
    assert "data:clean has 41 rows; the 42 rows before are" in shown
    code, shown = call("data", "list", "--json")
    after, before = sorted(json.loads(shown), key=lambda version: version["rows"])
    assert (after["rows"], before["rows"]) == (41, 42)
    assert after["parents"] == [before["id"]]
    code, shown = call("data", "diff", before["id"][:12], "clean")
    assert "0 added, 1 removed, 1 changed, 40 the same" in shown
    assert call("data", "export", "clean", "clean.jsonl")[0] == 0
    assert "@" not in (tmp_path / "clean.jsonl").read_text()
    assert "redact" in call("data", "show", "clean")[1]
    assert call("data", "verify") == (0, "Every version is whole.\n")
    (tmp_path / "recipe.yaml").write_text(f"base: {tiny_llama}\ndata: {{train: 'data:clean'}}\n")
    code, shown = call("run", "--folder", "run", "--until", "check", "--json")
    assert code == 0, shown
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["data"]["versions"]["train"] == after["id"]


def test_purge_names_and_removes(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [*open_rows(40), PERSONAL])
    (tmp_path / "recipe.yaml").write_text(
        f"base: {tiny_llama}\ndata: {{train: rows.jsonl}}\ntraining: {{max_steps: 2}}\n")
    assert call("run", "--folder", "runs/first", "--json")[0] in (0, 3, 4)
    call("data", "add", "rows.jsonl", "--name", "all")
    code, shown = call("data", "purge", "rows.jsonl:41")
    assert code == 0
    for told in ("data:all", "runs/first", "Nothing has been removed yet", "rows.jsonl: holds it on line 41"):
        assert told in shown
    code, shown = call("data", "purge", "rows.jsonl:41", "--yes")
    assert code == 0
    kept = "".join(path.read_text(errors="replace") for path in (tmp_path / "runs").rglob("*.json*"))
    assert "anna.meier" not in kept
    assert call("data", "export", "all", "left.jsonl")[0] == 0
    assert "anna.meier" not in (tmp_path / "left.jsonl").read_text()


def test_fixes_are_listed(call: Call) -> None:
    code, shown = call("data", "fixes")
    assert code == 0
    for kind in FIXES.names:
        assert f"{kind}: " in shown
    code, shown = call("data", "fix", "rows.jsonl", "dedupe")
    assert code == 2
    assert "did you mean 'deduplicate'" in shown
