"""Memory and time by arithmetic. L layers, d hidden, f feed-forward, V vocabulary, T tokens computed at once.

Saved activations per token and layer, fp32 and without checkpointing: 4 f + 7 d floats (a fit to Llama-like blocks of
transformers with PEFT inside). FLOPs per token: 2 per multiply-add and weight, forward; the same again for the gradient
to the activations, and once more for the gradient to weights that train (Kaplan et al. 2020, arXiv 2001.08361).
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.methods.base import MethodMemory
from tuneloop.models.shape import Shape

RUNTIME_BYTES = 600 * 2**20     # Python, torch and its buffers, before any weight
EFFICIENCY = 0.5                # share of the measured matrix rate that a whole step reaches
OPTIMIZER_BYTES = {"adamw": 12, "paged_adamw": 12, "adamw_8bit": 6, "paged_adamw_8bit": 6}
"""A float32 gradient and two moments per trainable parameter, in 4 bytes or one."""
HEAD_CHUNK = 256


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step, by part."""

    runtime: int
    weights: int
    trainable: int
    activations: int
    head: int

    @property
    def total_bytes(self) -> int:
        return self.runtime + self.weights + self.trainable + self.activations + self.head


def activation_bytes_per_token(shape: Shape, checkpointing: bool = False) -> int:
    """Bytes kept for the backward per token, over all layers; with checkpointing, of one layer and all their inputs."""
    layer = 4 * shape.intermediate + 7 * shape.hidden
    return 4 * (shape.layers * shape.hidden + layer if checkpointing else shape.layers * layer)


def training_memory(shape: Shape, method: MethodMemory, tokens: int, checkpointing: bool = False,
                    optimizer: str = "adamw") -> Memory:
    """Peak of one training step over `tokens` unique tokens."""
    added = 0 if not method.frozen_head else 4 * method.trainable_parameters
    return Memory(RUNTIME_BYTES, method.base_bytes, added + OPTIMIZER_BYTES[optimizer] * method.trainable_parameters,
                  tokens * activation_bytes_per_token(shape, checkpointing), 3 * 4 * HEAD_CHUNK * shape.vocab)


def fitting_tokens(shape: Shape, method: MethodMemory, memory_bytes: int, checkpointing: bool,
                   optimizer: str = "adamw") -> int:
    """Tokens whose activations fit into `memory_bytes` beside everything else."""
    fixed = training_memory(shape, method, 0, optimizer=optimizer).total_bytes
    return max(0, memory_bytes - fixed) // activation_bytes_per_token(shape, checkpointing)


def token_budget(fits: int, longest: int) -> int:
    """Most tokens computed at once: a power of two between 64 and 8192 of which `fits` fit, or the longest row."""
    budget = 64
    while budget * 2 <= min(fits, 8192):
        budget *= 2
    return max(budget, longest)


def forward_flops(shape: Shape, tokens: float, heads: float) -> float:
    """A forward over `tokens` unique tokens, with the head at `heads` positions."""
    linear = sum(i * o * n for _, i, o, n in shape.linear_shapes())
    return 2 * linear * tokens + 2 * shape.hidden * shape.vocab * heads


def training_flops(shape: Shape, method: MethodMemory, tokens: float, heads: float) -> float:
    """Forward and backward over `tokens` unique tokens."""
    return forward_flops(shape, tokens, heads) * (2 if method.frozen_head else 3)
