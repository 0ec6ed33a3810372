"""A run whose goal the base meets with a few examples says so; whether it then trains, the recipe decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toy import labels_recipe, resume, run, tuneloop
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent

GOAL = {"at_least": 0.0}        # which any model meets
EVALUATION = {"few_shot": 2}
SAID = "Fine-tuning is not needed for this goal: the base with examples in its prompt meets it already"


class Said(Silent):
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.usefixtures("own_cache")
def test_it_is_said_before_training_and_stands_in_the_certificate(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, goal=GOAL, evaluation=EVALUATION, training={"epochs": 1})
    watch = Said()
    run(recipe, tmp_path / "run", "baseline", watch)
    assert any(line.startswith(SAID) for line in watch.said)
    certificate = resume(recipe, tmp_path / "run")
    assert certificate["verdict"] == "met"
    assert any(note.startswith(SAID) for note in certificate["notes"])


@pytest.mark.usefixtures("own_cache")
def test_nothing_is_trained_where_the_recipe_asks_for_that(tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama, goal=GOAL, evaluation=EVALUATION,
                  training={"epochs": 1, "only_if_needed": True})
    done = tuneloop("run", "recipe.yaml", "--folder", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert SAID in done.stdout.replace("\n", " ")
    assert "Nothing was trained" in done.stdout
    folder = RunFolder(tmp_path / "run")
    assert not folder.has("adapter")
    assert not folder.has("certificate.json")
    assert folder.read("record.json")["not_needed"].startswith(SAID)


@pytest.mark.usefixtures("own_cache")
def test_it_trains_where_the_base_does_not_meet_the_goal(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, goal={"at_least": 1.0}, evaluation=EVALUATION,
                           training={"epochs": 1, "only_if_needed": True})
    certificate = run(recipe, tmp_path / "run")
    assert certificate["test_rows"]
    assert not any(note.startswith("Fine-tuning is not needed") for note in certificate["notes"])


@pytest.mark.slow
def test_several_runs_cannot_end_before_training(tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama, goal=GOAL, evaluation=EVALUATION,
                  training={"epochs": 1, "only_if_needed": True})
    done = tuneloop("run", "--seeds", "3", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "leave out training.only_if_needed" in done.stderr
    assert done.stdout == "" or json.loads(done.stdout)
