"""What flows between the stages: samples from data, rendered tokens, the forest batch, and what a model returns.

Index conventions, used everywhere:

- T  tokens laid flat in a forest (each shared prefix once); `position_ids` count from the start of a token's own path.
- S  segments (nodes of the trees), depth first: a segment's tokens are `[start, end)` and the tokens of everything
     below it are `[end, below)`, contiguous, so that "all descendants of a node" is one slice.
- B  branches: one root-to-leaf path, that is one rendered sample, in the order the samples were given.
- M  pairs (branch, supervised token). `predict_at[m]` is the flat index of the token whose hidden state predicts
     `targets[m]`; it may repeat, because branches that fork share the token before the fork.

Targets are not inputs: the last target of a branch is never fed, since nothing after it is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from; `line` counts from 1 in the file as the user sees it in an editor."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` says whether an assistant turn carries loss; other turns never do."""

    role: str
    content: str
    train: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """A sample for instruction tuning: turns that end with the assistant's answer."""

    messages: tuple[Message, ...]
    origin: Origin

    @property
    def answer(self) -> str:
        """The last assistant turn: what a model should say to `prompt`."""
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A sample as tokens. `weights[i]` is the loss weight of `ids[i]` as a target; 0 marks the prompt."""

    ids: Ints           # (n,)
    weights: Floats     # (n,)
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return int(np.count_nonzero(self.weights))


@dataclass(frozen=True, slots=True)
class Segments:
    """The trees of a forest, depth first, as in the module docstring; `parent` is -1 at roots."""

    start: Ints         # (S,)
    end: Ints           # (S,)
    below: Ints         # (S,) end of the last descendant's tokens; equal to `end` at leaves
    parent: Ints        # (S,)

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.start.tolist(), self.end.tolist(), self.below.tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class Forest:
    """Token trees laid flat, without padding; numpy, so that packing needs no torch. Shapes: module docstring."""

    input_ids: Ints         # (T,)
    position_ids: Ints      # (T,)
    multiplicity: Ints      # (T,) how many branches go through the token
    segments: Segments
    predict_at: Ints        # (M,)
    targets: Ints           # (M,)
    weights: Floats         # (M,)
    branch_of: Ints         # (M,)
    score_at: Ints          # (B,) flat index of the last input token of each branch
    group_of: Ints          # (B,) branches of one group (a pair, the completions of a prompt) share a number

    @property
    def unique_tokens(self) -> int:
        """Tokens that are computed."""
        return len(self.input_ids)

    @property
    def logical_tokens(self) -> int:
        """Tokens that would be computed with nothing shared."""
        return int(self.multiplicity.sum())

    @property
    def branches(self) -> int:
        return len(self.score_at)


@dataclass(frozen=True, slots=True)
class Batch:
    """A forest on a device. `named` holds further tensors aligned to M or B (reference log-probs, advantages, ...)."""

    forest: Forest
    input_ids: torch.Tensor       # (T,)
    position_ids: torch.Tensor    # (T,)
    predict_at: torch.Tensor      # (M,)
    targets: torch.Tensor         # (M,)
    weights: torch.Tensor         # (M,)
    branch_of: torch.Tensor       # (M,)
    group_of: torch.Tensor        # (B,)
    named: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the wrapper computed for a batch."""

    logprobs: torch.Tensor        # (M,) log p(target | everything before it on its branch)
    branch_of: torch.Tensor       # (M,)
    branches: int

    def per_branch(self) -> torch.Tensor:
        """Sum of the supervised log-probs of each branch, (B,)."""
        return self.logprobs.new_zeros(self.branches).index_add(0, self.branch_of, self.logprobs)


@dataclass(frozen=True, slots=True)
class LossOutput:
    """Sums over a batch, not means: the loop divides by the objective's denominator over the whole optimizer step."""

    loss: torch.Tensor                                            # () sum
    sums: dict[str, Any] = field(default_factory=dict)            # further named sums, for the metrics


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. Greedy when `temperature` is 0."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated answer."""

    text: str
    token_ids: tuple[int, ...]
    stopped: bool                 # True: the model ended its turn; False: it ran into max_new_tokens


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model (or rival) answered on the test rows, aligned with them.

    `nll` is the sum in nats of -log p over the `tokens[i]` tokens of the reference answer with its end of turn; both
    are None for a rival that is no language model. `stopped` is None where the answer was chosen and not generated.
    """

    name: str                                 # base | tuned | rival ...
    texts: list[str]
    nll: list[float] | None = None
    tokens: list[int] | None = None
    stopped: list[bool] | None = None
