"""Rows that judge a model and that it knows: taken out, named, or said in the certificate, however they got there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toy import labels_csv, labels_recipe, run
from tuneloop.cli import app
from tuneloop.data.versions.learnt import learnt_by, read_learnt
from tuneloop.data.versions.seen import read_seen
from tuneloop.models.resolve import LEARNT, resolve
from tuneloop.recipe import Recipe
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent

QUICK: dict[str, Any] = {"training": {"epochs": 1}}
DATA = {"prompt": "{text}", "answer": "{label}"}


class Said(Silent):
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def invoke(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def recipe_tested_on(folder: Path, base: Path, lines: list[str], train: str = "", **changes: Any) -> Recipe:
    """A recipe whose test rows are these lines; it trains on other things."""
    folder.mkdir(exist_ok=True)
    recipe = labels_recipe(folder, base, data=DATA | {"train": "rows.csv", "test": "test.csv"}, **QUICK | changes)
    others = labels_csv().replace("thing", "other thing")
    (folder / "rows.csv").write_text(train or others)
    (folder / "test.csv").write_text("\n".join(["text,label", *lines, ""]))
    return recipe


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, list[str]]:
    """A run, its merged model beside it, and the lines of its file that it was trained with."""
    folder = tmp_path_factory.mktemp("learnt")
    run(labels_recipe(folder, tiny_llama, **QUICK), folder / "run")
    invoke("export", folder / "run", "--to", "merged", "--out", folder / "merged")
    given = (folder / "rows.csv").read_text().splitlines()
    trained = [given[origin.line - 1] for part, origin in read_seen(folder / "run") or () if part == "train"]
    return folder, trained


# ── within a recipe ──────────────────────────────────────────────────────────────────────────────────────────────────

def test_what_the_test_file_asks_too_does_not_train(tmp_path: Path, tiny_llama: Path) -> None:
    """Exact repeats in the two files of a recipe, whatever their label."""
    lines = labels_csv().splitlines()[1:]
    said = Said()
    tested = [*lines[:10], f"{lines[10].rpartition(',')[0]},negative"]
    recipe = recipe_tested_on(tmp_path, tiny_llama, tested, labels_csv())
    run(recipe, tmp_path / "run", "check", said)
    assert any("11 (rows.csv line 2, 3, 4, 5, 6, …)" in line and "held out to judge" in line for line in said.said)
    seen = read_seen(tmp_path / "run") or []
    assert not {o.row for part, o in seen if part == "train"} & {o.row for part, o in seen if part == "test"}
    assert min(o.line for part, o in seen if part == "train") == 13


def test_what_the_test_file_nearly_asks_is_named_and_told(tmp_path: Path, tiny_llama: Path) -> None:
    walks = [f"We took a long walk along the {place} in the early morning when the fog had not yet lifted"
             for place in ("river", "beach", "canal", "cliffs", "harbour of the old town", "vineyards")]
    said = Said()
    recipe = recipe_tested_on(tmp_path, tiny_llama, [f"{walk}!,positive" for walk in walks[:3]],
                       labels_csv() + "".join(f"{walk},positive\n" for walk in walks))
    certificate = run(recipe, tmp_path / "run", watch=said)
    assert any(line.startswith("duplicates:") and "ask in train what test asks" in line for line in said.said)
    assert certificate["notes"][0].startswith("3 training rows ask nearly what a test row asks, which flatters")


# ── a model that was trained elsewhere ───────────────────────────────────────────────────────────────────────────────

def test_every_form_of_a_model_says_that_it_knows_the_rows(learnt: tuple[Path, list[str]], tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    folder, trained = learnt
    (tmp_path / "known.csv").write_text("\n".join(["text,label", *trained[:7], "thing 99 is red,positive", ""]))
    monkeypatch.chdir(tmp_path)
    invoke("export", folder / "run", "--to", "adapter", "--out", tmp_path / "adapter")
    for model, name in ((folder / "run", "run"), (folder / "run" / "adapter", "adapter"),
                        (tmp_path / "adapter", "adapter"), (folder / "merged", "merged")):
        result = json.loads(invoke("eval", model, "--on", "known.csv", "--prompt", "{text}", "--answer", "{label}",
                                   "--json"))
        assert result["notes"][0] == f"{name} was trained with 7 of these 8 rows, which flatters its result."


def test_a_base_that_was_trained_on_the_test_rows_is_told_in_the_certificate(learnt: tuple[Path, list[str]],
                                                                            tmp_path: Path) -> None:
    folder, trained = learnt
    recipe = recipe_tested_on(tmp_path, folder / "merged", [*trained[:9], "thing 99 is red,positive"])
    said = Said()
    certificate = run(recipe, tmp_path / "run", watch=said)
    told = ("The base was trained with 9 of these 10 test rows, which flatters base and tuned model alike: judge them "
            "on rows that neither has seen.")
    assert certificate["notes"][0] == told
    assert told in said.said
    assert told in (tmp_path / "run" / "README.md").read_text()
    assert "trained with 9 of these 10 test rows" in (tmp_path / "run" / "report.html").read_text()
    # what comes of it knows the rows of both, and says so to the next
    assert learnt_by(tmp_path / "run") > read_learnt(folder / "merged") > frozenset()
    assert read_learnt(tmp_path / "run" / "adapter") == learnt_by(tmp_path / "run")
    invoke("export", tmp_path / "run", "--to", "merged", "--out", tmp_path / "again")
    assert read_learnt(tmp_path / "again") == learnt_by(tmp_path / "run")


def test_the_same_split_again_is_no_leak(learnt: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Going on from a model with its own recipe holds out what was held out before."""
    folder, _ = learnt
    certificate = run(labels_recipe(tmp_path, folder / "merged", **QUICK), tmp_path / "run")
    assert not any("trained with" in note for note in certificate["notes"])


def test_a_run_from_before_such_notes_exports_them_all_the_same(learnt: tuple[Path, list[str]],
                                                               tmp_path: Path) -> None:
    import shutil

    shutil.copytree(learnt[0] / "run", tmp_path / "old")
    (tmp_path / "old" / "adapter" / LEARNT).unlink()
    invoke("export", tmp_path / "old", "--to", "merged", "--out", tmp_path / "out")
    assert read_learnt(tmp_path / "out") == read_learnt(learnt[0] / "merged") == learnt_by(learnt[0] / "run")


def test_a_gguf_file_and_a_combination_carry_them_along(learnt: tuple[Path, list[str]], tmp_path: Path,
                                                       own_cache: Path) -> None:
    folder, _ = learnt
    invoke("export", folder / "run", "--to", "gguf", "--quantise", "f16", "--out", tmp_path / "out")
    [file] = (tmp_path / "out").glob("*.gguf")
    assert read_learnt(resolve(str(file), tmp_path).path) == learnt_by(folder / "run")
    invoke("combine", folder / "run", folder / "run" / "adapter", "--weights", "0.5,0.5", "--how", "linear",
           "--out", tmp_path / "both")
    assert read_learnt(tmp_path / "both") == learnt_by(folder / "run")


def test_the_notes_are_hashes_of_rows_and_nothing_else(learnt: tuple[Path, list[str]]) -> None:
    folder, trained = learnt
    text = (folder / "merged" / LEARNT).read_text()
    assert "thing" not in text
    validation = sum(part == "validation" for part, _ in read_seen(folder / "run") or ())
    assert len(text.splitlines()) == 1 + len(trained) + validation
    assert RunFolder(folder / "run").read("certificate.json")["notes"] is not None
