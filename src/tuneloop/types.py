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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Denominator = Literal["weight", "branch", "group"]
"""What a sum over a batch is divided by: the supervised weight, the branches or the groups of the optimizer step."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from; `line` counts from 1 in the file as the user sees it in an editor.

    `row` is a short hash of what the row holds in its file, whatever a prompt makes of it; of rows put together those
    of all, one after the other.
    """

    file: str
    line: int
    row: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that an assistant turn calls."""

    name: str
    arguments: str              # the text of a JSON object
    id: str = ""


@dataclass(frozen=True, slots=True)
class Media:
    """An image, a sound or a film that a turn shows."""

    kind: str                   # image | audio | video
    where: str                  # a path, a URL, or a data: URI


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` says whether an assistant turn carries loss; other turns never do."""

    role: str
    content: str
    train: bool = True
    calls: tuple[ToolCall, ...] = ()
    media: tuple[Media, ...] = ()
    call_id: str = ""           # of a tool's turn: the call that it answers
    name: str = ""              # of the tool that speaks


@dataclass(frozen=True, slots=True)
class Conversation:
    """A sample for instruction tuning: turns that end with the assistant's answer."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[str, ...] = ()         # the JSON text of each function that the model may call

    @property
    def answer(self) -> str:
        """The last assistant turn: what a model should say to `prompt`."""
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]


@dataclass(frozen=True, slots=True)
class Preference:
    """A sample for preference objectives: two answers to one prompt, of which people prefer the first."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    origin: Origin
    margin: float = 0.0         # how much better, where annotators said so

    @property
    def answer(self) -> str:
        """The preferred answer."""
        return self.chosen


@dataclass(frozen=True, slots=True)
class Rated:
    """A sample whose one answer people liked or did not (KTO)."""

    prompt: tuple[Message, ...]
    answer: str
    desirable: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class Rollout:
    """A prompt and answers that a policy sampled for it, each with its reward: what PPO, GRPO and RLOO train on."""

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    rewards: tuple[float, ...]
    origin: Origin

    @property
    def answer(self) -> str:
        """The answer with the highest reward."""
        return self.answers[max(range(len(self.rewards)), key=self.rewards.__getitem__)]

    @property
    def has_contrast(self) -> bool:
        """Whether some answer was rewarded more than another."""
        return len(set(self.rewards)) > 1


@dataclass(frozen=True, slots=True)
class Ranked:
    """A prompt and answers that people put in order, the best first."""

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    origin: Origin

    @property
    def answer(self) -> str:
        """The best answer."""
        return self.answers[0]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question of an evaluation set, with the answers that count as right; nothing is learnt from it."""

    prompt: tuple[Message, ...]
    references: tuple[str, ...]
    origin: Origin

    @property
    def answer(self) -> str:
        """The first right answer, or nothing."""
        return self.references[0] if self.references else ""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text for continued pre-training. `source` cites the passage: `guide.pdf page 3`."""

    text: str
    origin: Origin
    source: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Nothing is asked."""
        return ()

    @property
    def answer(self) -> str:
        """All of it is to be learnt."""
        return self.text


Learnt = Conversation | Preference | Rated | Rollout
"""What objectives learn from."""
Sample = Learnt | Ranked | Prompt | Text
"""What a row may be."""


def tools_of(sample: Sample) -> tuple[str, ...]:
    """The JSON text of each function that a model may call when it answers."""
    return sample.tools if isinstance(sample, Conversation) else ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A sample as tokens. `weights[i]` is the loss weight of `ids[i]` as a target; 0 marks the prompt.

    `named` holds what an objective needs beside the tokens: () numbers of the whole sample (a margin, a reward), or
    (supervised, ...) arrays aligned with its supervised tokens (reference log-probs, advantages).
    """

    ids: Ints           # (n,)
    weights: Floats     # (n,)
    origin: Origin | None = None
    named: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last_answer(self) -> Ints:
        """The ids after the last one that carries no loss."""
        prompt = np.flatnonzero(self.weights == 0)
        return self.ids[int(prompt[-1]) + 1:] if len(prompt) else self.ids

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return int(np.count_nonzero(self.weights))


@dataclass(frozen=True, slots=True)
class Group:
    """What an optimizer step draws: the branches that one term of a loss is about, in the objective's order.

    One branch for instruction tuning; chosen and rejected; the completions of a prompt. `probes` carry no loss: they
    are scored without gradient before the step (KTO's mismatched answers).
    """

    branches: tuple[Rendered, ...]
    probes: tuple[Rendered, ...] = ()


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
    named: Mapping[str, Any] = field(default_factory=dict)      # (B,) or (M, ...) columns of the samples

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

    def by_branch(self, column: Any) -> list[Any]:
        """A column (M, ...) as one array (supervised, ...) for each branch."""
        return np.split(column, np.cumsum(np.bincount(self.branch_of, minlength=self.branches))[:-1])


