"""The `rollouts:` part of a recipe: how answers are sampled while a policy learns from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tuneloop.spec import Spec

Positive = Annotated[int, Field(ge=1)]


class RolloutSpec(Spec):
    """A round samples answers to the prompts of `steps` optimizer steps and learns from them `passes` times."""

    per_prompt: Annotated[int, Field(ge=1)] = 8
    """Answers to each prompt. ppo can do with one; the others compare several."""
    max_new_tokens: Positive = 128
    """Tokens of the longest answer; one that is cut off there is rewarded as it stands."""
    steps: Positive = 1
    """Optimizer steps whose answers are sampled at once; with 1 every step learns from its own policy."""
    passes: Positive = 1
    """How often each answer is learnt from."""
    kl_target: Annotated[float, Field(gt=0)] | None = None
    """Nats per token: objective.beta is raised or lowered towards this divergence (Ziegler et al. 2019, arXiv
    1909.08593, section 2.2); without it, it stays as given."""
    max_kl: Annotated[float, Field(gt=0)] = 5.0
    """Nats per token from the reference, at which training stops: beyond, a policy babbles."""
    look_prompts: Positive = 64
    """Held-out prompts that are answered at each look, to choose the best step."""
