"""What a metric is: how good answers are, row by row and over any resample of the rows.

n test rows, R resamples. A resample is a vector of how often each row was drawn, so that a bootstrap of every metric
of every model is a few matrix products: `Statistic` maps draws (R, n) to values (R,).

To add a metric: one function under `@metric(KIND)`, taking (references, texts), or one `View` with `view=True` where
it needs more than texts. A kind of task is "labels", "open" or "pairs", where the answers are those that a model
prefers; "written" is a metric of labels and open answers alike. The function returns the score of each row, (n,), when
the metric is their mean, or a `Statistic` when it is not. A new file is named in `metrics.py`, which collects them all,
and every metric has its line in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError
from tuneloop.grading.sandbox import Limits
from tuneloop.types import Answers, Sample

Scores = NDArray[np.float64]
Statistic = Callable[[Scores], Scores]
Kind = Literal["labels", "open", "pairs", "written"]
Better = Literal["higher", "lower"] | None      # None: neither is good
Function = Callable[..., Scores | Statistic]
"""(references, texts), or (view,) for a metric that is registered with `view=True`."""

_F = TypeVar("_F", bound=Function)

METRICS: dict[str, Metric] = {}
"""Every metric of answers, by name."""


class Rewarding(Protocol):
    """What rewards answers: `grading.rewards.Rewards`."""

    def measure(self, samples: Sequence[Sample], answers: Sequence[str]) -> Scores:
        """The reward of each answer, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set for the metrics that ask for it."""

    schema: Mapping[str, Any] | None = None         # of `json_schema`: a JSON schema
    tolerance: float = 1e-6                         # of `numeric`: absolute, and relative to the reference
    limits: Limits = field(default_factory=Limits)  # of `code`: of each program
    rewards: Rewarding | None = None                # of `reward`: the graders of a recipe


@dataclass(frozen=True, slots=True)
class View:
    """All that a metric may look at, aligned with the n test rows."""

    references: Sequence[str]
    answers: Answers
    samples: Sequence[Sample] = ()          # the rows themselves; none where only their texts are known
    options: Options = field(default_factory=Options)

    def given(self, what: Literal["nll", "confidence", "stopped", "new_tokens"], metric: str) -> Scores:
        """An optional part of the answers, (n,). Raises a UserError where these answers do not have it."""
        values = getattr(self.answers, what)
        if values is None:
            raise UserError(f"{metric} needs the {_SPOKEN[what]}, which the answers of {self.answers.name} lack.",
                            fix=f"leave {metric} out, or measure a model that {_WHO_HAS[what]}")
        return np.asarray(values, dtype=np.float64)


_SPOKEN = {"nll": "likelihood of the references", "confidence": "confidence of each choice",
           "stopped": "end of each answer", "new_tokens": "number of tokens of each answer"}
_WHO_HAS = {"nll": "says how likely given answers are", "confidence": "chooses among labels",
            "stopped": "writes its answers", "new_tokens": "writes its answers"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by name, for one kind of task."""

    name: str
    kind: Kind
    function: Function
    view: bool = False          # whether the function takes a View
    default: bool = True        # whether it is measured unasked
    better: Better = "higher"
    in_unit: bool = True        # whether values lie in [0, 1]
    needs: str = ""             # a package or an option, beside references and texts

    def fits(self, kind: Kind) -> bool:
        """Whether it measures the answers of such a task."""
        return self.kind == kind or (self.kind == "written" and kind in ("labels", "open"))

    @property
    def grades_rows(self) -> bool:
        """Whether it is the mean of scores of rows in [0, 1], for which texts and rows are enough."""
        by_row = self.function.__annotations__.get("return") in ("Scores", Scores)
        return (self.kind in ("labels", "open") and self.in_unit and self.better == "higher" and by_row
                and self.needs not in _SPOKEN.values() and "options" not in self.needs)

    @property
    def within(self) -> tuple[float, float] | None:
        """The range that values cannot leave, as intervals want it; None if it has no ends."""
        return (0.0, 1.0) if self.in_unit else None

    def statistic(self, references: Sequence[str], answers: Sequence[str]) -> Statistic:
        """The metric of these answers as a function of draws (R, n)."""
        return self.of(View(references, Answers("this model", list(answers))))

    def of(self, view: View) -> Statistic:
        """The metric of a view as a function of draws (R, n). Raises a UserError where it does not fit the view."""
        if len(view.references) != len(view.answers.texts):
            raise ValueError(f"{len(view.references)} references, but {len(view.answers.texts)} answers")
        measured = self.function(view) if self.view else self.function(view.references, view.answers.texts)
        return measured if callable(measured) else mean_of(measured)

    def value(self, references: Sequence[str], answers: Sequence[str]) -> float:
        """The metric over all rows, each once."""
        return self.value_of(View(references, Answers("this model", list(answers))))

    def value_of(self, view: View) -> float:
        """The metric of a view over all rows, each once."""
        return float(self.of(view)(np.ones((1, len(view.references))))[0])


def metric(kind: Kind, *, view: bool = False, default: bool = True, better: Better = "higher", in_unit: bool = True,
           needs: str = "") -> Callable[[_F], _F]:
    """Register a metric under its function's name; the options are those of `Metric`.

    A default metric is measured for every run, so it needs no extra and no option, and lies in [0, 1].
    """
    def register(function: _F) -> _F:
        METRICS[function.__name__] = Metric(function.__name__, kind, function, view, default, better, in_unit, needs)
        return function
    return register


def names(kind: Kind) -> list[str]:
    """The metrics that are measured unasked for a kind of task, the leading one first."""
    return [m.name for m in METRICS.values() if m.fits(kind) and m.default]


def chosen(kind: Kind, asked: Sequence[str]) -> list[Metric]:
    """Metrics by name, for a kind of task. Raises a UserError for a name that is unknown or of another kind."""
    fitting = [m.name for m in METRICS.values() if m.fits(kind)]
    for name in asked:
        if name not in fitting:
            what = f"is for {METRICS[name].kind}, but the answers are {kind}" if name in METRICS else "is not a metric"
            raise UserError(f"{name} {what}.", wanted=f"some of {', '.join(fitting)}")
    return [METRICS[name] for name in asked]


def mean_of(scores: Scores) -> Statistic:
    """The mean of row scores (n,), as a function of draws."""
    return lambda draws: np.asarray(draws @ scores / draws.sum(axis=1))
