"""Memory and time of a training step by arithmetic. docs/plan.md derives it and says how far it was off.

L layers, d hidden, f feed-forward, V vocabulary, T tokens computed at once, M positions whose logits are computed. What
the blocks keep and make is counted in `plan.block`. A step is looked at in three moments, and the fullest one counts:

    logits      all that the blocks keep, and what the head makes of at most 256 positions at a time: a frozen head the
                logits and their exponentials, 2 x 256 V; one that trains 4 x 256 V, or its own gradient (d V) if larger
    backward    all that the blocks keep, and about two tensors of feed-forward width under way
    optimizer   all gradients, and two tensors as large as the largest that trains, of which AdamW makes its update

With checkpointing only the inputs of blocks are kept, d each, and in the backward one block in full. Gradients of
earlier pieces of the step are there in all three moments.

On top comes what the C library's allocator cannot give back. Below 32 MiB glibc serves tensors from its heap, where the
room of one that was freed is often too small for the next of the same size (an aligned block asks for a little more
than it uses), so a share of what was made in passing stays resident: `Holes`. These shares are no theory: they were
read off runs with and without that heap (MALLOC_MMAP_THRESHOLD_=65536), which differ in nothing else, and off half of
the grid in benchmarks/RESULTS.md, whose other half tests them.

FLOPs: 2 per multiply-add and weight forward, the same again for the gradient to the activations, and once more for the
gradient to weights that train (Kaplan et al. 2020, arXiv 2001.08361); attention 4 per pair of query and key and unit of
width forward, 10 backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.methods.base import MethodMemory
from tuneloop.models.shape import Shape
from tuneloop.plan.block import Tensors, tensors

if TYPE_CHECKING:
    from tuneloop.plan.calibration import Fit

RUNTIME_BYTES = 600 * 2**20     # Python, torch, what else a run imports, and its rows, before any weight
RUNTIME_ERROR = 0.1             # the bar of that to both sides
WORKSPACE_BYTES = 16 * 2**20    # buffers of the matrix library and small objects of a step
EFFICIENCY = 0.5                # share of the measured matrix rate that a whole step reaches
MOMENTS = {"adamw": 8.0, "paged_adamw": 8.0, "adamw_8bit": 2.04, "paged_adamw_8bit": 2.04}
"""Bytes of both moments per parameter that trains; in 8 bits with a scale for every 256."""
HEAD_CHUNK = 256

HEAP_BYTES = 32 * 2**20         # larger blocks never come from glibc's heap
ERROR = 0.15                    # of a peak above the runtime, the bar to both sides


@dataclass(frozen=True)
class Holes:
    """Shares of what is freed that stays resident, by what it was."""

    wide: float         # tensors of feed-forward width that a forward makes and drops: each layer leaves its own
    narrow: float       # narrower ones, many of which go where wide ones were
    once: float         # with checkpointing: of all that one block makes, forward and again in the backward
    frozen_head: float  # of the logits of a chunk
    head: tuple[float, float]   # of those where it trains: they are made twice, and their gradient; of one, of several
    gradients: float    # of what the optimizer frees after every step


HOLES = {False: Holes(wide=0.6, narrow=0.25, once=0.0, frozen_head=0.4, head=(2.0, 2.0), gradients=1.0),
         True: Holes(wide=0.31, narrow=0.08, once=0.8, frozen_head=1.0, head=(3.5, 7.0), gradients=0.26)}
"""Without and with checkpointing."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step, by part."""

    weights: int        # the loaded base, and parameters that a method adds
    gradients: int
    optimizer: int
    activations: int
    head: int
    runtime: int
    other: int = 0      # what the allocator cannot give back, and buffers
    error: float = ERROR

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        return {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer,
                "activations": self.activations, "head": self.head, "runtime": self.runtime, "other": self.other}

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def low(self) -> int:
        """The least that is likely, of the total."""
        return int(self.runtime * (1 - RUNTIME_ERROR) + (self.total_bytes - self.runtime) * (1 - self.error))

    @property
    def high(self) -> int:
        """The most that is likely, of the total: what has to be there for a run to be safe."""
        return int(self.runtime * (1 + RUNTIME_ERROR) + (self.total_bytes - self.runtime) * (1 + self.error))


