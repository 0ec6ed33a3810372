"""The text of a row that runs are known by: the same as ever for rows without tools and media."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tuneloop.data.clean import asked, conflicts, written
from tuneloop.types import (
    Conversation,
    Media,
    Message,
    Origin,
    Preference,
    Rated,
    Rollout,
    Sample,
    ToolCall,
)

HERE = Origin("rows.jsonl", 7, "abc")
Q, A = Message("user", "Q"), Message("assistant", "é", train=False)
ASKED = '[{"role": "user", "content": "Q", "train": true}]'


@pytest.mark.parametrize(("row", "text"), [
    (Conversation((Q, A), HERE),
     '{"messages": [{"role": "user", "content": "Q", "train": true}, '
     '{"role": "assistant", "content": "é", "train": false}]}'),
    (Preference((Q,), "a", "b", HERE), f'{{"prompt": {ASKED}, "chosen": "a", "rejected": "b", "margin": 0.0}}'),
    (Rated((Q,), "", False, HERE), f'{{"prompt": {ASKED}, "answer": "", "desirable": false}}'),
    (Rollout((Q,), ("a",), (0.0,), HERE), f'{{"prompt": {ASKED}, "answers": ["a"], "rewards": [0.0]}}'),
])
def test_rows_of_the_first_kinds_are_written_as_they_always_were(row: Sample, text: str) -> None:
    """The texts are those of the version before tools."""
    assert written(row) == text


def test_what_is_asked_is_what_it_always_was_for_rows_without_tools_and_media() -> None:
    assert asked(Conversation((Q, A, Q, A), HERE)) == (("user", "Q"), ("assistant", "é"), ("user", "Q"))


def test_rows_with_other_tools_calls_or_images_ask_something_else() -> None:
    call = [Message("assistant", "", calls=(ToolCall("f", arguments, "id" + arguments),)) for arguments in ("{}", "[]")]
    shown = [Message("user", "<image>", media=(Media("image", where),)) for where in ("a.png", "b.png")]
    rows = [Conversation((Q, A), HERE), Conversation((Q, A), HERE, ("{}",)), Conversation((Q, A), HERE, ("[]",)),
            *(Conversation((Q, turn, Message("tool", "x"), A), HERE) for turn in call),
            *(Conversation((turn, A), HERE) for turn in shown)]
    assert len(set(map(asked, rows))) == len(rows)
    same = replace(call[0], calls=(ToolCall("f", "{}", "another id"),))
    assert asked(Conversation((Q, call[0], A), HERE)) == asked(Conversation((Q, same, A), HERE))
    assert conflicts([Conversation((Q, turn), HERE) for turn in (call[0], same)]) == []
    assert conflicts([Conversation((Q, turn), HERE) for turn in call]) == [[HERE, HERE]]


def test_tools_calls_and_media_are_written_where_they_are() -> None:
    row = Conversation((Message("user", "<image>", media=(Media("image", "a.png"),)),
                        Message("assistant", "", calls=(ToolCall("f", "{}"),)),
                        Message("tool", "x", call_id="c1", name="f"), A), HERE, ("{}",))
    assert json.loads(written(row)) == {"tools": ["{}"], "messages": [
        {"role": "user", "content": "<image>", "train": True, "media": [{"kind": "image", "where": "a.png"}]},
        {"role": "assistant", "content": "", "train": True, "calls": [{"name": "f", "arguments": "{}", "id": ""}]},
        {"role": "tool", "content": "x", "train": True, "call_id": "c1", "name": "f"},
        {"role": "assistant", "content": "é", "train": False}]}
