"""What an objective is: a frozen object that turns what the model returned into named sums."""

from __future__ import annotations

from typing import Literal, Protocol

from tuneloop.types import Batch, LossOutput, Outputs


class Objective(Protocol):
    """A loss. To add one, write `objectives/<name>.py` with a frozen dataclass `Objective` of its hyperparameters.

    `loss` returns sums over the batch; `denominator` names what the loop divides them by, counted over the whole
    optimizer step and all processes: the supervised weight, the branches or the groups. So how a step is cut into
    micro-batches never changes the result.
    """

    @property
    def denominator(self) -> Literal["weight", "branch", "group"]: ...

    def loss(self, out: Outputs, batch: Batch) -> LossOutput: ...
