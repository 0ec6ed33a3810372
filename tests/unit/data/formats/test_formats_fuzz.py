"""Whatever rows hold, recognising them ends in a sample, or in a sentence for people; never in a crash."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.clean import written
from tuneloop.data.convert import FORMATS, convert
from tuneloop.data.flaws import RowError
from tuneloop.data.read import Row, Table
from tuneloop.data.recognise import choose
from tuneloop.errors import UserError
from tuneloop.types import Origin, Sample

COLUMNS = ["messages", "conversations", "prompt", "question", "input", "instruction", "output", "completion", "answer",
           "response", "context", "system", "history", "tools", "images", "image", "audios", "label", "chosen", "text",
           "rejected", "margin", "chosen_messages", "rejected_messages", "preferred_output", "non_preferred_output",
           "completions", "answers", "rewards", "reward", "ranked", "ranks", "ranking", "contents", "systemInstruction",
           "ideal", "target", "source"]
KEYS = ["role", "content", "from", "value", "type", "text", "tool_calls", "function_call", "function", "name", "rank",
        "arguments", "id", "weight", "train", "loss_weight", "image_url", "url", "data", "source", "parts", "answer",
        "functionCall", "functionResponse", "inlineData", "mimeType", "args", "response", "messages", "tools",
        "functionDeclarations", "reasoning_content", "bytes", "path"]
WORDS = ["user", "assistant", "system", "tool", "model", "human", "gpt", "function_call", "image", "text", "image_url",
         "A", "", " ", "<image>", "[", "[{\"role\": \"user\"}]", "{\"name\": \"f\", \"arguments\": {}}", "true", "1",
         "\n\nHuman: Hi\n\nAssistant: A", "data:image/png;base64,AAAA", "../a", "image/png", "\ud800", "nan"]
scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
turn = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": scalars})
values = st.recursive(scalars | turn, lambda inner: st.lists(inner, max_size=3) |
                      st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=12)
rows = st.dictionaries(st.sampled_from(COLUMNS), values, min_size=1, max_size=5)
heads = st.lists(rows, min_size=1, max_size=4)


def look(head: list[dict[str, Any]], late: dict[str, Any]) -> list[Sample]:
    """The samples among rows that were and were not seen at first."""
    table = Table.of("rows.jsonl", "JSONL", [Row(i, row) for i, row in enumerate(head, 1)], [])
    samples = []
    with suppress(UserError):
        mapped = choose(table)
        for line, row in enumerate([*head, late], 1):
            with suppress(RowError):
                samples.append(mapped.make(row, Origin("rows.jsonl", line)))
        assert mapped.sentence
    return samples


@settings(max_examples=300, deadline=None)
@given(heads, rows)
def test_any_row_is_a_sample_or_told(head: list[dict[str, Any]], late: dict[str, Any]) -> None:
    for sample in look(head, late):
        assert json.loads(written(sample).encode())


@pytest.mark.slow
@settings(max_examples=4_000, deadline=None)
@given(heads, rows)
def test_any_sample_is_written_or_refused(head: list[dict[str, Any]], late: dict[str, Any]) -> None:
    for sample in look(head, late):
        written(sample).encode()
        for to in FORMATS:
            with suppress(UserError):
                list(convert([sample], to))
