"""Rows as the checks that look at one row at a time see them, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.data.checks.base import Check, Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Conversation, Message, Origin, Sample, Text, ToolCall

SHARED = Path(__file__).parents[4].parent / "shared" / "data"

Found = dict[str, Finding]      # by kind


def at(line: int) -> Origin:
    return Origin("rows.jsonl", line)


def qa(prompt: str, answer: str, line: int = 1) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)), at(line))


def chat(*turns: Message, tools: Sequence[str] = ()) -> Conversation:
    return Conversation(turns, at(1), tuple(tools))


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, *calls: ToolCall) -> Message:
    return Message("assistant", text, calls=calls)


def answers(*texts: str) -> list[Sample]:
    """Rows with these answers on lines 1, 2, …"""
    return [qa("Q?", text, line) for line, text in enumerate(texts, 1)]


def texts(*contents: str) -> list[Sample]:
    return [Text(content, at(line)) for line, content in enumerate(contents, 1)]


def found(check: Check, samples: Sequence[Sample], part: str = "train",
          values: Sequence[dict[str, Any]] | None = None) -> Found:
    """What a check finds in rows; each row holds its answer unless `values` are given."""
    values = [{"answer": sample.answer} for sample in samples] if values is None else values
    check.see(Chunk(part, [sample.origin for sample in samples], samples, values))
    return {finding.kind: finding for finding in check.findings()}


def lines(finding: Finding) -> list[int]:
    return [origin.line for origin in finding.places]
