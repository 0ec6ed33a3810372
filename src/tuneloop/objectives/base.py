"""What an objective is: a frozen object that turns what the model returned into named sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tuneloop.types import Batch, Conversation, Denominator, LossOutput, Outputs

REDUCERS = frozenset({"logprobs", "entropy", "mean_logprobs", "selected", "values", "scores"})
"""What the wrapper computes on demand, by the names of the fields of `Outputs`.

`logprobs` is always there, except for an objective that needs `scores` alone: a reward model has no use for the
vocabulary, so the head over it is left out, and reading log-probs all the same gives nan.
"""
COLUMNS = frozenset({"reference_logprobs", "old_logprobs", "old_values", "teacher"})
"""What is computed once for the rows before training, unless they bring it along: named tensors of the batch."""

Space = Mapping[str, Any]


class Objective:
    """A loss. To add one, write `objectives/<name>.py` with a frozen dataclass `Objective(base.Objective)`.

    `loss` returns sums over the batch. `denominator` names what the loop divides them by, counted over the whole
    optimizer step and all processes. A group is never split across calls, so how a step is cut into micro-batches
    never changes the result.
    """

    batch_kind: ClassVar[type[Any]] = Conversation
    """The kind of sample it learns from, a type of `tuneloop.types`."""
    pace: ClassVar[float] = 1.0
    """What is planned as the learning rate, as a multiple of the method's own for instruction tuning."""

    space: ClassVar[Space] = {}
    """What `tuneloop search` tries of its options unless told: as in search.space, without `objective.`."""
    compares: ClassVar[bool] = False
    """Whether it learns only from prompts whose answers have different rewards."""

    @property
    def needs(self) -> frozenset[str]:
        """Names out of REDUCERS and COLUMNS."""
        return frozenset()

    @property
    def asks(self) -> dict[str, str]:
        """Models beside the base that it asks about the rows: the need, and the model's name in the recipe."""
        named = {"reference_logprobs": getattr(self, "reference", None), "teacher": getattr(self, "teacher", None)}
        return {need: name for need, name in named.items() if need in self.needs and isinstance(name, str)}

    @property
    def denominator(self) -> Denominator:
        return "weight"

    def step_stats(self, out: Outputs, batch: Batch) -> LossOutput | None:
        """Sums over the probes of the whole step, without gradient, before its first backward; None: no use for them.

        What comes back is divided as a loss is and handed to `loss` as `batch.stats`.
        """
        return None

    def told(self, means: dict[str, float]) -> dict[str, float]:
        """What a line of metrics.jsonl says, made of the means of the sums over an optimizer step."""
        return means

    def loss(self, out: Outputs, batch: Batch) -> LossOutput:
        raise NotImplementedError
