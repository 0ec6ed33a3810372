"""Short ways from a row to its sample, or to what is wrong with it, for the tests of row formats."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.data.flaws import RowError
from tuneloop.data.read import Row, Table
from tuneloop.data.recognise import choose
from tuneloop.types import Message, Origin

ORIGIN = Origin("rows.jsonl", 1)
USER, ASSISTANT = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
Q, A = Message("user", "Q"), Message("assistant", "A")


def made(row: dict[str, Any], kind: type[Any] | None = None, **options: Any) -> Any:
    """The sample that a row is, in a file of nothing else."""
    head = Table("rows.jsonl", "JSONL", [Row(1, row)], list(row), [])
    return choose(head, kind, **options).make(row, ORIGIN)


def flaw(row: dict[str, Any], **options: Any) -> str:
    """What is wrong with it."""
    with pytest.raises(RowError) as caught:
        made(row, **options)
    return f"{caught.value.what}. {caught.value.rule}"
