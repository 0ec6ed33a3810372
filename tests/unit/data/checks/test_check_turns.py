"""The order of turns, with synthetic twins of odd rows that public sets hold."""

from __future__ import annotations

import pytest
from checked_rows import assistant, at, chat, found, lines, qa, texts, user

from tuneloop.data.checks.turns import Check
from tuneloop.types import Message, Prompt, Sample, ToolCall

SYSTEM = Message("system", "Be kind.")
CALL, RESULT = ToolCall("add", "{}"), Message("tool", "3")


@pytest.mark.parametrize(("row", "kind", "example"), [
    (chat(SYSTEM, assistant("You're great!")), "no_user", "system → assistant"),
    (chat(assistant("Hi"), user("Q"), assistant("A")), "not_user_first", "assistant → user → assistant"),
    (chat(user("Q"), SYSTEM, assistant("A")), "late_system", "user → system → assistant"),
    (chat(user("Q"), user("And?"), assistant("A")), "twice", "two user turns: And?"),
    (chat(user("Q"), assistant("A"), assistant("B")), "twice", "two assistant turns: B"),
    (chat(user("Q"), assistant(" "), user("And?"), assistant("A")), "empty", "an empty assistant turn"),
    (chat(user(""), assistant("A"), user("Q"), assistant("B")), "empty", "an empty user turn"),
    (chat(user("Q"), assistant("A\nUser: and then?\nAssistant: B")), "speakers", "A User: and then? Assistant: B"),
])
def test_odd_orders(row: Sample, kind: str, example: str) -> None:
    seen = found(Check(), [row, qa("Q", "A", 2)])
    seen.pop("without_system", None)
    assert list(seen) == [kind]
    assert (lines(seen[kind]), list(seen[kind].examples)) == ([1], [example])


@pytest.mark.parametrize("row", [
    qa("Q", "A"), chat(SYSTEM, user("Q"), assistant("A"), user("And?"), assistant("B")),
    chat(user("Q"), assistant("", CALL), assistant("", CALL), RESULT, RESULT, assistant("A")),
    chat(user("Q"), assistant("", CALL), RESULT, assistant("A")), texts("Assistant: a\nUser: b")[0],
    Prompt((user("Q"),), (), at(1))])
def test_good_orders(row: Sample) -> None:
    assert found(Check(), [row]) == {}


def test_a_few_rows_without_the_system_message_of_the_others_are_named() -> None:
    spoken = chat(SYSTEM, user("Q"), assistant("A"))
    assert lines(found(Check(), [spoken, qa("Q", "A", 2), spoken])["without_system"]) == [2]
    assert found(Check(), [spoken, qa("Q", "A", 2), qa("Q", "A", 3)]) == {}
