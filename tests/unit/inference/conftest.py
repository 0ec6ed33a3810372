"""A base whose answers differ, for tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import tiny_base
from tuneloop.models.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied random base repeats its last token."""
    return tiny_base(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False)


@pytest.fixture(scope="module")
def tokenizer(untied: Path) -> ChatTokenizer:
    return ChatTokenizer(untied)
