"""Several seeds of one recipe answer the same rows, train differently, and are put together with an interval."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from toy import labels_recipe, resume, run, same_bits
from tuneloop import several
from tuneloop.cli import app
from tuneloop.errors import UserError
from tuneloop.evaluation.signing import verify
from tuneloop.record import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> list[RunFolder]:
    folder, found = tmp_path_factory.mktemp("seeds"), []
    for seed in (0, 1, 2):
        recipe = labels_recipe(folder, tiny_llama, training={"seed": seed, "max_steps": 6},
                               goal={"metric": "accuracy", "at_least": 0.05})
        run(recipe, folder / f"run{seed}")
        found.append(RunFolder.open(folder / f"run{seed}"))
    return found


def test_a_seed_changes_training_and_not_the_rows(runs: list[RunFolder], tiny_llama: Path) -> None:
    first, second, _ = runs
    assert not same_bits(first.path, second.path)
    hashes = [one.read("record.json")["data"]["hashes"] for one in runs]
    assert hashes[0] == hashes[1] == hashes[2]
    assert [one.read("record.json")["seeds"]["training"] for one in runs] == [0, 1, 2]


def test_the_recipes_seed_is_trainings_unless_given(runs: list[RunFolder], tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, seed=0, training={"max_steps": 6},
                           goal={"metric": "accuracy", "at_least": 0.05})
    run(recipe, tmp_path / "plain", until="train")
    assert same_bits(tmp_path / "plain", runs[0].path)
    assert resume(recipe, tmp_path / "plain")["verdict"]


def test_seeds_are_put_together(runs: list[RunFolder]) -> None:
    found = several.together(runs)
    each = [one.read("certificate.json")["scores"]["tuned"]["accuracy"]["value"] for one in runs]
    assert found["tuned"]["of_seeds"] == pytest.approx(each)
    assert found["tuned"]["value"] == pytest.approx(np.mean(each))
    assert found["tuned"]["spread"] == pytest.approx(np.std(each, ddof=1))
    assert found["tuned"]["low"] <= found["tuned"]["value"] <= found["tuned"]["high"]
    assert found["verdict"] in ("met", "not met", "undecided")
    assert found["sentence"].startswith(f"{found['verdict'].upper()}: Over 3 seeds")
    place = several.write(runs, found)
    assert json.loads(place.read_text()) == found


def test_each_run_tells_of_all_and_its_certificate_still_verifies(runs: list[RunFolder]) -> None:
    found = several.together(runs)
    several.write(runs, found)
    for one in runs:
        report = one.file("report.html").read_text(encoding="utf-8")
        assert found["sentence"].partition(": ")[2] in unescape(report)
        assert report.count("this run</span>") == 1
        assert one.read("seeds.json") == found
        assert "seeds.json" not in one.read("certificate.json")["signature"]["files"]
        assert CliRunner().invoke(app, ["certify", str(one.path), "--verify"]).exit_code == 0
    CliRunner().invoke(app, ["certify", str(runs[0].path)])
    assert "What the recipe reaches" in runs[0].file("report.html").read_text(encoding="utf-8")
    assert verify(runs[0].path).ok


def test_what_is_not_several_seeds_is_refused(runs: list[RunFolder], tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(UserError, match="2 seeds say little"):
        several.together(runs[:2])
    other = labels_recipe(tmp_path, tiny_llama, seed=7, training={"max_steps": 6},
                          goal={"metric": "accuracy", "at_least": 0.05})
    run(other, tmp_path / "other")
    with pytest.raises(UserError, match="same rows"):
        several.together([*runs[:2], RunFolder.open(tmp_path / "other")])
