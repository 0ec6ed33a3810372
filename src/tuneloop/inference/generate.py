"""Generating answers, batched, with the base's own attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from tuneloop.compute.virtual import virtual_of
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Message, Sampling

BATCH = 16


@torch.no_grad()
def generate(model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Sequence[Message]], sampling: Sampling, *,
             tools: Sequence[Sequence[str]] = (),
             progress: Callable[[int], None] | None = None) -> list[Completion]:
    """One completion per prompt, in order. Prompts of similar length are answered together, padded on the left.

    `tools` has for each prompt the JSON texts of the functions it offers; none for no prompt unless given.
    """
    offered = tools or [()] * len(prompts)
    encoded = tokenizer.encode([tokenizer.prompt_text(p, t) for p, t in zip(prompts, offered, strict=True)])
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    done: dict[int, Completion] = {}
    was_training = model.training
    model.eval()
    try:
        for low in range(0, len(order), BATCH):
            chosen = order[low:low + BATCH]
            done |= zip(chosen, _answer(model, tokenizer, [encoded[i] for i in chosen], sampling), strict=True)
            if progress is not None:
                progress(len(chosen))
    finally:
        model.train(was_training)
    return [done[i] for i in range(len(encoded))]


def _answer(model: Any, tokenizer: ChatTokenizer, prompts: list[list[int]], sampling: Sampling) -> list[Completion]:
    device, width = next(model.parameters()).device, max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    stops = stop_ids(model, tokenizer)
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed)
    inner, inputs = inputs_of(model, ids, mask, tokenizer.pad_id)
    width = inputs["input_ids"].shape[1]
    out = inner.generate(**inputs, eos_token_id=sorted(stops), pad_token_id=tokenizer.pad_id,
                         **generation_options(replace(sampling, max_new_tokens=_room(tokenizer, width, sampling))))
    return [_completion(row[width:].tolist(), stops, tokenizer) for row in out]


def inputs_of(model: Any, ids: torch.Tensor, mask: torch.Tensor, pad_id: int) -> tuple[Any, dict[str, Any]]:
    """The model whose `generate` to call for prompts (rows, T) padded on the left, and what it takes.

    Virtual tokens are in the cache, with a pad in their place: PEFT's own way puts padded rows at wrong positions.
    """
    virtual = virtual_of(model)
    if virtual is None:
        return model, {"input_ids": ids, "attention_mask": mask}
    rows, inner = len(ids), model.get_base_model()
    return inner, {"input_ids": torch.cat([ids.new_full((rows, virtual.slots), pad_id), ids], 1),
                   "attention_mask": torch.cat([mask.new_ones(rows, virtual.slots), mask], 1),
                   "past_key_values": virtual.cache(inner, rows)}


def _room(tokenizer: ChatTokenizer, width: int, sampling: Sampling) -> int:
    """New tokens that fit into the base's positions after prompts of `width` tokens."""
    return max(1, min(sampling.max_new_tokens, tokenizer.max_length - width))


def stop_ids(model: Any, tokenizer: ChatTokenizer) -> set[int]:
    """Tokens that end an answer: the template's end of turn, and whatever the base itself stops at."""
    eos = model.generation_config.eos_token_id
    return {tokenizer.end_of_turn_id} | set(eos if isinstance(eos, list) else [] if eos is None else [eos])


def generation_options(sampling: Sampling) -> dict[str, Any]:
    """Sampling in the words of `transformers.generate`."""
    options: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "do_sample": sampling.temperature > 0,
                               "temperature": None, "top_p": None, "top_k": None}
    if sampling.temperature > 0:
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return options


def _completion(ids: list[int], stops: set[int], tokenizer: ChatTokenizer) -> Completion:
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    kept = ids if end is None else ids[:end]
    return Completion(tokenizer.decode(kept, special=False).strip(), tuple(kept), end is not None)
