"""How `tuneloop check` and `tuneloop data fixes` read in a terminal, and in a file."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tuneloop import cli_data
from tuneloop.cli import app
from tuneloop.data.examine import Examined
from tuneloop.data.findings import Finding, Places
from tuneloop.data.report import FileReport
from tuneloop.types import Origin

FILE = "customers/rows.jsonl"
FOUND = Finding("duplicates", "fix", "2 rows say nearly what an earlier row says",
                f"drop them: tuneloop data fix {FILE} deduplicate", Places([Origin(FILE, 5), Origin(FILE, 9)]),
                [f"{FILE} line 5 is nearly {FILE} line 3"])
NO_COMMAND = Finding("diversity", "note", "Few", "add prompts in other words, by other people")
EXAMINED = Examined([FileReport("train", FILE, "JSONL", 1, "each row is a text", [])], [FOUND, NO_COMMAND], {},
                    {"duplicates": ""})


def shown(monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool) -> list[str]:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
    monkeypatch.setattr(cli_data, "console", console)
    cli_data._show(EXAMINED)
    cli_data._show_verdict(EXAMINED, None)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_in_a_terminal_words_stay_whole_and_commands_stay_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 44, terminal=True) == [
        "train: customers/rows.jsonl, JSONL, 1 row;",
        "       each row is a text",
        "   fix duplicates  2 rows say nearly what an",
        "       earlier row says:",
        "       customers/rows.jsonl line 5, 9",
        "         line 5 is nearly line 3",
        "         → drop them: tuneloop data fix customers/rows.jsonl deduplicate",
        "  note diversity  Few",
        "         → add prompts in other words, by",
        "           other people",
        "fix first: 1 to fix first, 1 worth knowing",
        "(1 row, 1 check, 0 s)"]


def test_in_a_file_a_finding_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 44, terminal=False)[:4] == [
        "train: customers/rows.jsonl, JSONL, 1 row; each row is a text",
        "   fix duplicates  2 rows say nearly what an earlier row says: customers/rows.jsonl line 5, 9",
        "         line 5 is nearly line 3",
        "         → drop them: tuneloop data fix customers/rows.jsonl deduplicate"]


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "rows.csv")])
    assert done.exit_code == 2
    assert done.output.splitlines()[0] == f"train: {tmp_path}/rows.csv, text, 0 rows"


def test_options_of_fixes_are_told_as_one_types_them() -> None:
    told = [line.split("  ")[1] for line in CliRunner().invoke(app, ["data", "fixes"]).output.splitlines()
            if line.startswith("  ")]
    assert {"by=typos", "near=0.8", "checks=…", "column", "map"} <= set(told)
