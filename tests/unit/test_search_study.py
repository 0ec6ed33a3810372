"""The study: what comes next, who is stopped early, what survives a kill, and what may be spent."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.search_budget import Purse
from tuneloop.search_space import Branch, Dimension, Space
from tuneloop.search_study import CUT_OFF, DEFAULTS, DRAWN, UNTUNED, Running, Study, Trial

RATE = Dimension("training.learning_rate", "training.learning_rate", low=1e-4, high=1e-1, log=True)
SPACE = Space((), (Branch(None, None, (RATE,)),))
CHOICES = Space((), (Branch(None, None, (Dimension("method.rank", "method.rank", (2, 4)),
                                         Dimension("training.warmup", "training.warmup", (0.0, 0.1)))),))
TWO = Space((Dimension("method", "method", ("lora", {"kind": "full", "layers": 1})),), (
    Branch("lora", None, (Dimension("method.rank", "method.rank", (2, 4)),)),
    Branch({"kind": "full", "layers": 1}, None, (Dimension("training.warmup", "training.warmup", (0.0, 0.1)),))))


def study_in(folder: Path, space: Space = SPACE, defaults: dict[str, Any] | None = None, **options: Any) -> Study:
    study = Study(folder, **options)
    study.recover(space, defaults or {})
    return study


def after_the_defaults(study: Study, space: Space = SPACE, value: float = 0.5) -> None:
    """End everything that every search has."""
    for _ in (*UNTUNED, DEFAULTS):
        found = study.next(space, 100)
        assert found
        found.finish(value)


def drawn(study: Study, space: Space = SPACE, limit: float = 100) -> Running:
    found = study.next(space, limit)
    assert found
    assert found.kind == DRAWN
    return found


# ── the order of trials ──────────────────────────────────────────────────────────────────────────────────────────────

def test_what_needs_no_training_comes_first_then_the_defaults(tmp_path: Path) -> None:
    study = study_in(tmp_path, defaults={"training.learning_rate": 1e-3})
    kinds = []
    for _ in range(6):
        found = study.next(SPACE, 100)
        assert found
        kinds.append((found.kind, found.values))
        found.finish(0.5)
    assert [kind for kind, _ in kinds] == [*UNTUNED, DEFAULTS, DRAWN, DRAWN]
    assert kinds[3][1] == {"training.learning_rate": 1e-3}
    rates = [values["training.learning_rate"] for _, values in kinds[4:]]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert rates[0] != rates[1]
    [taught] = [one for one in study.study.trials if one.user_attrs["kind"] == DEFAULTS]
    assert taught.params == {"training.learning_rate": 1e-3}


def test_a_limit_counts_the_defaults_and_what_was_drawn(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study)
    drawn(study, limit=3).finish(0.1)
    drawn(study, limit=3).fail("no")
    assert study.next(SPACE, 3) is None
    assert drawn(study, limit=4)


def test_the_best_is_the_best_and_of_equals_the_earliest(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study, value=0.5)
    for value in (0.4, 0.7, 0.7, 0.5):
        drawn(study).finish(value)
    best, untuned = study.best(DEFAULTS, DRAWN), study.best(*UNTUNED)
    assert best
    assert untuned
    assert (best.number, best.value) == (5, 0.7)
    assert untuned.number == 0
    lower = tmp_path / "lower"
    lower.mkdir()
    other = study_in(lower, better="lower")
    after_the_defaults(other, value=0.5)
    drawn(other).finish(0.4)
    found = other.best(DEFAULTS, DRAWN)
    assert found
    assert found.value == 0.4


def test_no_recipe_of_few_is_tried_twice(tmp_path: Path) -> None:
    study = study_in(tmp_path, CHOICES, {"method.rank": 2, "training.warmup": 0.1})
    seen = []
    while found := study.next(CHOICES, 100):
        if found.kind not in UNTUNED:
            seen.append(tuple(found.values.values()))
        found.finish(0.5)
    assert seen[0] == (2, 0.1)
    assert sorted(seen) == [(2, 0.0), (2, 0.1), (4, 0.0), (4, 0.1)]
    assert sum(one.kind == DRAWN for one in study.trials()) == 3


def test_values_that_are_no_scalars_come_back_as_they_were(tmp_path: Path) -> None:
    study = study_in(tmp_path, TWO, TWO.held({"method": "lora", "method.rank": 2, "training.warmup": 0.0}))
    seen = []
    while found := study.next(TWO, 100):
        if found.kind not in UNTUNED:
            seen.append(found.values)
        found.finish(0.5)
    assert seen[0] == {"method": "lora", "method.rank": 2}
    assert {"method": {"kind": "full", "layers": 1}, "training.warmup": 0.1} in seen
    assert len(seen) == 4


def test_a_better_recipe_is_found_than_by_chance(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study, value=-9)
    tried = []
    for _ in range(25):
        found = drawn(study)
        rate = found.values["training.learning_rate"]
        tried.append(rate)
        found.finish(-(rate / 1e-2 - 1) ** 2)       # best at 1e-2
    assert sum(3e-3 < rate < 2e-2 for rate in tried[10:]) > sum(3e-3 < rate < 2e-2 for rate in tried[:6])


# ── successive halving ───────────────────────────────────────────────────────────────────────────────────────────────

def test_a_trial_goes_on_while_it_is_among_the_best_third(tmp_path: Path) -> None:
    """Looks 1 and 3 are compared. At look 1 the values come as 0.5, 0.4, 0.6, 0.3, 0.7, 0.65: of one or two the best
    goes on, of three to five the best, of six the best two.
    """
    study = study_in(tmp_path)
    after_the_defaults(study)
    goes_on = []
    for value in (0.5, 0.4, 0.6, 0.3, 0.7, 0.65):
        found = drawn(study)
        stopped = found.look(1, value)
        goes_on.append(not stopped)
        if stopped:
            found.stop("worse")
        else:
            assert not found.look(2, 0.0)       # nobody is compared at look 2
            found.finish(value)
    assert goes_on == [True, False, True, False, True, True]
    states = [one.state for one in study.trials() if one.kind == DRAWN]
    assert states == ["finished", "stopped", "finished", "stopped", "finished", "finished"]


def test_look_3_is_compared_again(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study)
    first, second = drawn(study), drawn(study)
    assert not first.look(1, 0.5)
    assert not first.look(3, 0.9)
    assert not second.look(1, 0.6)
    assert second.look(3, 0.8)


def test_lower_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    study = study_in(tmp_path, better="lower")
    after_the_defaults(study)
    assert not drawn(study).look(1, 0.5)
    assert drawn(study).look(1, 0.6)
    assert not drawn(study).look(1, 0.4)


def test_the_defaults_are_never_stopped_but_compared_with(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for _ in UNTUNED:
        found = study.next(SPACE, 100)
        assert found
        found.finish(0.9)
    defaults = study.next(SPACE, 100)
    assert defaults
    assert not defaults.look(1, 0.2)
    assert drawn(study).look(1, 0.1)
    assert not defaults.look(3, 0.0)


# ── what survives ────────────────────────────────────────────────────────────────────────────────────────────────────

def test_a_resumed_study_keeps_what_is_finished_and_retries_what_was_cut_off(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study)
    drawn(study).finish(0.7)
    lost = drawn(study)
    lost.note(seconds=3.0, tokens=100)
    again = Study(tmp_path)
    assert again.recover(SPACE, {}) == [lost.number]
    known = again.trials()
    assert [one.value for one in known[:5]] == [0.5, 0.5, 0.5, 0.5, 0.7]
    assert (known[5].state, known[5].why, known[5].seconds, known[5].tokens) == ("failed", CUT_OFF, 3.0, 100)
    retried = drawn(again)
    assert retried.values == lost.values
    assert retried.number > lost.number
    assert again.recover(SPACE, {}) == [retried.number]         # cut off once more
    third = drawn(again)
    assert third.values == lost.values
    again.recover(SPACE, {})
    assert drawn(again).values != lost.values                   # three times is enough


def test_defaults_that_were_cut_off_are_tried_until_they_end(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for _ in range(4):
        kinds = []
        while (found := study.next(SPACE, 1)) is not None:
            kinds.append(found.kind)
            if found.kind == DEFAULTS:
                break
            found.finish(0.5)
        assert kinds[-1] == DEFAULTS
        study = study_in(tmp_path)
    assert study.next(SPACE, 1).kind == DEFAULTS  # type: ignore[union-attr]
    assert study.next(SPACE, 1) is None


def test_a_cut_off_trial_does_not_count_against_the_limit(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    after_the_defaults(study)
    drawn(study, limit=2)
    study = study_in(tmp_path)
    drawn(study, limit=2).finish(0.6)
    assert study.next(SPACE, 2) is None


def test_a_process_that_is_killed_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from tuneloop.search_space import Branch, Dimension, Space
from tuneloop.search_study import Study
space = Space((), (Branch(None, None, (Dimension("training.warmup", "training.warmup", low=0.1, high=0.9),)),))
study = Study(Path({str(tmp_path)!r}))
study.recover(space, {{}})
for _ in range(5):
    study.next(space, 100).finish(0.25)
study.next(space, 100).look(1, 0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    study = Study(tmp_path)
    space = Space((), (Branch(None, None, (Dimension("training.warmup", "training.warmup", low=0.1, high=0.9),)),))
    assert study.recover(space, {}) == [5]
    assert [one.value for one in study.trials()[:5]] == [0.25] * 5
    assert drawn(study, space).values == study.trials()[5].values


def test_two_studies_on_one_file_share_their_trials(tmp_path: Path) -> None:
    one, other = study_in(tmp_path), Study(tmp_path)
    first, second = one.next(SPACE, 100, worker=0), other.next(SPACE, 100, worker=1)
    assert first
    assert second
    assert (first.kind, second.kind) == UNTUNED[:2]
    assert one.cut_off(1) == [second.number]
    first.finish(0.3)
    assert other.trials()[0].value == 0.3


def test_a_value_that_is_not_finite_is_no_result(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    found = study.next(SPACE, 100)
    assert found
    with pytest.raises(UserError, match="no finite value"):
        found.finish(float("nan"))


def test_importances_need_some_trials_and_name_the_keys(tmp_path: Path) -> None:
    warmup = Dimension("training.warmup", "training.warmup@lora", low=0.0, high=1.0)
    space = Space((), (Branch(None, None, (RATE, warmup)),))
    study = study_in(tmp_path, space)
    after_the_defaults(study, space)
    assert study.importances() == {}
    for _ in range(12):
        found = drawn(study, space)
        found.finish(found.values["training.warmup"])
    importances = study.importances()
    assert set(importances) == {"training.learning_rate", "training.warmup"}
    assert importances["training.warmup"] > importances["training.learning_rate"]


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"tuneloop\[hpo\]") as caught:
        Study(tmp_path)
    assert caught.value.exit_code == 2


# ── what may be spent ────────────────────────────────────────────────────────────────────────────────────────────────

def trial(kind: str, seconds: float, tokens: int = 0, state: str = "finished") -> Trial:
    return Trial(0, kind, state, 0.5 if state == "finished" else None, {}, seconds, tokens)


def test_the_runs_at_the_end_are_kept_back() -> None:
    """The defaults take 60 s: 3 seeds of two recipes take 6 minutes. Of 10 minutes, 3 are left for trials of 60 s."""
    now = time.time()
    known = [trial("base", 10), trial(DEFAULTS, 60)]
    assert Purse({"minutes": 10}, 3, now).is_over([]) == ""
    assert Purse({"minutes": 10}, 3, now - 2.9 * 60).is_over(known, another=True) == ""
    assert Purse({"minutes": 10}, 3, now - 3.1 * 60).is_over(known, another=True) == "minutes"
    assert Purse({"minutes": 10}, 3, now - 3.9 * 60).is_over(known) == ""
    assert Purse({"minutes": 10}, 3, now - 4.1 * 60).is_over(known) == "minutes"
    assert Purse({"minutes": 10}, 3, now, before_seconds=4.1 * 60).is_over(known) == "minutes"


def test_tokens_and_money_are_bounds_too() -> None:
    known = [trial(DEFAULTS, 36, tokens=1000), trial(DRAWN, 36, tokens=500, state="stopped")]
    now = time.time()
    assert Purse({"tokens": 8249}, 3, now).is_over(known, another=True) == "tokens"     # 1500 + 6000 + 750
    assert Purse({"tokens": 8251}, 3, now).is_over(known, another=True) == ""
    hour = Purse({"usd": 1.0}, 3, now - 1800, usd_per_hour=2.0)     # a dollar is spent, and 6 x 2 cents are to come
    assert hour.spent(known)["usd"] == pytest.approx(1.0, abs=1e-3)
    assert hour.kept_back(known)["usd"] == pytest.approx(0.12)
    assert hour.is_over(known) == "usd"
    assert Purse({"usd": 1.13}, 3, now - 1800, usd_per_hour=2.0).is_over(known) == ""
    assert Purse({}, 3, now - 1e6).is_over(known) == ""
