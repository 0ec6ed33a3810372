"""`tuneloop mend`: the offers, and new runs that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from toy import labels_recipe, metrics, run
from tuneloop.cli_mend import mend
from tuneloop.data.versions.seen import read_seen
from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Interval
from tuneloop.evaluation.suites.catalog import Forgetting
from tuneloop.record import RunFolder, find_runs
from tuneloop.remedies import Patient, Point, Sweep

app = typer.Typer()
app.command()(mend)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder of runs with one finished run, which was asked for fluency."""
    folder = tmp_path_factory.mktemp("mend")
    recipe = labels_recipe(folder, tiny_llama, goal={"max_forgetting": 0.9},
                           evaluation={"suites": ["fluency"], "few_shot": 0, "prompt_search": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELOOP_CACHE", str(folder / "cache"))
        run(recipe, folder / "runs" / "first")
    return folder / "runs"


def mended(runs: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["first", "--runs", str(runs), *words])


def test_the_offers_and_what_was_forgotten(runs: Path) -> None:
    done = mended(runs, "--json")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    assert [offer["by"] for offer in told["offers"]] == ["scale", "replay", "kl", "rate"]
    assert told["max_forgetting"] == 0.9
    assert told["forgetting"]["drop"] == RunFolder(runs / "first").read("certificate.json")["forgetting"]["drop"]
    said = mended(runs).output
    assert "Forgotten: " in said
    assert "the goal allows 90" in said
    assert all(by in said for by in ("scale", "replay", "kl", "rate", "--apply"))


def test_what_cannot_be_done_is_said(runs: Path) -> None:
    for words, wanted in ((("--by", "magic"), "no remedy"), (("--apply",), "needs a remedy")):
        found = mended(runs, *words).exception
        assert isinstance(found, UserError)
        assert wanted in found.text


def test_a_recipe_is_written_and_how_to_run_it(runs: Path) -> None:
    done = mended(runs, "--by", "kl")
    assert done.exit_code == 0
    path = runs / "first" / "mend-kl.yaml"
    assert path.is_file()
    assert f"tuneloop run {path}" in done.output
    assert len(find_runs(runs)) == 1


@pytest.mark.slow
def test_a_scaled_run_is_certified_and_names_where_it_came_from(runs: Path, own_cache: Path) -> None:
    """A bound between what half and the whole adapter lose leaves scales below 1 alone."""
    tried = json.loads(mended(runs, "--by", "scale", "--json", "--items", "3", "--rows", "6").stdout)
    drops = {one["scale"]: one["forgetting"]["drop"]["value"] for one in tried["scales"]}
    assert drops[0] == 0
    assert len(set(drops.values())) > 2
    bound = min(drops[0.5], drops[0.25]) + 1e-6
    assert bound < drops[1], "the whole adapter must forget more for this test to say anything"
    before = set(find_runs(runs))
    words = ["--by", "scale", "--items", "3", "--rows", "6", "--max-forgetting", str(max(bound, 0.0)), "--apply"]
    done = mended(runs, *words)
    assert done.exit_code in (0, 3, 4), done.output
    [made] = [found for found in find_runs(runs) if found.path not in {old.path for old in before}]
    record, certificate = made.read("record.json"), made.read("certificate.json")
    assert record["mended_from"]["run"] == "first"
    assert 0 < record["mended_from"]["chosen"] < 1
    assert certificate["run"] == made.path.name
    assert certificate["test_rows_used_before"] == 1
    old = RunFolder(runs / "first").read("certificate.json")
    assert certificate["scores"]["base"] == old["scores"]["base"]
    assert certificate["scores"]["tuned"]["perplexity"] != old["scores"]["tuned"]["perplexity"]
    assert "chosen" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("by", ["replay", "kl", "rate"])
def test_a_changed_recipe_is_run_and_names_where_it_came_from(runs: Path, own_cache: Path, by: str) -> None:
    done = mended(runs, "--by", by, "--apply", "--json")
    assert done.exit_code in (0, 3, 4), done.output
    made = RunFolder(Path(json.loads(done.stdout)["folder"]))
    assert made.read("record.json")["mended_from"] == {"run": "first", "by": by}
    steps = metrics(made.path)
    if by == "rate":
        assert made.read("plan.json")["values"]["training.learning_rate"]["value"] == 0.00333
    elif by == "kl":
        assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)         # training begins at the base
        assert steps[-1]["kl"] > 0.01
    else:
        first, mixed = (sum(part == "train" for part, _ in read_seen(run.path) or ())
                        for run in (RunFolder(runs / "first"), made))
        assert mixed == first + round(first / 9)


@pytest.mark.parametrize(("scale", "code", "said"), [(None, 3, "Try replay, kl or rate"), (1.0, 0, "As it is")])
def test_nothing_is_made_where_nothing_fits_or_nothing_is_needed(runs: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 scale: float | None, code: int, said: str) -> None:
    lost = Forgetting(Interval(0.1, 0.0, 0.2), {}, 9)
    points = tuple(Point(each, Interval(0.5, 0.4, 0.6), lost) for each in (0.0, 0.5, 1.0))
    chosen = next((point for point in points if point.scale == scale), None)
    monkeypatch.setattr(Patient, "sweep", lambda *_, **__: Sweep("accuracy", 9, 0.05, points, chosen))
    before = len(find_runs(runs))
    done = mended(runs, "--by", "scale", "--apply")
    assert done.exit_code == code
    assert said in done.output
    assert len(find_runs(runs)) == before