@dataclass(frozen=True)
class Step:
    """What is computed at once, as far as memory depends on it. `tokens` includes virtual ones."""

    tokens: int
    heads: int | None = None        # positions whose logits are computed; None: as many as a chunk holds
    checkpointing: bool = False
    shared: bool = False            # prefixes are computed once
    padded: bool = False            # rows of unequal length, padded
    accumulates: bool = True        # gradients of earlier pieces are there
    dtype_bytes: int = 4            # of activations
    reducers: frozenset[str] = frozenset()      # what the objective reads beside log-probs


def training_memory(shape: Shape, method: MethodMemory, tokens: int, checkpointing: bool = False,
                    optimizer: str = "adamw", *, heads: int | None = None, shared: bool = False, padded: bool = False,
                    accumulates: bool = True, dtype_bytes: int = 4, reducers: frozenset[str] = frozenset(),
                    beside_bytes: int = 0, fit: Fit | None = None) -> Memory:
    """Peak of one training step over `tokens` unique tokens, as `Step` says; `beside_bytes` of further frozen models.

    `fit` puts right what was measured on this machine with this base and method.
    """
    step = Step(tokens, heads, checkpointing, shared, padded, accumulates, dtype_bytes, reducers)
    found = tensors(shape, method, shared=shared, padded=padded)
    trained = method.trainable_parameters
    weights = method.base_bytes + (4 * trained if method.added else 0) + beside_bytes
    moments = int(MOMENTS[optimizer] * trained)
    gradients, activations, head, update = max(_moments(shape, method, step, found), key=sum)
    made = Memory(weights, gradients, moments + update, activations, head, RUNTIME_BYTES,
                  WORKSPACE_BYTES + _holes(shape, method, step, found))
    return made if fit is None else fit.applied(made)


def _moments(shape: Shape, method: MethodMemory, step: Step, found: Tensors) -> list[tuple[int, int, int, int]]:
    """(gradients, activations, head, what the optimizer makes) in bytes, at the logits, in the backward, at the end."""
    width, tokens, trains = step.dtype_bytes, step.tokens, not method.frozen_head
    gradients = 4 * method.trainable_parameters
    embedding = 4 * shape.hidden * shape.vocab
    kept, again = (width * tokens * numbers for numbers in _kept_per_token(shape, method, found, step.checkpointing))
    rest = 2 * width * tokens * shape.intermediate
    positions = HEAD_CHUNK if step.heads is None else step.heads
    chunk = 4 * min(HEAD_CHUNK, positions) * shape.vocab
    before = gradients if step.accumulates else embedding if trains and positions > HEAD_CHUNK else 0
    head = max(4 * chunk, 2 * chunk + embedding) if trains and (step.accumulates or positions > HEAD_CHUNK) else \
        4 * chunk if trains else (2 + ("entropy" in step.reducers)) * chunk
    head = 0 if step.reducers == {"scores"} else head + width * positions * shape.hidden * (2 + len(step.reducers))
    largest = 4 * _largest(shape, method)
    return [(before, int(kept), int(head), 0),
            (max(before, embedding if trains else 0), int(kept + again + rest), 0, 0),
            (gradients, 0, 0, 2 * largest)]


def _kept_per_token(shape: Shape, method: MethodMemory, found: Tensors, checkpointing: bool) -> tuple[float, float]:
    """Numbers per token that wait for the backward, over all blocks and around them, and those of a block made again.
    """
    around = 3 * shape.hidden + 4 * shape.head_dim      # the last norm's input and result, the embedding, rotations
    blocks = max(1, shape.layers if method.blocks is None else method.blocks)
    if not checkpointing:
        return around + found.kept_per_token, 0.0
    return around + blocks * shape.hidden, found.kept_per_token / blocks


