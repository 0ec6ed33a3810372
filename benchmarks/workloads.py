"""Synthetic steps of known shape: groups of random tokens, for instruction tuning, preferences and rollouts.

Step k of a workload is the same for every side and every run. Tokens are random, so what is shared is what the shape
says; losses and gradients are those of a real step of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneloop.types import Floats, Group, Ints, Rendered

LOWEST, HIGHEST = 100, 40_000       # ids that are plain words of the vocabulary
MEGABATCH = 50                      # batches that a trainer sorts at once when it groups rows by length
SHORTEST, LONGEST = 32, 1024        # tokens of a chat
Make = Callable[[int], list[Group]]


@dataclass(frozen=True)
class Shape:
    """Rows of one step: a prefix that all share, then a question and an answer of each row's own; in tokens."""

    prefix: int
    question: int
    answer: int
    rows: int


def sft(shape: Shape) -> Make:
    """Steps of instruction tuning, one group per row."""
    def make(step: int) -> list[Group]:
        random = _random(1, shape.prefix, shape.rows, step)
        shared = _tokens(random, shape.prefix)
        return [Group((_row(np.concatenate([shared, _tokens(random, shape.question)]), random, shape.answer),))
                for _ in range(shape.rows)]

    return make


def chats(rows: int, *, grouped: bool) -> Make:
    """Chats of 32 to 1024 tokens, lognormal, about half of them supervised, with nothing in common.

    `grouped` draws the rows of a step as trainers do that group by length: neighbours of a sorted megabatch.
    """
    def make(step: int) -> list[Group]:
        random = _random(2, rows, step, int(grouped))
        lengths = np.clip(random.lognormal(np.log(220), 0.8, rows * MEGABATCH), SHORTEST, LONGEST).astype(int)
        if grouped:
            batch = int(MEGABATCH * (0.3 + 0.2 * (step % 4)))       # short ones, the middle, long ones
            lengths = np.sort(lengths)[batch * rows:(batch + 1) * rows]
        return [Group((_chat(random, int(length)),)) for length in lengths[:rows]]

    return make


def preferences(prompt: int, response: int, pairs: int) -> Make:
    """Steps of DPO: two answers of equal length to each prompt."""
    def make(step: int) -> list[Group]:
        random = _random(3, prompt, pairs, step)
        prompts = [_tokens(random, prompt) for _ in range(pairs)]
        return [Group(tuple(_row(p, random, response) for _ in range(2))) for p in prompts]

    return make


def rollouts(prompt: int, response: int, per_prompt: int) -> Make:
    """Steps of GRPO: answers to one prompt, each with a reward. Old log-probs are added by `with_old`."""
    def make(step: int) -> list[Group]:
        random = _random(4, prompt, per_prompt, step)
        asked = _tokens(random, prompt)
        return [Group(tuple(replace(_row(asked, random, response), named={"rewards": np.float32(random.normal())})
                            for _ in range(per_prompt)))]

    return make


def with_old(groups: Sequence[Group], logprobs: Sequence[Floats]) -> list[Group]:
    """The groups with the log-probs of the policy that wrote the answers, one array per branch in order."""
    found = iter(logprobs)
    return [replace(g, branches=tuple(replace(r, named={**r.named, "old_logprobs": next(found)}) for r in g.branches))
            for g in groups]


def _random(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _tokens(random: np.random.Generator, count: int) -> Ints:
    return random.integers(LOWEST, HIGHEST, count)


def _row(prompt: Ints, random: np.random.Generator, answer: int) -> Rendered:
    ids = np.concatenate([prompt, _tokens(random, answer)])
    return Rendered(ids, (np.arange(len(ids)) >= len(prompt)).astype(np.float32))


def _chat(random: np.random.Generator, length: int) -> Rendered:
    """Turns of question and answer, each about equally long, that fill `length` tokens."""
    turns = 2 * int(random.integers(1, 4))
    weights = np.arange(length) * turns // length % 2
    return Rendered(_tokens(random, length), weights.astype(np.float32))
