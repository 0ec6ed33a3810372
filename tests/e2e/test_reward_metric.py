"""A goal on the reward: base and tuned model by the recipe's graders, in the certificate and in what it rests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from toy import labels_recipe, run
from tuneloop.errors import UserError
from tuneloop.record import RunFolder

HALF_FAILS = "def grade(sample, item):\n    return 1 / (len(item['text']) % 3) if item['label'] else 0\n"


def test_the_reward_of_exact_labels_is_their_accuracy(tiny_llama: Path, tmp_path: Path) -> None:
    """And columns of the rows' file reach the graders."""
    graders = ["exact", {"kind": "exact", "wanted": "{{ item.label }}", "name": "column"}]
    goal = {"metric": "reward", "better_than_base_by": 0.05}
    recipe = labels_recipe(tmp_path, tiny_llama, goal=goal, rewards=graders)
    certificate = run(recipe, tmp_path / "run")
    assert certificate["metric"] == "reward"
    for of in certificate["scores"].values():
        assert of["reward"]["value"] == pytest.approx(of["accuracy"]["value"])
    gains = {one["metric"]: one for one in certificate["differences"] if one["from"] == "base"}
    assert gains["reward"]["value"] == pytest.approx(gains["accuracy"]["value"])
    assert certificate["verdict"] == ("met" if gains["reward"]["low"] > 0.05 else certificate["verdict"])
    assert "reward rose from 0." in certificate["sentence"]
    folder = RunFolder(tmp_path / "run")
    kept = folder.read("evaluation", "tuned.json")
    rows = folder.lines("evaluation", "predictions.jsonl")
    assert kept["rewards"] == [float(row["answers"]["tuned"] == row["reference"]) for row in rows]
    assert "Reward" in folder.file("report.html").read_text(encoding="utf-8")


def test_failures_are_told_in_the_certificate(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(HALF_FAILS)
    recipe = labels_recipe(tmp_path, tiny_llama, rewards=["reward.py:grade"], evaluation={"metrics": ["reward"]},
                           training={"max_steps": 2})
    certificate = run(recipe, tmp_path / "run")
    notes = [note for note in certificate["notes"] if "failed to grade" in note]
    assert len(notes) == 2
    assert notes[0].startswith("base: grade failed to grade")
    assert "ZeroDivisionError" in notes[0]


def test_a_column_that_no_row_has_stops_before_anything_is_loaded(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, goal={"metric": "reward"},
                           rewards=[{"kind": "exact", "wanted": "{{ item.lable }}"}])
    with pytest.raises(UserError, match=r"item\.lable .*which no row has"):
        run(recipe, tmp_path / "run", until="check")