def _largest(shape: Shape, method: MethodMemory) -> int:
    """Numbers of the largest tensor that trains, about: of what a method adds, one of many."""
    if method.added:
        return min(method.trainable_parameters, max(16 * shape.intermediate, method.trainable_parameters // 64))
    return min(method.trainable_parameters, max(math.prod(size) for size in shape.weights.values()))


def _holes(shape: Shape, method: MethodMemory, step: Step, found: Tensors) -> int:
    """Bytes that stay resident though they are free."""
    narrower = HEAP_BYTES / (step.dtype_bytes * max(1, step.tokens))
    blocks = max(1, shape.layers if method.blocks is None else method.blocks)
    large = 0 if method.added else sum(n for n in map(math.prod, shape.weights.values()) if 4 * n > HEAP_BYTES)
    gradients = 4 * max(0, method.trainable_parameters - large)
    share, freed = HOLES[step.checkpointing], found.all if step.checkpointing else found.dropped
    wide = freed(narrower) - freed(min(narrower, shape.intermediate))
    narrow = freed(min(narrower, shape.intermediate))
    of_blocks = share.wide * wide + share.narrow * narrow + share.once * (wide + narrow) / blocks
    positions = HEAD_CHUNK if step.heads is None else step.heads
    chunk = 4 * min(HEAD_CHUNK, positions) * shape.vocab
    of_head = chunk * (share.frozen_head if method.frozen_head else share.head[positions > HEAD_CHUNK])
    of_head *= chunk < HEAP_BYTES
    return int(step.dtype_bytes * step.tokens * of_blocks + of_head + share.gradients * gradients)


def activation_bytes_per_token(shape: Shape, checkpointing: bool = False, method: MethodMemory | None = None) -> int:
    """Bytes in float32 that wait for the backward, over all layers; with checkpointing, of one layer and all inputs.

    Without a method, those of LoRA on all linear layers, about.
    """
    method = method or MethodMemory(0, frozen_head=True, base_bytes=0, inputs=None)
    return int(4 * sum(_kept_per_token(shape, method, tensors(shape, method), checkpointing)))


def fitting_tokens(shape: Shape, method: MethodMemory, memory_bytes: int, checkpointing: bool,
                   optimizer: str = "adamw", fit: Fit | None = None) -> int:
    """Most tokens at once whose peak stays within `memory_bytes`, error bar included."""
    return _most(lambda tokens: training_memory(shape, method, tokens, checkpointing, optimizer, shared=True,
                                                heads=tokens, fit=fit).high <= memory_bytes)


def _most(fits: Callable[[int], bool], limit: int = 2**20) -> int:
    """The greatest number that fits, where all below it do, too; 0 where none does."""
    low, high = 0, 1
    while high < limit and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def token_budget(fits: int, longest: int) -> int:
    """Most tokens computed at once: a power of two between 64 and 8192 of which `fits` fit, or the longest row."""
    budget = 64
    while budget * 2 <= min(fits, 8192):
        budget *= 2
    return max(budget, longest)


def forward_flops(shape: Shape, tokens: float, heads: float, pairs: float = 0.0) -> float:
    """A forward over `tokens` unique tokens, with the head at `heads` positions and `pairs` of query and key."""
    return 2 * linear_weights(shape) * tokens + 2 * shape.hidden * shape.vocab * heads + \
        4 * shape.layers * shape.heads * shape.head_dim * pairs


def training_flops(shape: Shape, method: MethodMemory, tokens: float, heads: float, pairs: float = 0.0,
                   checkpointing: bool = False) -> float:
    """Forward and backward over `tokens` unique tokens."""
    linear, reach = linear_weights(shape), 1.0 if method.blocks is None else method.blocks / shape.layers
    trained = min(linear, method.trainable_parameters)
    once = forward_flops(shape, tokens, 0, pairs)
    weights = 6 * method.trainable_parameters if method.added else 2 * trained
    head = 2 * shape.hidden * shape.vocab * heads * (2 if method.frozen_head else 4)
    attention = 10 * shape.layers * shape.heads * shape.head_dim * pairs
    return once * (1 + checkpointing) + reach * (2 * linear * tokens + attention) + weights * tokens + head


def linear_weights(shape: Shape) -> float:
    """Weights that a token is multiplied by in all blocks."""
    return float(sum(i * o * n for _, i, o, n in shape.linear_shapes()))
