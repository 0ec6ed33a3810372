"""What prefix and prompt tuning have in common: virtual tokens above every row, which PEFT holds, trains and saves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import Field

from tuneloop.errors import UserError
from tuneloop.methods._peft import PeftMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tuneloop.models.shape import Shape
    from tuneloop.types import Rendered

ROOM = 64
"""Positions that must be left for rows; fewer hold no question with its answer."""


class VirtualMethod(PeftMethod):
    """A frozen base behind `tokens` learnt virtual ones."""

    mergeable: ClassVar[bool] = False
    space: ClassVar[Mapping[str, Any]] = {"tokens": [8, 20, 50]}

    tokens: Annotated[int, Field(ge=1)] = 20
    """How many virtual tokens; every row has as many positions fewer."""

    @abstractmethod
    def begin(self, model: nn.Module, seed: int, rows: Sequence[Rendered]) -> None:
        """Give the virtual tokens of a PEFT model their first values."""

    @property
    def slots(self) -> int:
        return self.tokens

    def check(self, shape: Shape) -> None:
        super().check(shape)
        check_room("method.tokens", self.tokens, shape)

    def apply(self, model: nn.Module, seed: int, rows: Sequence[Rendered] = ()) -> nn.Module:
        tuned = super().apply(model, seed, rows)
        self.begin(tuned, seed, rows)
        return tuned


def check_room(option: str, tokens: int, shape: Shape) -> None:
    """Raise a UserError where so many virtual tokens, set by `option`, leave rows too little room."""
    if tokens > shape.max_positions - ROOM:
        raise UserError(f"{option} {tokens} takes almost all of the base's {shape.max_positions} positions.",
                        wanted=f"at least {ROOM} positions left for rows",
                        fix=f"set {option} to {max(1, shape.max_positions - ROOM)} or less; 20 is usual")
    if shape.sliding_window is not None and tokens >= shape.sliding_window:
        raise UserError(f"{option} {tokens} does not fit into the base's attention window of {shape.sliding_window} "
                        "tokens: some layers would see no virtual token with a word.",
                        wanted=f"fewer than {shape.sliding_window}", fix=f"lower {option}; 20 is usual")


def drawn_words(model: nn.Module, count: int, seed: int, rows: Sequence[Rendered]) -> Tensor:
    """So many token ids, drawn from the training rows where there are any, so that rare tokens are rarely taken.

    Real words of the task are a better start than random numbers (arXiv 2101.00190, section 7.4), and common tokens
    better than rare ones (arXiv 2104.08691, section 3.2: from the 5000 most common).
    """
    import numpy as np
    import torch

    table: Any = cast(Any, model).get_input_embeddings()
    known = np.concatenate([row.ids for row in rows]) if rows else np.arange(table.weight.shape[0])
    drawn = np.random.default_rng(seed).choice(known, count)
    return torch.from_numpy(drawn.astype(np.int64)).to(table.weight.device)


def encoder_of(model: nn.Module) -> Any:
    """What makes the virtual tokens of a PEFT model."""
    peft = cast(Any, model)
    return peft.prompt_encoder[peft.active_adapter]
