"""The trials of a search in a SQLite file of Optuna's: what is tried next, what is stopped early, what survives a kill.

A search asks for trials one by one: first what needs no training and the defaults, then recipes that Optuna's sampler
draws (TPE, Bergstra et al. 2011). Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943; without waiting
for each other, as in arXiv 1810.05934) stops a trial that is not among the best third of those that got as far.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.errors import UserError, missing_extra

if TYPE_CHECKING:
    import optuna

    from tuneloop.search_space import Dimension, Space

UNTUNED = ("base", "few_shot", "optimised_prompt")
DEFAULTS, DRAWN = "defaults", "drawn"
KEPT_OF_LOOK = 3            # one of so many goes on; at looks 1, 3, 9, ...
STARTUP = 6                 # recipes drawn at random, before the sampler learns from them
ATTEMPTS = 3                # of a recipe whose trial is cut off
MOST_POINTS = 10_000        # of a space whose recipes are counted one by one
REPEATED, CUT_OFF = "tried before", "cut off"
FILE, NAME = "study.db", "search"


@dataclass(frozen=True)
class Trial:
    """What is known of a trial. `state` is finished, stopped, failed, running or waiting."""

    number: int
    kind: str                           # of UNTUNED, DEFAULTS or DRAWN
    state: str
    value: float | None                 # on the validation rows
    values: dict[str, Any]              # by key of the recipe
    seconds: float = 0.0
    tokens: int = 0
    looks: dict[int, float] = field(default_factory=dict)
    why: str = ""                       # it failed or was stopped

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Running:
    """A trial that is under way."""

    def __init__(self, study: Study, trial: optuna.Trial, kind: str, values: dict[str, Any]) -> None:
        self.study, self.trial, self.kind, self.values = study, trial, kind, values

    @property
    def number(self) -> int:
        return int(self.trial.number)

    def look(self, count: int, value: float) -> bool:
        """Note what the `count`-th look found; whether others were better at that point. The defaults always go on."""
        self.trial.report(value, count)
        worse = self.trial.should_prune()
        return worse and self.kind == DRAWN

    def note(self, **spent: float) -> None:
        """Seconds and tokens so far, which count even if the process is killed."""
        for name, value in spent.items():
            self.trial.set_user_attr(name, value)

    def finish(self, value: float) -> None:
        self.study.tell(self.trial, value)

    def stop(self, why: str) -> None:
        """End a trial that others have left behind, or that cannot go on learning."""
        self.trial.set_user_attr("why", why)
        self.study.tell(self.trial, None, "PRUNED")

    def fail(self, why: str) -> None:
        self.trial.set_user_attr("why", why)
        self.study.tell(self.trial, None, "FAIL")


class Study:
    """All trials of a search. Several processes may open one file."""

    def __init__(self, folder: Path, *, better: str = "higher", seed: int = 0) -> None:
        """Open the study in `folder`, or begin one. Raises a UserError where Optuna is not there."""
        try:
            import optuna
        except ImportError as error:
            raise missing_extra("optuna", "hpo", "tuneloop search") from error
        from filelock import FileLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self.folder, self.seed = optuna, folder, seed
        self._lock = FileLock(folder / ".ask.lock")
        with self._lock:
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{folder / FILE}",
                                                       engine_kwargs={"connect_args": {"timeout": 60}})
            self.study = optuna.create_study(
                storage=self._storage, study_name=NAME, load_if_exists=True,
                direction="minimize" if better == "lower" else "maximize",
                pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=KEPT_OF_LOOK))
        self.higher = self.study.direction == optuna.study.StudyDirection.MAXIMIZE
        self.study.sampler = self._sampler()

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """A seed of its own for every trial there is: a resumed study must not draw again what it drew first."""
        return self._optuna.samplers.TPESampler(seed=self.seed + len(self._all()), n_startup_trials=STARTUP)

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────────────

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they began; those that were found to repeat another are left out."""
        return [one for one in map(self._told, self._all()) if one.why != REPEATED]

    def _all(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        wanted = tuple(getattr(self._optuna.trial.TrialState, state) for state in states)
        return self.study.get_trials(deepcopy=False, states=wanted or None)

    def _told(self, trial: optuna.trial.FrozenTrial) -> Trial:
        states = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed"}
        noted, looks = trial.user_attrs, trial.intermediate_values
        done = trial.state.name == "COMPLETE"
        return Trial(trial.number, noted.get("kind", DRAWN), states.get(trial.state.name, trial.state.name.lower()),
                     trial.value if done else None, json.loads(noted.get("values", "{}")), noted.get("seconds", 0.0),
                     int(noted.get("tokens", 0)), dict(looks), noted.get("why", ""))

    def best(self, *kinds: str) -> Trial | None:
        """The best finished trial of these kinds; of equals the earliest."""
        found = [one for one in self.trials() if one.kind in kinds and one.value is not None]
        return min(found, key=lambda one: (-self.sign * (one.value or 0.0), one.number), default=None)

    @property
    def sign(self) -> int:
        """1 where higher values are better, -1 where lower ones are."""
        return 1 if self.higher else -1

    # ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, space: Space, defaults: Mapping[str, Any]) -> list[int]:
        """Mark trials that were cut off as failed, and ask for them again; and for those that every search has.

        `defaults` are the values of the recipe itself, as far as they are in the space. Only for a process that knows
        of no other at work on the study.
        """
        cut_off = [trial.number for trial in self._all("RUNNING")]
        for number in cut_off:
            self.again(number)
        for kind in (*UNTUNED, DEFAULTS):
            if not any(one.kind == kind and one.why != CUT_OFF for one in self.trials()):
                fixed = space.named(defaults) if kind == DEFAULTS else []
                self.study.enqueue_trial({one.name: _encoded(one, value) for one, value in fixed},
                                         user_attrs={"kind": kind, "values": json.dumps(dict(defaults))})
        return cut_off

    def cut_off(self, worker: int) -> list[int]:
        """The trials that a worker has begun and not ended."""
        return [one.number for one in self._all("RUNNING") if one.user_attrs.get("worker") == worker]

    def again(self, number: int) -> None:
        """Mark a trial that was cut off as failed, and ask for its recipe again."""
        trial = self._all()[number]
        attempt, kind = trial.user_attrs.get("attempt", 1), trial.user_attrs.get("kind", DRAWN)
        known = any(one.user_attrs.get("retry_of") == number for one in self._all())
        if not known and (kind != DRAWN or (trial.params and attempt < ATTEMPTS)):
            noted = {"kind": kind, "attempt": attempt + 1, "retry_of": number}
            self.study.enqueue_trial(trial.params, user_attrs=noted | (
                {"values": trial.user_attrs["values"]} if "values" in trial.user_attrs else {}))
        study_id = self._storage.get_study_id_from_name(NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self._storage.set_trial_user_attr(trial_id, "why", CUT_OFF)
        self.study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def next(self, space: Space, limit: float, worker: int = 0) -> Running | None:
        """The next trial; None where there is none left, or `limit` recipes have been tried."""
        while True:
            with self._lock:
                if not self._all("WAITING") and self._tried() >= limit:
                    return None
                self.study.sampler = self._sampler()
                trial = self.study.ask()
                kind = trial.user_attrs.get("kind", DRAWN)
                trial.set_user_attr("kind", kind)
                trial.set_user_attr("worker", worker)
                running = Running(self, trial, kind, self._values(trial, kind, space))
                trial.set_user_attr("values", json.dumps(running.values))
                if kind != DRAWN or "retry_of" in trial.user_attrs or not self._is_known(running):
                    return running
                running.fail(REPEATED)
                if not self._ask_for_another(space):
                    return None

    def _tried(self) -> int:
        """Recipes that count against a limit: all but those that were cut off."""
        return sum(one.kind in (DEFAULTS, DRAWN) and one.state != "waiting" and one.why != CUT_OFF
                   for one in self.trials())

    def _values(self, trial: optuna.Trial, kind: str, space: Space) -> dict[str, Any]:
        if kind == DRAWN:
            return space.draw(lambda one: _suggested(trial, one))
        values: dict[str, Any] = json.loads(trial.user_attrs.get("values", "{}"))
        for one, _ in space.named(values):      # so that the sampler knows what the defaults are
            _suggested(trial, one)
        return values

    def _is_known(self, new: Running) -> bool:
        return any(one.values == new.values and one.kind in (DEFAULTS, DRAWN) and one.number != new.number
                   and one.why != CUT_OFF for one in self.trials())

    def _ask_for_another(self, space: Space) -> bool:
        """Ask for a recipe that nobody has tried; whether there is one."""
        if space.points > MOST_POINTS:
            return True
        known = [one.values for one in self.trials() if one.kind in (DEFAULTS, DRAWN)]
        left = [values for values in space.every() if values not in known]
        if not left:
            return False
        values = left[int(np.random.default_rng(self.seed + len(self._all())).integers(len(left)))]
        self.study.enqueue_trial({one.name: _encoded(one, value) for one, value in space.named(values)},
                                 user_attrs={"kind": DRAWN})
        return True

    def tell(self, trial: optuna.Trial, value: float | None, state: str = "COMPLETE") -> None:
        """The end of a trial."""
        if value is not None and not np.isfinite(value):
            raise UserError(f"Trial {trial.number} has no finite value.")
        self.study.tell(trial, value, getattr(self._optuna.trial.TrialState, state))

    def importances(self) -> dict[str, float]:
        """How much of what differs between trials goes with each key, by PED-ANOVA (Watanabe et al. 2023, arXiv
        2304.10255); nothing where too few trials have finished.
        """
        if sum(bool(one.params) for one in self._all("COMPLETE")) < 2 * STARTUP:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
                evaluator = self._optuna.importance.PedAnovaImportanceEvaluator()
                found = self._optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except (RuntimeError, ValueError):      # such as where all trials have one value
            return {}
        return {name.partition("@")[0]: float(value) for name, value in found.items()}


def _encoded(dimension: Dimension, value: Any) -> Any:
    """Optuna keeps scalars; other choices are kept as their JSON."""
    return value if all(isinstance(one, str | int | float | bool | None) for one in dimension.choices) else \
        json.dumps(value, sort_keys=True)


def _suggested(trial: optuna.Trial, one: Dimension) -> Any:
    """The value of a dimension that Optuna's sampler draws, or that was asked for."""
    if one.choices:
        by_code = {_encoded(one, choice): choice for choice in one.choices}
        return by_code[trial.suggest_categorical(one.name, list(by_code))]
    if one.whole:
        return trial.suggest_int(one.name, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(one.name, one.low, one.high, log=one.log)