@dataclass(frozen=True, slots=True)
class Piece:
    """One forward of an optimizer step. Its first `given` tokens were computed by the piece `parent` (-1: none).

    A piece without samples is a trunk: a prefix that several later pieces start from.
    """

    forest: Forest
    samples: list[int]      # the branches of the forest, as positions among the samples of the step
    given: int = 0
    parent: int = -1

    @property
    def computed_tokens(self) -> int:
        """Tokens that this piece itself computes."""
        return self.forest.unique_tokens - self.given


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
    group_of: torch.Tensor        # (B,) ascending; branches of a group are neighbours, in the group's own order
    score_at: torch.Tensor        # (B,)
    named: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)    # what the objective's `step_stats` gave for this step

    @property
    def branches(self) -> int:
        return self.forest.branches

    @property
    def reference(self) -> Outputs:
        """The reference model's log-probs, which the loop put into `named`."""
        return Outputs(self.named["reference_logprobs"], self.branch_of, self.branches)

    def pairs(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) values of groups of two -> those of the first branches and of the second, each (G,)."""
        first, second = values.view(-1, 2).unbind(1)
        return first, second


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the wrapper computed for a batch. Optional fields are there when the objective's `needs` name them."""

    logprobs: torch.Tensor                      # (M,) log p(target | everything before it on its branch)
    branch_of: torch.Tensor                     # (M,)
    branches: int
    entropy: torch.Tensor | None = None         # (M,) of the distribution that predicts the target, in nats
    mean_logprobs: torch.Tensor | None = None   # (M,) mean of log p over the vocabulary
    selected: torch.Tensor | None = None        # (M, K) log p of the tokens in `batch.named["select_ids"]`
    top_ids: torch.Tensor | None = None         # (M, top) the most likely tokens, where they were asked for
    top_logprobs: torch.Tensor | None = None    # (M, top)
    values: torch.Tensor | None = None          # (M,) of the scalar head, where the target is predicted
    scores: torch.Tensor | None = None          # (B,) of the scalar head, at the end of the branch

    def per_branch(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """Sum over the supervised tokens of each branch, (B,): of their log-probs, or of `values` (M,)."""
        values = self.logprobs if values is None else values
        return values.new_zeros(self.branches).index_add(0, self.branch_of, values)

    def mean_per_branch(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """The same as a mean over the branch's supervised tokens, (B,)."""
        total = self.per_branch(values)
        return total / self.per_branch(self.logprobs.new_ones(len(self.logprobs))).to(total.dtype)


@dataclass(frozen=True, slots=True)
class LossOutput:
    """Sums over a batch, not means: the loop divides by the objective's denominator over the whole optimizer step.

    `sums` are shown in the metrics, divided by the same denominator unless `per` names another one for them.
    """

    loss: torch.Tensor                                                  # () sum
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)      # () each
    per: Mapping[str, Denominator] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must look like, exactly one of: a JSON schema (as text), a regular expression, some choices."""

    json_schema: str = ""
    regex: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. Greedy when `temperature` is 0. The order is: temperature, top_k, top_p, min_p.

    What comes out depends on the prompt and on these alone, not on what else is in the batch.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0                      # 0: all tokens
    min_p: float = 0.0                  # tokens less likely than this share of the likeliest are left out
    stop: tuple[str, ...] = ()          # an answer ends before the first of these
    top_logprobs: int = 0               # report so many of the likeliest tokens at every place
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model: the turns before its answer, and the JSON texts of the functions it may call."""

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    rows: tuple[str, ...] = field(default=(), compare=False)
    """`Origin.row` of every row whose texts stand in it, so that answers go when a row is purged; () says nothing."""


def request_of(row: Sample) -> Request:
    """What a row asks, without its answer."""
    return Request(row.prompt, tools_of(row), (row.origin.row,))


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated answer."""

    text: str
    token_ids: tuple[int, ...]          # without the one that ends the turn; empty where a server names none
    stopped: bool                       # True: the model ended its turn or met a stop; False: cut at max_new_tokens
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """Nats, of `token_ids`, as the model gave them before temperature and cuts."""
    top: tuple[tuple[tuple[int, float], ...], ...] = field(default=(), compare=False)
    """At every place the likeliest (token, log-prob)."""
    prompt_tokens: int = 0
    new_tokens: int = 0                 # generated, the end of the turn included
    seconds: float = field(default=0.0, compare=False)      # from the request to its end, waiting included
    end: tuple[int, float] | None = field(default=None, compare=False)      # the token that ended it, its log-prob


@dataclass(frozen=True, slots=True)
class Scored:
    """How likely a given answer is after its prompt: log-probs in nats, summed over its tokens."""

    total: float                # with the token that ends the turn
    without_end: float
    tokens: int                 # with the token that ends the turn


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model (or rival) answered on the test rows, aligned with them.

    `nll` is the sum in nats of -log p over the `tokens[i]` tokens of the reference answer with its end of turn; both
    are None for a rival that is no language model. `stopped` is None where the answer was chosen and not generated.
    `rewards` are there where the recipe has some.
    """

    name: str                                 # base | tuned | rival ...
    texts: list[str]                          # of a pair of answers the one that the model prefers
    nll: list[float] | None = None
    tokens: list[int] | None = None
    stopped: list[bool] | None = None
    confidence: list[float] | None = None     # probability of the chosen answer among the choices
    new_tokens: list[int] | None = None       # generated for each answer
    seconds: list[float] | None = None        # each answer took, alone or in a batch as it was asked
    rewards: list[float] | None = None        # of each answer, by the recipe's graders
