"""A whole search on a tiny base: trials on a base that stays in memory, a kill in the middle, the proof at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from toy import ALONE, labels_recipe, metrics, open_recipe, run, tuneloop, weights
from tuneloop import recipe as recipes
from tuneloop import search as searches
from tuneloop import search_data
from tuneloop.errors import UserError
from tuneloop.record import RunFolder
from tuneloop.search import Ahead, Limits
from tuneloop.search_finish import do_not_tune
from tuneloop.search_space import with_values
from tuneloop.search_study import DEFAULTS, DRAWN, Study
from tuneloop.search_trial import Bases, _fingerprint
from tuneloop.training.watch import Silent

DATA = {"train": "rows.csv", "prompt": "{text}", "answer": "{label}", "split": {"validation": 12, "test": 20}}
SPACE = {"training.learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "method.rank": [2, 4]}
SHORT = {"max_steps": 6, "evaluate_every": 2}


class Said(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def ahead_in(folder: Path, base: Path, **changes: Any) -> Ahead:
    search = {"space": SPACE, "trials": 4} | changes.pop("search", {})
    recipe = labels_recipe(folder, base, **({"data": DATA, "training": SHORT, "search": search} | changes))
    return searches.look_ahead(recipe, Silent())


def tried(folder: Path, ahead: Ahead, **bounds: Any) -> Study:
    """The trials of a search, without the runs at its end."""
    limits = Limits(bounds)
    study = Study(folder)
    study.recover(ahead.space, ahead.defaults)
    searches._try_all(folder, ahead, study, searches._purse(ahead, limits, study, 1), limits, 1, Silent(),
                      lambda number: None)
    return study


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, Ahead, Study]:
    folder = tmp_path_factory.mktemp("searched")
    ahead = ahead_in(folder, tiny_llama, evaluation={"few_shot": 2})
    made = searches.begin(ahead, folder / "runs")
    return made, ahead, tried(made, ahead)


# ── trials ───────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_everybody_is_tried_on_the_validation_rows(searched: tuple[Path, Ahead, Study]) -> None:
    _, _, study = searched
    trials = study.trials()
    by_kind = {one.kind: one for one in trials}
    assert [one.kind for one in trials] == ["base", "few_shot", "optimised_prompt", DEFAULTS, DRAWN, DRAWN, DRAWN]
    assert by_kind["base"].value is not None
    assert by_kind["few_shot"].value is not None
    assert by_kind["optimised_prompt"].why == "evaluation.prompt_search is 0."
    assert by_kind[DEFAULTS].values == {"training.learning_rate": 0.01, "method.rank": 4}
    assert sorted(by_kind[DEFAULTS].looks) == [1, 2]            # of three, the last is the end
    for one in trials[3:]:
        assert one.state in ("finished", "stopped")
        assert one.tokens > 0
        assert one.seconds > 0
        assert one.value is None or (12 * one.value) % 1 == pytest.approx(0, abs=1e-9)     # accuracy on 12 rows


def test_a_trial_on_a_lent_base_is_the_run_it_would_be_alone(searched: tuple[Path, Ahead, Study],
                                                              tmp_path: Path) -> None:
    """Bit by bit, after other trials on the same base: the losses of training and validation."""
    folder, ahead, study = searched
    last = next(one for one in reversed(study.trials()) if one.state == "finished")
    recipe = recipes.of(with_values(ahead.given, last.values) | {"evaluation": ALONE}, shown="alone", root=tmp_path)
    run(recipe, tmp_path / "alone", until="train")
    trial = folder / "trials" / str(last.number)
    for event in ("step", "validation"):
        assert [one["loss"] for one in metrics(trial, event)] == [one["loss"] for one in metrics(tmp_path / "alone",
                                                                                                event)]
    assert weights(tmp_path / "alone")
    assert not (trial / "adapter").exists()
    assert not (trial / "checkpoints").exists()


@pytest.mark.slow
def test_the_same_search_tries_the_same_recipes(searched: tuple[Path, Ahead, Study], tmp_path: Path,
                                                tiny_llama: Path) -> None:
    _, ahead, study = searched
    again = ahead_in(tmp_path, tiny_llama, evaluation={"few_shot": 2})
    assert again.space == ahead.space
    other = tried(searches.begin(again, tmp_path / "runs"), again)
    assert [one.values for one in other.trials()] == [one.values for one in study.trials()]
    assert [one.value for one in other.trials()] == [one.value for one in study.trials()]


def test_a_search_goes_on_where_it_was_and_keeps_its_name(searched: tuple[Path, Ahead, Study]) -> None:
    folder, ahead, study = searched
    with pytest.raises(UserError, match="exists already"):
        searches.begin(ahead, folder.parent)
    found, again = searches.resume("run", folder.parent, Silent())
    assert found == folder
    assert (again.space, again.defaults, again.metric) == (ahead.space, ahead.defaults, ahead.metric)
    assert [one.number for one in tried(found, again).trials()] == [one.number for one in study.trials()]


def test_rows_that_changed_are_no_rows_to_go_on_with(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = ahead_in(tmp_path, tiny_llama)
    folder = searches.begin(ahead, tmp_path / "runs")
    text = (tmp_path / "rows.csv").read_text().replace("thing 3 is", "thing 333 is")
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UserError, match="have changed since"):
        searches.resume(str(folder), tmp_path / "runs", Silent())
    with pytest.raises(UserError, match="is no search"):
        searches.resume("nothing", tmp_path / "runs", Silent())


@pytest.mark.slow
def test_methods_share_one_base_and_a_whole_model_takes_its_own(tmp_path: Path, tiny_llama: Path) -> None:
    methods = ["lora", "full", "prompt"]
    ahead = ahead_in(tmp_path, tiny_llama, search={"space": {"method": methods}, "trials": None},
                     training={"max_steps": 2, "evaluate_every": 1}, method="lora")
    study = tried(searches.begin(ahead, tmp_path / "runs"), ahead)
    found = {one.values["method"]: one for one in study.trials() if one.kind in (DEFAULTS, DRAWN)}
    assert set(found) == set(methods)
    assert not [one.why for one in found.values() if one.state == "failed"]


@pytest.mark.slow
def test_written_answers_are_stopped_by_their_loss_and_scored_at_the_end(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = open_recipe(tmp_path, tiny_llama, training=SHORT, method={"kind": "lora", "rank": 4},
                         search={"space": {"training.learning_rate": [0.01, 1e-6]}, "trials": 2})
    ahead = searches.look_ahead(recipe, Silent())
    folder = searches.begin(ahead, tmp_path / "runs")
    trials = [one for one in tried(folder, ahead).trials() if one.kind in (DEFAULTS, DRAWN)]
    defaults, other = trials
    losses = [one["loss"] for one in metrics(folder / "trials" / str(defaults.number), "validation")]
    assert [-value for value in defaults.looks.values()] == losses[:2]
    assert defaults.value is not None
    assert 0 <= defaults.value <= 1
    assert "not among the best third at look 1" in other.why


@pytest.mark.parametrize("kind", ["lora", "qlora", "prompt", "prefix", "ia3", "adapters"])
def test_a_base_comes_back_bit_by_bit(kind: str, tiny_llama: Path) -> None:
    import torch

    bases, method = Bases(), recipes.METHODS.get(kind)(kind=kind)
    base = bases.lend(tiny_llama, method)
    before = _fingerprint(base)
    tuned = method.apply(base, 0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    bases.give_back(method, tuned, trained=True)
    again = bases.lend(tiny_llama, method)
    assert _fingerprint(again) == before
    assert bases.loaded == 1
    assert not any(p.requires_grad for p in again.parameters())
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-3
    bases.give_back(method, again, trained=False)
    bases.lend(tiny_llama, method)
    assert bases.loaded == 2


@pytest.mark.slow
def test_what_cannot_be_trained_is_left_out_with_its_reason(tmp_path: Path, tiny_llama: Path) -> None:
    """A start that halves the rank takes no odd one; a rate that is absurd diverges, or learns nothing."""
    ahead = ahead_in(tmp_path, tiny_llama, method={"kind": "lora", "rank": 4, "start": "orthogonal"},
                     search={"space": {"method.alpha": [1, 2], "training.learning_rate": [0.01, 1e30]}})
    study = tried(searches.begin(ahead, tmp_path / "runs"), ahead)
    ends = {one.values["training.learning_rate"]: one for one in study.trials() if one.kind == DRAWN}
    assert "loss is" in ends[1e30].why
    assert ends[1e30].state == "stopped"


# ── budget ───────────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.slow
def test_a_budget_ends_the_search_and_one_too_small_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = ahead_in(tmp_path, tiny_llama, search={"trials": None})
    folder = searches.begin(ahead, tmp_path / "runs")
    study = tried(folder, ahead, tokens=1)      # nothing is known to cost anything before the first trial has ended
    assert [one.kind for one in study.trials() if one.state != "waiting"][-1] == DEFAULTS
    with pytest.raises(UserError, match="leaves no room to try anything") as caught:
        searches.search(folder, ahead, Limits({"tokens": 1}), Silent())
    assert "needed for the runs at the end" in caught.value.text
    cost = next(one for one in study.trials() if one.kind == DEFAULTS).tokens
    again = tried(folder, ahead, tokens=9 * cost)       # 6 for the end, 1 for the defaults
    assert any(one.kind == DRAWN for one in again.trials())
    assert 2 * cost < sum(one.tokens for one in again.trials()) <= 3 * cost     # each asks for one more as the others


def test_money_needs_a_price(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = ahead_in(tmp_path, tiny_llama)
    with pytest.raises(UserError, match="what this machine costs"):
        searches.search(searches.begin(ahead, tmp_path / "runs"), ahead, Limits({"usd": 1.0}), Silent())


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_do_not_tune_wins_where_nothing_beats_the_base(tmp_path: Path) -> None:
    from tuneloop.search_space import Branch, Dimension, Space

    space = Space((), (Branch(None, None, (Dimension("training.warmup", "training.warmup", (0.0, 0.1)),)),))
    study = Study(tmp_path)
    study.recover(space, {})
    for value in (0.6, 0.8, 0.7, 0.75):
        study.next(space, 9).finish(value)  # type: ignore[union-attr]
    study.next(space, 9).finish(0.8)  # type: ignore[union-attr]
    found = do_not_tune(study, "accuracy", 100)
    assert found
    assert (found["verdict"], found["recommended"]) == ("not met", "few_shot")
    assert found["sentence"] == ("DO NOT TUNE: the base with examples reaches accuracy 80.0% on 100 validation rows, "
                                 "and the best of 2 recipes 80.0%.")
    study.next(space, 9).finish(0.81)  # type: ignore[union-attr]
    assert do_not_tune(study, "accuracy", 100) is None


@pytest.mark.slow
def test_a_search_proves_its_best_against_the_defaults(tmp_path: Path, tiny_llama: Path) -> None:
    """Defaults that learn nothing are beaten, on test rows, with seeds that had no say; and the search is resumed in
    the middle of its end.
    """
    ahead = ahead_in(tmp_path, tiny_llama, training={"max_steps": 20, "evaluate_every": 5, "learning_rate": 1e-6},
                     search={"space": {"training.learning_rate": [1e-6, 0.02]}, "trials": 2},
                     data=DATA | {"split": {"validation": 12, "test": 24}})
    folder, watch = searches.begin(ahead, tmp_path / "runs"), Said()
    found = searches.search(folder, ahead, Limits({}), watch)
    assert found["sentence"].startswith("BEAT THE DEFAULTS: accuracy ")
    assert "by learning_rate 0.02." in found["sentence"]
    assert (found["recommended"], found["beat_the_defaults"], found["test_rows"]) == ("best", True, 24)
    assert found["difference"]["low"] > 0
    of = {which: found["certified"][which]["tuned"]["of_seeds"] for which in ("best", "defaults")}
    gains = [a - b for a, b in zip(of["best"], of["defaults"], strict=True)]
    assert found["difference"]["value"] == pytest.approx(sum(gains) / 3)
    runs = [RunFolder(tmp_path / "runs" / name) for name in found["certified"]["best"]["runs"]]
    assert [one.read("record.json")["seeds"]["training"] for one in runs] == [1, 2, 3]
    assert yaml.safe_load((folder / "best.yaml").read_text())["training"]["learning_rate"] == 0.02
    assert json.loads((folder / "search.json").read_text())["sentence"] == found["sentence"]
    assert any(line.startswith("trial 0") for line in watch.said)
    told = searches.lines(found, folder)
    assert told[1].startswith("The best recipe: ")

    (runs[-1].path / "certificate.json").unlink()
    again = searches.search(*searches.resume("run", tmp_path / "runs", Silent()), Limits({}), Silent())
    assert again["certified"]["best"]["runs"] == found["certified"]["best"]["runs"]
    assert again["difference"] == found["difference"]


@pytest.mark.slow
def test_a_killed_search_goes_on_by_the_command_line(tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama, data=DATA, training=SHORT | {"learning_rate": 1e-6},
                  evaluation={"few_shot": 2, "prompt_search": 8, "max_new_tokens": 4},
                  search={"space": {"training.learning_rate": [1e-6, 2e-6]}, "trials": 2})
    done = subprocess.run([sys.executable, "-c", KILLED, "search", "recipe.yaml"], cwd=tmp_path, check=False, text=True,
                          capture_output=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "runs" / "run.search" / "study.db").exists()
    refused = tuneloop("search", "recipe.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "search --resume" in refused.stderr
    ended = tuneloop("search", "--resume", "run", cwd=tmp_path)
    assert "trial 3 was cut off, and is tried again" in ended.stdout
    assert ended.returncode in (3, 4)
    assert "DO NOT TUNE" in ended.stdout or "DEFAULTS" in ended.stdout
    trials = json.loads((tmp_path / "runs" / "run.search" / "search.json").read_text())["trials"]
    assert [one["state"] for one in trials if one["kind"] == "defaults"] == ["failed", "finished"]
    assert next(one for one in trials if one["kind"] == "optimised_prompt")["value"] is not None


KILLED = """
import os, signal, sys
from tuneloop import cli, search_trial

