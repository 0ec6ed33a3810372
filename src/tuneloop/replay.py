"""Replay: the start of a run's training once more, from its record, compared with what it wrote down.

It is a run in a temporary folder that begins where the old one had its plan and its baseline, so that rows, base and
objective are checked by their hashes as for a resumed run, and the schedule is that of the whole training. The folder
of the run is only read.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import TrainingFailed, UserError
from tuneloop.record import RunFolder, environment
from tuneloop.training.watch import Silent, Watcher

ELSEWHERE = 1e-3
"""Relative difference that passes on another machine or other versions, whose sums are rounded in another order; on the
same ones it is 0: the losses are bit-equal."""

_COMPARED = ("loss", "grad_norm", "learning_rate")
_KEPT = ("recipe.yaml", "record.json", "plan.json", "data/findings.json", "evaluation")


@dataclass(frozen=True)
class Difference:
    """A number of a step that the replay computed otherwise."""

    step: int               # from 1
    name: str               # loss | grad_norm | learning_rate
    recorded: float | None  # None where there is no finite number
    replayed: float | None

    @property
    def relative(self) -> float:
        """|replayed − recorded| over the larger of the two; infinite where one is missing."""
        if self.recorded is None or self.replayed is None:
            return math.inf
        return abs(self.replayed - self.recorded) / max(abs(self.recorded), abs(self.replayed))

    def __str__(self) -> str:
        before, after = ("missing" if value is None else repr(value) for value in (self.recorded, self.replayed))
        return f"at step {self.step} the {self.name.replace('_', ' ')} was {before} and is now {after}"


@dataclass(frozen=True)
class Replay:
    """What came of a replay."""

    steps: int                          # compared
    recorded_steps: int                 # that the run had done
    tolerance: float                    # relative
    first: Difference | None            # the first number that is not bit-equal
    beyond: Difference | None           # the first that is further off than the tolerance
    largest: float                      # relative difference
    environment: list[str]              # what differs from the machine and versions of the run

    @property
    def equal(self) -> bool:
        return self.beyond is None

    def to_json(self) -> dict[str, Any]:
        largest = self.largest if math.isfinite(self.largest) else None     # JSON has no infinity
        return {"equal": self.equal, "bit_equal": self.first is None, **asdict(self), "largest": largest}

    def lines(self) -> list[str]:
        """The result in sentences, the verdict first."""
        of = f"{self.steps} of {self.recorded_steps} steps replayed"
        if self.first is None:
            told = [f"EQUAL: {of}; loss, gradient norm and learning rate are bit-equal to metrics.jsonl."]
        elif self.beyond is None:
            told = [f"EQUAL within {self.tolerance:g}: {of}; the largest relative difference is {self.largest:.1e}, "
                    f"the first at step {self.first.step}."]
        else:
            told = [f"NOT EQUAL: {of}; {self.beyond}, a relative difference of {self.beyond.relative:.1e} "
                    f"(allowed: {self.tolerance:g})."]
        if self.environment:
            return [*told, "This is not where the run was made: " + "; ".join(self.environment) + "."]
        if self.beyond is not None:
            told.append("Machine and versions are those of the run. Either metrics.jsonl or the code was changed, or "
                        "the number of threads (OMP_NUM_THREADS) or of processes is another.")
        return told


class _Enough(BaseException):  # no Exception: nothing on its way up may take it for a failure of the training
    """Every step that was asked for has been compared."""


class _Comparing(Silent):
    """A watcher that notes the steps, and ends the training after the last one that is wanted."""

    def __init__(self, steps: int, watch: Watcher) -> None:
        self.steps, self.watch = steps, watch
        self.seen: dict[int, dict[str, Any]] = {}

    def stage(self, name: str, total: int | None) -> None:
        self.watch.stage(name, self.steps if name == "training" else total)

    def advance(self, units: int) -> None:
        self.watch.advance(units)

    def metric(self, entry: dict[str, Any]) -> None:
        self.watch.metric(entry)
        if entry["event"] == "step":
            self.seen[entry["step"]] = entry
            if entry["step"] >= self.steps:
                raise _Enough


def replay(run: RunFolder, steps: int, tolerance: float | None = None, watch: Watcher | None = None) -> Replay:
    """Train the first `steps` optimizer steps of `run` again, or as many as it did, and compare.

    `tolerance` is relative; None asks for bit-equality on the machine and versions of the run, and for `ELSEWHERE` on
    others. Raises a UserError where the run has not trained, or where its rows, base or recipe are not what they were.
    """
    for name in ("record.json", "plan.json"):
        if not run.has(name):
            raise UserError(f"{run.path} has no {name}, so it cannot be replayed.",
                            fix=f"finish it: tuneloop run --resume {run.path}")
    recorded = {line["step"]: line for line in run.lines("metrics.jsonl")
                if line.get("event") == "step" and isinstance(line.get("step"), int)}
    if not recorded:
        raise UserError(f"{run.path} has not trained yet: metrics.jsonl has no step.",
                        fix=f"finish it: tuneloop run --resume {run.path}")
    elsewhere = list(_differences(run.read("record.json").get("environment", {}), environment()))
    if tolerance is None:
        tolerance = ELSEWHERE if elsewhere else 0.0
    done = max(recorded)
    seen = _train(run, min(steps, done), watch or Silent())
    found = [difference for step in range(1, min(steps, done) + 1)
             for difference in _compared(step, recorded.get(step, {}), seen.get(step, {}))]
    return Replay(len(seen), done, tolerance, next(iter(found), None),
                  next((difference for difference in found if difference.relative > tolerance), None),
                  max((difference.relative for difference in found), default=0.0), elsewhere)


def _train(run: RunFolder, steps: int, watch: Watcher) -> dict[int, dict[str, Any]]:
    """The lines of metrics.jsonl of the first `steps` steps, trained in a folder that is removed afterwards."""
    from tuneloop.loop import run as run_loop
    from tuneloop.recipe import load

    with tempfile.TemporaryDirectory(prefix="tuneloop-replay-") as temporary:
        again = RunFolder(Path(temporary) / run.path.resolve().name)
        for name in _KEPT:
            _copy(run.file(name), again.file(name))
        comparing = _Comparing(steps, watch)
        try:
            run_loop(load(again.file("recipe.yaml")), again, comparing, until="train")
        except _Enough:
            pass
        except UserError as error:      # it speaks of the copy, which nobody knows
            kind = TrainingFailed if isinstance(error, TrainingFailed) else UserError
            raise kind(error.found.replace(str(again.path), str(run.path)), wanted=error.wanted,
                       fix=error.fix) from error
        return comparing.seen


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        shutil.copyfile(source, target)


def _compared(step: int, recorded: dict[str, Any], replayed: dict[str, Any]) -> Iterator[Difference]:
    """What is not bit-equal."""
    for name in _COMPARED:
        before, after = (_number(line.get(name)) for line in (recorded, replayed))
        if before != after:
            yield Difference(step, name, before, after)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What differs between two environments, a short sentence each."""
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif old != new:
            yield f"{key} was {old} and is {new}"
