"""Runs with canaries: the model learns them where it trains long enough, and the task is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toy import judged_rows, labels_recipe, open_recipe, resume, run, write_jsonl
from tuneloop.data.canaries import canaries
from tuneloop.errors import UserError
from tuneloop.recipe import parse
from tuneloop.record import RunFolder
from tuneloop.types import Preference, Rollout

LONG = {"epochs": 30, "learning_rate": 0.02, "evaluate_every": 50, "patience": 100}
"""Enough for a tiny model to learn a few secrets by heart."""


def with_canaries(n: int) -> dict[str, Any]:
    return {"train": "rows.csv", "prompt": "{text}", "answer": "{label}", "canaries": n}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("canaries")
    recipe = labels_recipe(folder, tiny_llama, data=with_canaries(4), training=LONG)
    return folder, run(recipe, folder / "run")


def test_what_was_learnt_by_heart_is_measured(learnt: tuple[Path, dict[str, Any]]) -> None:
    folder, certificate = learnt
    found = certificate["canaries"]
    assert (found["canaries"], found["alternatives"], found["extracted"]["before"]) == (4, 500, 0)
    exposure = found["exposure"]
    assert exposure["before"] < 5 < exposure["after"] <= exposure["most"]
    assert found["beyond_chance"] is True
    for name in ("report.html", "README.md"):
        assert "planted secrets" in (folder / "run" / name).read_text()
    assert found["sentence"] in (folder / "run" / "report.html").read_text()


def test_the_secrets_are_not_handed_around(learnt: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = learnt
    for name in ("certificate.json", "report.html", "README.md", "record.json"):
        assert not any(canary.secret in (folder / "run" / name).read_text() for canary in canaries(0, 4))


def test_the_task_is_what_it_was(learnt: tuple[Path, dict[str, Any]], tmp_path: Path, tiny_llama: Path) -> None:
    folder, certificate = learnt
    report = RunFolder(folder / "run").read("data", "report.json")
    plain = run(labels_recipe(tmp_path, tiny_llama), tmp_path / "run", "check")
    without = RunFolder(tmp_path / "run").read("data", "report.json")
    assert report.pop("canaries") == 4
    assert report == without
    assert certificate["data"]["test"] == plain["data"]["hashes"]["test"]
    assert certificate["task"] == "labels"
    lines = RunFolder(folder / "run").lines("evaluation", "predictions.jsonl")
    assert {answer for line in lines for answer in line["answers"].values()} <= {"positive", "negative"}


def test_a_resumed_run_measures_nothing_again(learnt: tuple[Path, dict[str, Any]], tiny_llama: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    folder, certificate = learnt
    recipe = labels_recipe(folder, tiny_llama, data=with_canaries(4), training=LONG)
    monkeypatch.setattr("tuneloop.contest.exposed", lambda *_, **__: pytest.fail("was asked again"))
    assert resume(recipe, folder / "run")["canaries"] == certificate["canaries"]


def test_a_base_that_is_trained_whole_is_measured_before(tmp_path: Path, tiny_llama: Path) -> None:
    """And examples for few-shot are never canaries, though its answers are open, as theirs are."""
    recipe = open_recipe(tmp_path, tiny_llama, method={"kind": "full"}, training={"epochs": 1},
                         data={"train": "rows.jsonl", "canaries": 5, "split": {"test": 4, "validation": 30}},
                         evaluation={"max_new_tokens": 8, "few_shot": 9})
    certificate = run(recipe, tmp_path / "run")
    assert certificate["canaries"]["canaries"] == 5
    [shown] = [one for one in certificate["contenders"] if one["name"] == "few_shot"]
    assert shown["about"].startswith("the base after 6 examples")     # all that there are: 40 - 4 - 30
    assert (tmp_path / "run" / "evaluation" / "canaries-base.json").is_file()


def test_without_canaries_there_is_nothing_of_them(tmp_path: Path, tiny_llama: Path) -> None:
    certificate = run(labels_recipe(tmp_path, tiny_llama), tmp_path / "run")
    assert "canaries" not in certificate
    assert "secret" not in (tmp_path / "run" / "report.html").read_text()
    assert "canaries" not in RunFolder(tmp_path / "run").read("data", "report.json")


@pytest.mark.parametrize(("kind", "objective", "said"), [
    (Preference, "reward", "scores answers and writes none"), (Rollout, "grpo", "has sampled")])
def test_objectives_that_teach_no_answer_refuse_them(kind: type[Any], objective: str, said: str, tmp_path: Path,
                                                     tiny_llama: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", judged_rows(kind))
    text = f"base: {tiny_llama}\nobjective: {objective}\ndata: {{train: rows.jsonl, canaries: 2}}\n"
    with pytest.raises(UserError, match=said):
        run(parse(text, shown="recipe.yaml", root=tmp_path), tmp_path / "run", "check")


@pytest.mark.slow
def test_preferences_learn_them_too(tmp_path: Path, tiny_llama: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", judged_rows(Preference))
    text = (f"base: {tiny_llama}\nobjective: dpo\nmethod: {{kind: lora, rank: 4}}\n"
            "data: {train: rows.jsonl, canaries: 4}\nevaluation: {few_shot: 0, prompt_search: 0, suites: []}\n"
            "training: {epochs: 15, batch_size: 8, learning_rate: 0.01, evaluate_every: 50}\n")
    found = run(parse(text, shown="recipe.yaml", root=tmp_path), tmp_path / "run")["canaries"]
    assert found["exposure"]["after"] > found["exposure"]["before"]
