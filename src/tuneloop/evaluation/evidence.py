"""What a certificate is made of, put together: the answers of every model, the suites, and the rows in slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.evaluation.certificate import Retained, Task, certify, goal_metric, stacks_of
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.safety.drop import safety
from tuneloop.evaluation.slices import by_slice, slices_of
from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.catalog import before_after, forgetting
from tuneloop.types import Answers, Sample

Gradings = Mapping[str, Sequence[Graded]]


@dataclass(frozen=True)
class Evidence:
    """Answers of base, tuned model and other contenders to the test rows, and both models' suites (before, after)."""

    goal: Goal
    task: Task
    references: Sequence[str]
    models: Sequence[Answers]
    samples: Sequence[Sample]
    metrics: Sequence[str]
    suites: tuple[Gradings, Gradings]
    resamples: int
    seed: int
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)       # of the user's, to slice by

    def certify(self, *, used_before: int, context: dict[str, Any]) -> dict[str, Any]:
        """The certificate: see `certificate.certify`."""
        kept, safe = self._of(False), self._of(True)
        how: dict[str, Any] = {"resamples": self.resamples, "seed": self.seed}
        retained = Retained(forgetting(*kept, **how), safety(*safe, **how) if safe[0] else None)
        changes = [change.to_json() for change in before_after(*kept, **how)]
        return certify(self.goal, self.task, self.references, self.models, samples=self.samples, metrics=self.metrics,
                       retained=retained, used_before=used_before, context={
                           "suites": changes, "slices": self._slices()} | context, **how)

    def _of(self, is_safety: bool) -> tuple[Gradings, Gradings]:
        """The suites of one kind that were asked both times: what was left out once cannot be compared."""
        before, after = self.suites
        names = [name for name in before if name in after and (name in SAFETY) == is_safety]
        return {name: before[name] for name in names}, {name: after[name] for name in names}

    def _slices(self) -> dict[str, Any] | None:
        """The goal's metric of base and tuned model on parts of the rows; None where there is no part."""
        two = [model for model in self.models if model.name in ("base", "tuned")]
        slices = slices_of(labels=self.references if self.task == "labels" else (),
                           files=[sample.origin.file for sample in self.samples],
                           prompts=[sample.prompt[-1].content for sample in self.samples if sample.prompt],
                           language=_language(), columns=self.columns)
        metric = goal_metric(self.goal, self.task)
        [stack] = [one for one in stacks_of(self.task, self.references, two, self.samples, [metric])[0]
                   if one.metric == metric]
        return by_slice(stack, slices, resamples=self.resamples, seed=self.seed).to_json() if slices else None


def _language() -> Any:
    from tuneloop.data.checks._languages import detector

    try:
        return detector()
    except ImportError:     # an extra; a slice by language says nothing then
        return None
