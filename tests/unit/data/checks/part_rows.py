"""Rows in parts, as the checks that compare rows with rows see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuneloop.data.checks.base import Check, Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Conversation, Message, Origin, Sample


def asked(prompt: str, answer: str, line: int, file: str = "train.csv") -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)), Origin(file, line))


def rows(file: str, *pairs: tuple[str, str]) -> list[Sample]:
    """Questions and answers on lines 1, 2, …"""
    return [asked(prompt, answer, line, file) for line, (prompt, answer) in enumerate(pairs, 1)]


def chunks(part: str, samples: Sequence[Sample], size: int = 1000) -> Iterable[Chunk]:
    for start in range(0, len(samples), size):
        some = samples[start:start + size]
        yield Chunk(part, [sample.origin for sample in some], some, [{}] * len(some))


def found_by(check: Check, **parts: Sequence[Sample]) -> list[Finding]:
    """What a check finds in these parts, seen in this order."""
    for part, samples in parts.items():
        for chunk in chunks(part, samples):
            check.see(chunk)
    return check.findings()


def lines(finding: Finding) -> list[int]:
    return [origin.line for origin in finding.places]
