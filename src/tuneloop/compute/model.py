"""The module that training and scoring call: a forest in, the log-probs of its targets out.

One `forward` holds the trunk, the choice of positions and the chunked head, so that whatever wraps the module
(accelerate, FSDP, DeepSpeed) sees every parameter used inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from tuneloop.compute import attention
from tuneloop.compute.head import Reduced, Wanted, join, reduce_head, reduce_logits
from tuneloop.compute.prefix import Prefix
from tuneloop.compute.virtual import Virtual, embedded, virtual_inputs, virtual_of
from tuneloop.types import Batch, Forest, Outputs

Mode = Literal["forest", "padded", "rows"]
SCORES_ALONE = frozenset({"scores"})


class ForestModel(nn.Module):
    """Wraps a causal language model of transformers, with or without PEFT layers inside.

    `scalar` is the head of reward and value models: a linear map from the last hidden state to one number.
    """

    def __init__(self, model: nn.Module, mode: Mode = "forest", scalar: nn.Linear | None = None) -> None:
        super().__init__()
        self.model = model
        self.training = model.training      # a wrapper is not made to change whether its model drops out
        self.mode: Mode = mode
        self.scalar = scalar
        self.checkpointing = False
        attention.register()

    @property
    def inner(self) -> Any:
        """The transformers model itself, PEFT layers included."""
        peft_base = getattr(self.model, "get_base_model", None)
        return peft_base() if peft_base is not None else self.model

    def checkpoint_activations(self) -> None:
        """Keep one hidden state per layer and token, and compute the rest again in the backward (arXiv 1604.06174)."""
        config = self.inner.config

        def contexts() -> tuple[Any, Any]:      # the second pass must attend as the first did
            return nullcontext(), attending(config, config._attn_implementation)

        inner = self.inner      # transformers 5 gave the method another name
        enable = getattr(inner, "activation_checkpointing_enable", None) or inner.gradient_checkpointing_enable
        enable({"use_reentrant": False, "context_fn": contexts})
        self.checkpointing = True

    def forward(self, batch: Batch, needs: frozenset[str] = frozenset(), prefix: Prefix | None = None,
                top: int = 0) -> Outputs | Prefix:
        """What `needs` asks of the batch's pairs and branches; the batch of a trunk becomes a `Prefix`.

        `top` adds the so many most likely tokens of every pair, without gradient: what a teacher says.
        """
        if self.mode == "forest" and not batch.branches:
            return self._trunk(batch, prefix)
        if self.mode != "rows" and needs == SCORES_ALONE:
            return self._scores(batch, prefix)
        wanted = Wanted("entropy" in needs, "mean_logprobs" in needs,
                        batch.named["select_ids"] if "selected" in needs else None, top)
        if self.mode == "rows":
            reduced, hidden = self._rows(batch, wanted)
        else:
            hidden = self._hidden(batch, prefix)
            positions, at = torch.unique(batch.predict_at, return_inverse=True)
            reduced = reduce_head(hidden[positions], at, batch.targets, self.inner.get_output_embeddings(),
                                  logit_shaping(self.inner.config), wanted)
        return Outputs(
            reduced.logprobs, batch.branch_of, batch.branches, reduced.entropy, reduced.mean_logprobs,
            reduced.selected, reduced.top_ids, reduced.top_logprobs,
            values=self._scalar(hidden[batch.predict_at]) if "values" in needs else None,
            scores=self._scalar(hidden[batch.score_at]) if "scores" in needs else None)

    def _hidden(self, batch: Batch, prefix: Prefix | None) -> Tensor:
        return self._forest(batch, prefix) if self.mode == "forest" else self._padded(batch)

    def _scores(self, batch: Batch, prefix: Prefix | None) -> Outputs:
        hidden = self._hidden(batch, prefix)
        return Outputs(hidden.new_full(batch.targets.shape, torch.nan), batch.branch_of, batch.branches,
                       scores=self._scalar(hidden[batch.score_at]))

    def _scalar(self, hidden: Tensor) -> Tensor:
        if self.scalar is None:
            raise RuntimeError("scores and values need a scalar head")
        result: Tensor = self.scalar(hidden.to(self.scalar.weight.dtype)).squeeze(-1)
        return result

    def _trunk(self, batch: Batch, prefix: Prefix | None) -> Prefix:
        record = Prefix(batch.forest.unique_tokens)
        return record.close(self._forest(batch, prefix, record))

    def _forest(self, batch: Batch, prefix: Prefix | None, record: Prefix | None = None) -> Tensor:
        """Last hidden states of all tokens of the forest, (T, d)."""
        given = 0 if prefix is None else prefix.tokens
        if given == batch.forest.unique_tokens:
            return cast(Tensor, cast(Prefix, prefix).hidden)
        virtual = virtual_of(self.model) if prefix is None else None
        root = prefix if virtual is None else virtual.root(self.inner)
        slots = virtual.slots if virtual is not None else prefix.virtual if prefix is not None else 0
        fed = 0 if virtual is None or root is not None else slots       # virtual tokens that go through the layers now
        if record is not None:
            record.virtual = slots
        layout = attention.Layout.of(batch.forest.segments, int(batch.forest.position_ids.max()) + 1, given, slots, fed)
        positions = batch.position_ids[given:] + slots
        inputs: dict[str, Any] = {"input_ids": batch.input_ids[given:].unsqueeze(0)}
        if fed:
            inputs = {"inputs_embeds": embedded(self.inner, batch.input_ids.unsqueeze(0), cast(Virtual, virtual))}
            positions = torch.cat([torch.arange(fed, device=positions.device), positions])
        with attending(self.inner.config, attention.NAME):
            hidden: Tensor = self.inner.get_decoder()(
                **inputs, position_ids=positions.unsqueeze(0), attention_mask=None, use_cache=False, layout=layout,
                prefix=root, record=record).last_hidden_state[0, fed:]
        return hidden if prefix is None else torch.cat([cast(Tensor, prefix.hidden), hidden])

    def _padded(self, batch: Batch) -> Tensor:
        """The same by the model's own attention: the trees of a forest without sharing as rows, padded on the right."""
        start, end = (torch.from_numpy(x).to(batch.input_ids.device) for x in _lone(batch))
        width = torch.arange(int((end - start).max()), device=start.device)
        inside = width < (end - start).unsqueeze(1)                                             # (rows, width)
        flat = torch.where(inside, start.unsqueeze(1) + width, start.unsqueeze(1))
        inputs = virtual_inputs(self.inner, virtual_of(self.model), batch.input_ids[flat], inside.long())
        hidden = self.inner.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, -len(width):]
        result: Tensor = hidden[inside]
        return result

    def _rows(self, batch: Batch, wanted: Wanted) -> tuple[Reduced, Tensor]:
        """Every tree alone through the model's own forward and head; needs a forest without sharing."""
        parts: list[Reduced] = []
        order: list[Tensor] = []
        hidden: list[Tensor] = []
        for start, end in zip(*_lone(batch), strict=True):
            here = torch.nonzero((batch.predict_at >= start) & (batch.predict_at < end)).squeeze(-1)
            positions, at = torch.unique(batch.predict_at[here] - start, return_inverse=True)
            inputs = virtual_inputs(self.inner, virtual_of(self.model), batch.input_ids[start:end].unsqueeze(0))
            fed = inputs["inputs_embeds"].shape[1] - (end - start) if "inputs_embeds" in inputs else 0
            own = self.inner(**inputs, use_cache=False, logits_to_keep=positions + fed,
                             output_hidden_states=self.scalar is not None)
            select = None if wanted.selected is None else wanted.selected[here]
            parts.append(reduce_logits(own.logits[0], at, batch.targets[here],
                                       replace(wanted, selected=select)))
            order.append(here)
            hidden += [own.hidden_states[-1][0, fed:]] if self.scalar is not None else []
        return join(parts, torch.cat(order)), torch.cat(hidden) if hidden else batch.weights


def _lone(batch: Batch) -> tuple[Any, Any]:
    """Starts and ends of the trees of a forest, none of which may fork."""
    segments = batch.forest.segments
    if (segments.below != segments.end).any():
        raise RuntimeError("a model that cannot share was given a forest with shared prefixes")
    return segments.start, segments.end


@contextmanager
def attending(config: Any, name: str) -> Iterator[None]:
    """The attention of that name for one forward; generation keeps the base's own."""
    before = config._attn_implementation
    config._attn_implementation = name
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
                 tensor(forest.targets), tensor(forest.weights), tensor(forest.branch_of), tensor(forest.group_of),
                 tensor(forest.score_at), {name: tensor(column) for name, column in forest.named.items()})