class Killed(search_trial._Watch):
    def metric(self, entry):
        super().metric(entry)
        if entry["event"] == "step" and entry["step"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)

search_trial._Watch = Killed
cli.main()
"""


@pytest.mark.slow
def test_two_workers_share_a_study(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = ahead_in(tmp_path, tiny_llama, training=SHORT | {"learning_rate": 1e-6},
                     search={"space": {"training.learning_rate": [1e-6, 2e-6, 3e-6, 4e-6]}, "trials": 4})
    folder, watch = searches.begin(ahead, tmp_path / "runs"), Said()
    study = Study(folder)
    study.recover(ahead.space, ahead.defaults)
    limits = Limits({}, workers=2)
    purse = searches._purse(ahead, limits, study, 2)
    searches._try_all(folder, ahead, study, purse, limits, 2, watch, lambda number: watch.say(str(number)))
    trials = study.trials()
    assert {one.user_attrs["worker"] for one in study.study.trials} == {0, 1}
    assert sorted(map(int, watch.said)) == [one.number for one in trials]
    assert sum(one.kind in (DEFAULTS, DRAWN) for one in trials) == 4
    assert not [one.why for one in trials if one.state == "failed" and one.kind == DRAWN]


# ── how much data ────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.slow
def test_parts_of_the_rows_make_a_curve(tmp_path: Path, tiny_llama: Path) -> None:
    lines = [f"thing {i} is {colour},{label}" for i, (colour, label) in enumerate(
        [("red", "positive"), ("blue", "negative")] * 60)]
    recipe = labels_recipe(tmp_path, tiny_llama, goal={"at_least": 0.99},
                           data=DATA | {"split": {"validation": 20, "test": 20}},
                           training={"batch_size": 4, "epochs": 2, "learning_rate": 0.01, "evaluate_every": 100})
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines, ""]))
    watch = Said()
    folder, ready = search_data.begin(recipe, tmp_path / "runs", watch)
    found = search_data.run(folder, ready, watch)
    assert [one["rows"] for one in found["points"]] == [10, 20, 40, 80]
    assert all(len(one["scores"]) == 3 for one in found["points"])
    assert found["advice"][0].startswith("Accuracy on 20 validation rows, mean of 3 trainings: ")
    assert found["gains"]["2"]["low"] <= found["gains"]["2"]["value"] <= found["gains"]["2"]["high"]
    assert found["goal"]["at_least"] == 0.99
    again = search_data.run(*search_data.resume("run", tmp_path / "runs", Silent()), watch)
    assert again == found
    assert len([line for line in watch.said if "rows, seed" in line]) == 12
