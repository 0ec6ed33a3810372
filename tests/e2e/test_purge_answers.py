"""A purge reaches what models answered to a row, in the cache that all runs share."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from toy import labels_recipe, run
from tuneloop.cli import app
from tuneloop.data.answer_cache import FILE
from tuneloop.data.versions.seen import read_seen


def asked(cache: Path) -> dict[str, set[bytes]]:
    """Row -> keys of the answers that are there to questions with its texts."""
    found: dict[str, set[bytes]] = {}
    with closing(sqlite3.connect(cache / FILE)) as database:
        for row, key in database.execute("SELECT row, key FROM asked JOIN answers USING (key)"):
            found.setdefault(row, set()).add(key)
    return found


def purge(line: int, *words: str) -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["data", "purge", f"rows.csv:{line}", "--runs", ".", *words, "--json"])
    assert done.exit_code == 0, done.output
    traces: list[dict[str, str]] = json.loads(done.stdout)["traces"]
    return [trace for trace in traces if trace["where"].endswith(FILE)]


def test_answers_to_a_row_go_with_it(tmp_path: Path, tiny_llama: Path, own_cache: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test row is asked of the base, and of the base after two training rows as examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "store"))
    recipe = labels_recipe(tmp_path, tiny_llama, evaluation={"few_shot": 2})
    run(recipe, tmp_path / "run", until="baseline")
    seen = read_seen(tmp_path / "run") or []
    tested = {origin.row: origin.line for part, origin in seen if part == "test"}
    trained = {origin.row: origin.line for part, origin in seen if part == "train"}
    before = asked(own_cache)
    examples = [row for row in before if row in trained]
    assert set(before) == set(tested) | set(examples)
    assert len(examples) == 2
    one, other, *_ = tested
    assert len(before[one]) == 4        # two labels, with and without examples
    assert before[examples[0]] == before[examples[1]]
    assert len(before[examples[0]]) == 2 * len(tested)

    [named] = purge(tested[one])
    assert named["what"] == "what models answered to its texts, 4 times"
    assert asked(own_cache) == before
    purge(tested[one], "--yes")
    left = asked(own_cache)
    assert one not in left
    assert left[other] == before[other]
    purge(trained[examples[0]], "--yes")        # every answer after it goes
    left = asked(own_cache)
    assert left[other] == before[other] - before[examples[0]]
    assert not set(examples) & set(left)
    assert purge(tested[one]) == []
