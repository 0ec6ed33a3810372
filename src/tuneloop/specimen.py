"""Something small to try an objective on: a random Llama of two layers in float64, and rows of every kind of sample.

Made in this process from fixed seeds: no hub, no files. V is the vocabulary, K the width of `select_ids`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tuneloop.compute.cut import MIN_TRUNK_TOKENS, cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.types import Conversation, Group, Preference, Rated, Rendered, Rollout

VOCABULARY, HIDDEN, WIDTH = 61, 16, 5
BRANCHES: Mapping[type[Any], int] = {Conversation: 1, Preference: 2, Rated: 1, Rollout: 4}
"""Branches of a group, by the kind of sample."""
BROUGHT: Mapping[type[Any], tuple[str, ...]] = {
    Conversation: (), Preference: ("margin",), Rated: ("desirable",), Rollout: ("rewards",)}
"""Columns that rows of a kind bring along; an answer that is only probed brings none of them."""
COLUMNS_OF: Mapping[str, tuple[str, ...]] = {
    "reference_logprobs": ("reference_logprobs",), "old_logprobs": ("old_logprobs",), "old_values": ("old_values",),
    "teacher": ("select_ids", "teacher_logprobs")}
"""Columns that are there because an objective names a need."""
SYSTEM_TOKENS = MIN_TRUNK_TOKENS + 8
TRUNK_BUDGET = 2 * SYSTEM_TOKENS + 8
"""A budget under which the system prompt of the rows becomes a trunk."""


def tiny_model(seed: int = 0) -> ForestModel:
    """A random Llama in float64 with a scalar head; every parameter trains."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=256,
                         initializer_range=0.2, tie_word_embeddings=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config).double()
        scalar = nn.Linear(HIDDEN, 1, bias=False, dtype=torch.float64)
    for layer in model.model.layers:        # Llama's own norms round to float32
        layer.input_layernorm, layer.post_attention_layernorm = _norm(config), _norm(config)
    model.model.norm = _norm(config)
    return ForestModel(model, scalar=scalar)


def _norm(config: Any) -> nn.Module:
    return nn.RMSNorm(HIDDEN, config.rms_norm_eps, dtype=torch.float64)


def groups_of(kind: type[Any], model: ForestModel, seed: int = 0) -> list[Group]:
    """Five groups, with every column that there is. Prompts are shared within groups, and between all but the last.

    Old and reference log-probs lie near those of `model`, so that some ratios are clipped and most are not. Weights
    differ from token to token.
    """
    draw = np.random.default_rng(seed)
    system, unlike = draw.integers(3, VOCABULARY, SYSTEM_TOKENS), draw.integers(3, VOCABULARY, 9)
    prompts = [np.concatenate([unlike if g == 4 else system, draw.integers(3, VOCABULARY, (3, 40)[g % 2])])
               for g in range(5)]
    groups = [Group(tuple(_row(draw, prompt, g + i) for i in range(BRANCHES[kind])),
                    (_row(draw, prompt, 0),) if kind is Rated else ()) for g, prompt in enumerate(prompts)]
    return _with_logprobs(groups, model, draw)


def _row(draw: np.random.Generator, prompt: Any, number: int) -> Rendered:
    count = int(draw.integers(2, 10))
    weights = np.concatenate([np.zeros(len(prompt)), draw.choice([0.5, 1.0, 2.0], count)]).astype(np.float32)
    rest = draw.normal(size=(count, VOCABULARY))
    teacher = rest - np.log(np.exp(rest).sum(-1, keepdims=True))
    chosen = np.stack([draw.choice(VOCABULARY, WIDTH, replace=False) for _ in range(count)])
    return Rendered(np.concatenate([prompt, draw.integers(3, VOCABULARY, count)]), weights, named={
        "margin": float(draw.random()), "desirable": float(number % 2), "rewards": float(draw.normal()),
        "old_values": draw.normal(size=count), "select_ids": chosen,
        "teacher_logprobs": np.take_along_axis(teacher, chosen, -1)})


@torch.no_grad()
def _with_logprobs(groups: Sequence[Group], model: ForestModel, draw: np.random.Generator) -> list[Group]:
    samples = [r for group in groups for r in (*group.branches, *group.probes)]
    [(_, batch, out)] = list(passes(model, cut_step(samples, 10**6, share=False), "cpu"))
    split = batch.forest.by_branch(out.logprobs.numpy())
    found = {id(sample): logprobs for sample, logprobs in zip(samples, split, strict=True)}

    def named(sample: Rendered) -> Rendered:
        own = found[id(sample)]
        return replace(sample, named=dict(sample.named) | {
            "reference_logprobs": own + 0.5 * draw.normal(size=len(own)),
            "old_logprobs": own + 0.1 * draw.normal(size=len(own))})

    return [Group(tuple(map(named, g.branches)), tuple(map(named, g.probes))) for g in groups]


def restricted(groups: Sequence[Group], kind: type[Any], needs: frozenset[str]) -> list[Group]:
    """The groups with just the columns that a run would have: those of the kind, and those of `needs`."""
    asked = {column for need in needs for column in COLUMNS_OF.get(need, ())}

    def only(sample: Rendered, columns: set[str]) -> Rendered:
        return replace(sample, named={name: value for name, value in sample.named.items() if name in columns})

    return [Group(tuple(only(r, asked | set(BROUGHT[kind])) for r in g.branches),
                  tuple(only(r, asked) for r in g.probes)) for g in groups]
