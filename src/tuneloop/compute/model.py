"""The module that training and scoring call: a forest in, the log-probs of its targets out.

One `forward` holds the trunk, the choice of positions and the chunked head, so that whatever wraps the module
(accelerate, FSDP, DeepSpeed) sees every parameter used inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from tuneloop.compute import attention
from tuneloop.compute.head import accumulate, head_logprobs
from tuneloop.compute.packing import MIN_SHARED_TOKENS, build_forest
from tuneloop.types import Batch, Forest, Outputs, Rendered

Mode = Literal["forest", "rows"]
PROBE_TOKENS = 2 * MIN_SHARED_TOKENS + 8    # the fewest tokens of a row that can fork half-way and share its first half


@dataclass(frozen=True)
class Packing:
    """How samples go through the model, and why.

    forest: prefixes shared, no padding. rows: one sample after the other through the model's own forward, for models
    whose attention has no forest form.
    """

    mode: Mode
    share: bool
    why: str


class ForestModel(nn.Module):
    """Wraps a causal language model of transformers, with or without PEFT layers inside."""

    def __init__(self, model: nn.Module, mode: Mode = "forest") -> None:
        super().__init__()
        self.model = model
        self.mode: Mode = mode
        attention.register()

    @property
    def inner(self) -> Any:
        """The transformers model itself, PEFT layers included."""
        peft_base = getattr(self.model, "get_base_model", None)
        return peft_base() if peft_base is not None else self.model

    def forward(self, batch: Batch) -> Outputs:
        logprobs = self._forest(batch) if self.mode == "forest" else self._rows(batch)
        return Outputs(logprobs, batch.branch_of, batch.forest.branches)

    def _forest(self, batch: Batch) -> Tensor:
        layout = attention.Layout.of(batch.forest.segments, int(batch.forest.position_ids.max()) + 1)
        with _forest_attention(self.inner.config):
            hidden = self.inner.get_decoder()(
                input_ids=batch.input_ids.unsqueeze(0), position_ids=batch.position_ids.unsqueeze(0),
                attention_mask=None, use_cache=False, layout=layout).last_hidden_state[0]
        positions, at = torch.unique(batch.predict_at, return_inverse=True)
        return head_logprobs(hidden[positions], at, batch.targets, self.inner.get_output_embeddings(),
                             logit_shaping(self.inner.config))

    def _rows(self, batch: Batch) -> Tensor:
        """Every tree of the forest alone; needs a forest without sharing."""
        parts: list[Tensor] = []
        order: list[Tensor] = []
        for start, end, below in batch.forest.segments:
            if below != end:
                raise RuntimeError("a model that computes row by row was given a forest with shared prefixes")
            here = torch.nonzero((batch.predict_at >= start) & (batch.predict_at < end)).squeeze(-1)
            positions, at = torch.unique(batch.predict_at[here] - start, return_inverse=True)
            logits = self.inner(input_ids=batch.input_ids[start:end].unsqueeze(0), use_cache=False,
                                logits_to_keep=positions).logits[0]
            logits = logits.to(accumulate(logits.dtype))
            parts.append(logits[at, batch.targets[here]] - logits.logsumexp(-1)[at])
            order.append(here)
        return torch.cat(parts)[torch.argsort(torch.cat(order))]


@contextmanager
def _forest_attention(config: Any) -> Iterator[None]:
    """Forest attention for one forward; generation keeps the base's own."""
    before = config._attn_implementation
    config._attn_implementation = attention.NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def logit_shaping(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What some families do to their logits after the head: Gemma caps, Granite divides, Cohere multiplies."""
    cap = getattr(config, "final_logit_softcapping", None)
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    if cap is None and scale == 1.0:
        return None
    return lambda logits: torch.tanh(logits * scale / cap) * cap if cap is not None else logits * scale


def to_batch(forest: Forest, device: torch.device | str = "cpu") -> Batch:
    """The tensors of a forest on a device."""
    def tensor(x: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    return Batch(forest, tensor(forest.input_ids), tensor(forest.position_ids), tensor(forest.predict_at),
                 tensor(forest.targets), tensor(forest.weights), tensor(forest.branch_of), tensor(forest.group_of))


def choose_packing(model: nn.Module, samples: Sequence[Rendered], *, share: bool = True) -> Packing:
    """Forest if the model computes one exactly, measured on its own first row; otherwise row by row, and why."""
    longest = max(len(s) for s in samples)
    window = _window(ForestModel(model).inner.config)
    if window is not None and window < longest:
        return Packing("rows", False, f"the base's attention window of {window} tokens is shorter than the longest "
                                      f"row of {longest}; rows are computed one by one")
    try:
        difference = forest_error(model, samples[0])
    except Exception as error:      # any model class of transformers may refuse in its own way
        return Packing("rows", False, f"the base's attention has no forest form ({error}); "
                                      "rows are computed one by one")
    tolerance = {torch.float64: 1e-6, torch.float32: 5e-4}.get(next(model.parameters()).dtype, 0.1)
    if not difference <= tolerance:
        return Packing("rows", False, f"the forest's log-probs differ from the base's own by {difference:.1e}; "
                                      "rows are computed one by one")
    if not share:
        return Packing("forest", False, "prefixes are not shared: dropout must differ from row to row")
    return Packing("forest", True,
                   f"prefixes shared, no padding; log-probs agree with the base's own to {difference:.0e}")


@torch.no_grad()
def forest_error(model: nn.Module, sample: Rendered) -> float:
    """Largest difference in log-prob between a forest of `sample` and one that forks from it half-way, and both alone.

    Both go on after the fork: the second's tokens are laid behind the first's, so that a layer which runs along the
    sequence (recurrence, convolution) is noticed as well as attention that sees too much.
    """
    device = next(model.parameters()).device
    window = _window(ForestModel(model).inner.config)
    draw, known = np.random.default_rng(0), int(sample.ids.max()) + 1       # any tokens that the model knows will do
    missing = max(0, min(PROBE_TOKENS, window or PROBE_TOKENS) - len(sample))
    ids = np.concatenate([sample.ids, draw.integers(0, known, missing)])
    half = len(ids) // 2
    weights = np.zeros(len(ids), np.float32)
    weights[half:half + MIN_SHARED_TOKENS] = weights[-1] = 1
    fork = np.concatenate([ids[:half], draw.integers(0, known, len(ids) - half)])
    pair = [Rendered(ids, weights), Rendered(fork, weights)]
    was_training = model.training
    model.eval()
    try:
        shared = ForestModel(model)(to_batch(build_forest(pair), device)).logprobs
        alone = ForestModel(model, "rows")(to_batch(build_forest(pair, share=False), device)).logprobs
    finally:
        model.train(was_training)
    return float((shared - alone).abs().max())


def _window(config: Any) -> int | None:
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return None
    return cast(int, window)
