"""A base that answers: what makes rows from passages, or says questions differently, where the user names one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.data.fixes.base import Generate
from tuneloop.models.resolve import resolve
from tuneloop.types import Message, Sampling

TEMPERATURE, TOP_P = 0.7, 0.95      # rows that are made should differ
MAX_NEW_TOKENS = 512


def generator(name: str, root: Path, seed: int = 0) -> Generate:
    """One answer of the base `name` to each prompt. The base is loaded when it is asked first."""
    base = resolve(name, root)
    loaded: list[Any] = []

    def answers(prompts: Sequence[tuple[Message, ...]]) -> list[str]:
        from tuneloop.inference.local import generate
        from tuneloop.models.load import load_model
        from tuneloop.models.tokenizer import ChatTokenizer

        if not loaded:
            loaded.extend((load_model(base.path), ChatTokenizer(base.path)))
        model, tokenizer = loaded
        sampling = [Sampling(MAX_NEW_TOKENS, TEMPERATURE, TOP_P, seed + i) for i in range(len(prompts))]
        return [completion.text for completion in generate(model, tokenizer, prompts, sampling)]

    return answers
