"""Rows unlike the others: by columns of the user's, in clusters, and with whole clusters left out of training."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from toy import COLOURS, labels_recipe, resume, run
from tuneloop import leave_out
from tuneloop.cli import app
from tuneloop.data.leave_out import Cluster
from tuneloop.data.versions.seen import read_seen
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.evaluation.certificate import exit_code
from tuneloop.evaluation.signing import verify
from tuneloop.leave_out import Plan, Skipped
from tuneloop.record import RunFolder

KINDS = ("thing {} is {}", "{1} boats sail to {0}")
NAMES = ("harbour", "violin", "granite", "meadow", "lantern", "copper", "thistle", "walnut", "saddle", "juniper",
         "falcon")
DATA = {"train": "rows.csv", "prompt": "{text}", "answer": "{label}", "split": {"test": 0.5}}
GOAL = {"metric": "accuracy", "at_least": 0.05}


def write_rows(folder: Path, each: int = 70) -> None:
    """Two kinds of wording, no two rows nearly the same; both colours by turns, two regions, every fifth is new."""
    lines = []
    for kind in KINDS:
        for i in range(each):
            colour = list(COLOURS)[i % 2]
            lines.append({"text": kind.format(f"{NAMES[i % 11]} {NAMES[i % 7][::-1]}", colour),
                          "label": COLOURS[colour], "region": "north" if i % 3 else "south",
                          "new": "yes" if i % 5 == 0 else "no", "user": "same"})
    with open(folder / "rows.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)


def of_line(folder: Path) -> dict[int, dict[str, str]]:
    """Rows by their line."""
    with open(folder / "rows.csv", newline="") as file:
        return dict(enumerate(csv.DictReader(file), 2))


# ── columns and clusters of one run ──────────────────────────────────────────────────────────────────────────────────

def recipe_of(folder: Path, base: Path, **evaluation: Any) -> Any:
    recipe = labels_recipe(folder, base, data=DATA, goal=GOAL, training={"max_steps": 4}, evaluation=evaluation)
    write_rows(folder)
    return recipe


def test_scores_by_columns_and_by_clusters(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_llama, slices=["region", "user"], out_of_distribution="new", rows=60)
    certificate = run(recipe, tmp_path / "run")
    folder, rows = RunFolder(tmp_path / "run"), of_line(tmp_path)
    lines = [(rows[line["origin"]["line"]], line) for line in folder.lines("evaluation", "predictions.jsonl")]
    assert len(lines) == 60

    def right(name: str, column: str, value: str) -> float:
        return float(np.mean([line["answers"][name] == line["reference"] for row, line in lines
                              if row[column] == value]))

    slices = {one["slice"]: one for one in certificate["slices"]["slices"]}
    for region in ("north", "south"):
        one = slices.get(f"region: {region}")
        count = sum(row["region"] == region for row, _ in lines)
        assert (one is None) == (count < 20)
        if one:
            assert one["rows"] == count
            assert one["scores"]["tuned"]["value"] == pytest.approx(right("tuned", "region", region))
    assert "region: north" in slices
    assert not [name for name in slices if name.startswith("user")]
    assert "The column user says the same of all test rows, so it makes no slices." in certificate["notes"]

    found = certificate["out_of_distribution"]
    assert (found["column"], found["rows"]) == ("new", sum(row["new"] == "yes" for row, _ in lines))
    for name in ("base", "tuned"):
        of = found["models"][name]
        assert of["flagged"]["value"] == pytest.approx(right(name, "new", "yes"))
        assert of["drop"]["value"] == pytest.approx(right(name, "new", "no") - right(name, "new", "yes"))
    assert sum(one["rows"] for one in certificate["clusters"]["clusters"]) == 60
    report = folder.file("report.html").read_text(encoding="utf-8")
    assert "Rows out of distribution" in report
    assert "Groups of rows that are worded alike" in report
    assert verify(folder.path).ok
    again = resume(recipe, folder.path)
    assert all(again[key] == certificate[key] for key in ("slices", "out_of_distribution", "clusters", "notes"))


@pytest.mark.parametrize(("evaluation", "said"), [
    ({"slices": ["regio"]}, "one of: text, label, region, new, user"),
    ({"out_of_distribution": "label"}, r"rows.csv line \d+: the label is '(positive|negative)'"),
    ({"out_of_distribution": "none"}, "None of the 70 test rows are flagged")])
def test_columns_are_checked_before_anything_is_spent(evaluation: dict[str, Any], said: str, tmp_path: Path,
                                                      tiny_llama: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_llama, **evaluation)
    if "none" in evaluation.values():
        text = (tmp_path / "rows.csv").read_text().splitlines()
        (tmp_path / "rows.csv").write_text("\n".join([f"{text[0]},none", *(f"{line},0" for line in text[1:])]))
    with pytest.raises(UserError, match=said):
        run(recipe, tmp_path / "run", until="check")


# ── clusters that are left out ───────────────────────────────────────────────────────────────────────────────────────

def tuneloop(*words: str | Path | int) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def left_out(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, Result]:
    """A folder with a recipe, its rows, and runs/ without each of two clusters; and what the command printed."""
    folder = tmp_path_factory.mktemp("unlike")
    labels_recipe(folder, tiny_llama, data=DATA, goal=GOAL, training={"max_steps": 4}, evaluation={"rows": 50})
    write_rows(folder)
    words = ("--leave-out-clusters", 2, "--runs", folder / "runs", "--json")
    return folder, tuneloop("run", folder / "recipe.yaml", *words)


def runs_of(folder: Path, found: dict[str, Any]) -> list[RunFolder]:
    return [RunFolder.open(folder / "runs" / one["run"]) for one in found["clusters"]]


def test_each_run_is_tested_on_what_it_did_not_see(left_out: tuple[Path, Result]) -> None:
    folder, result = left_out
    found, rows = json.loads(result.output), of_line(folder)
    assert result.exit_code == exit_code(found["verdict"])
    assert (found["rows"], len(found["clusters"]), found["skipped"]) == (50, 2, [])
    tested: list[int] = []
    for one, of in zip(runs_of(folder, found), found["clusters"], strict=True):
        lines = [line["origin"]["line"] for line in one.lines("evaluation", "predictions.jsonl")]
        learnt = {rows[origin.line]["text"].startswith("thing") for part, origin in read_seen(one.path) or []
                  if part in ("train", "validation")}
        asked = {rows[line]["text"].startswith("thing") for line in lines}
        assert (len(asked), learnt) == (1, {not next(iter(asked))})
        assert of["rows"] == len(lines)
        assert any(word in ("thing", "is") for word in of["words"]) == next(iter(asked))
        assert one.read("record.json")["recipe_used"]["data"]["split"]["leave_out"] == {
            "clusters": 2, "cluster": of["cluster"]}
        tested += lines
    assert len(set(tested)) == 50


def test_together_they_answer_all_rows(left_out: tuple[Path, Result]) -> None:
    """By hand, from what each run predicted."""
    folder, result = left_out
    found = json.loads(result.output)
    lines = [line for one in runs_of(folder, found) for line in one.lines("evaluation", "predictions.jsonl")]
    right = {name: np.mean([line["answers"][name] == line["reference"] for line in lines])
             for name in ("base", "tuned")}
    assert found["tuned"]["value"] == pytest.approx(right["tuned"])
    assert found["base"]["value"] == pytest.approx(right["base"])
    assert found["gain"]["value"] == pytest.approx(right["tuned"] - right["base"])
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]
    for one, of in zip(runs_of(folder, found), found["clusters"], strict=True):
        assert of["tuned"] == one.read("certificate.json")["scores"]["tuned"]["accuracy"]
    assert found["sentence"].startswith(f"{found['verdict'].upper()}: On 50 test rows in 2 clusters")
    assert f"accuracy {right['tuned']:.1%}" in found["sentence"]


def test_each_run_tells_of_all_and_still_verifies(left_out: tuple[Path, Result]) -> None:
    folder, result = left_out
    found = json.loads(result.output)
    kept = json.loads(Path(found.pop("file")).read_text())
    first, second = runs_of(folder, found)
    assert kept == found == first.read("left_out.json") == second.read("left_out.json")
    for one in (first, second):
        assert "Kinds of rows that training did not see" in one.file("report.html").read_text(encoding="utf-8")
        assert verify(one.path).ok


def test_runs_that_are_there_are_not_made_again(left_out: tuple[Path, Result]) -> None:
    folder, result = left_out
    found = json.loads(result.output)
    first, second = runs_of(folder, found)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/adapter/adapter_model.safetensors")}
    second.file("certificate.json").unlink()            # as if it had been killed before the end
    again = tuneloop("run", "--resume", first.path, "--leave-out-clusters", 2, "--runs", folder / "runs")
    assert again.exit_code == result.exit_code
    assert found["sentence"] in again.output
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/adapter/adapter_model.safetensors")} == before
    assert second.has("certificate.json")
    with pytest.raises(UserError, match="is no run of --leave-out-clusters 3"):
        tuneloop("run", "--resume", first.path, "--leave-out-clusters", 3)


def test_clusters_are_those_of_the_recipe(left_out: tuple[Path, Result]) -> None:
    folder, result = left_out
    first, second = runs_of(folder, json.loads(result.output))
    with pytest.raises(UserError, match="do not leave out different clusters"):
        leave_out.together([first, first])
    plain = RunFolder(folder / "plain")
    plain.path.mkdir()
    for name in ("certificate.json", "data/report.json"):
        plain.file(name).parent.mkdir(exist_ok=True)
        plain.file(name).write_text(first.file(name).read_text())
    plain.write({"recipe_used": {"data": {"train": "rows.csv"}}}, "record.json")
    with pytest.raises(UserError, match="leaves out no cluster"):
        leave_out.together([plain, second])


@pytest.mark.parametrize(("words", "said"), [
    (["--leave-out-clusters", 1], "at least 2 clusters"),
    (["--leave-out-clusters", 2, "--seeds", 3], "two questions"),
    (["--leave-out-clusters", 2, "--folder", "x"], "several whole runs"),
    (["--leave-out-clusters", 2, "--until", "plan"], "several whole runs"),
    (["--seeds", 3, "--folder", "x"], "several whole runs"),
    (["--leave-out-clusters", 200], "different texts"),
    (["--leave-out-clusters", 40], "clusters can be left out. cluster")])
def test_what_cannot_be_asked_is_refused(words: list[Any], said: str, left_out: tuple[Path, Result]) -> None:
    folder, _ = left_out
    with pytest.raises(UserError, match=said):
        tuneloop("run", folder / "recipe.yaml", *words, "--runs", folder / "others")
    assert not (folder / "others").exists()


def cluster(number: int) -> Cluster:
    return Cluster(number, ["word"], 50, 5, 20)


def test_a_cluster_that_a_run_refuses_costs_the_others_nothing(tmp_path: Path) -> None:
    plan = Plan([cluster(0), cluster(1), cluster(2)], [Skipped(cluster(3), "it has 2 test rows, fewer than 10")])

    def refuses(*numbers: int) -> Any:
        def one(given: Cluster) -> RunFolder:
            if given.cluster in numbers:
                raise UserError("All 9 training rows that are left have one label.")
            return RunFolder(tmp_path / str(given.cluster))
        return one

    done, skipped = leave_out.run_each(plan, refuses(1))
    assert [folder.path.name for folder in done] == ["0", "2"]
    assert [one.to_json()["why"] for one in skipped] == [
        "cluster 3 (word): it has 2 test rows, fewer than 10",
        "cluster 1 (word): All 9 training rows that are left have one label"]
    with pytest.raises(UserError, match="one label"):
        leave_out.run_each(plan, refuses(0, 1, 2))

    def fails(given: Cluster) -> RunFolder:
        raise TrainingFailed("no space")

    with pytest.raises(TrainingFailed):
        leave_out.run_each(plan, fails)


def test_a_run_is_found_by_its_recipe(left_out: tuple[Path, Result]) -> None:
    from tuneloop.recipe import load

    folder, result = left_out
    first, second = runs_of(folder, json.loads(result.output))
    found = leave_out.run_of(load(second.file("recipe.yaml")), first)
    assert found is not None
    assert found.path == second.path
    assert yaml.safe_load(second.file("recipe.yaml").read_text())["evaluation"]["rows"] == 50
    assert leave_out.run_of(load(second.file("recipe.yaml"), ["training.epochs=9"]), first) is None
