"""Which rows the user says are out of distribution."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.evaluation.flags import flags_of, require_both
from tuneloop.types import Conversation, Message, Origin


def rows(count: int) -> list[Conversation]:
    return [Conversation((Message("user", "?"), Message("assistant", "!")), Origin("rows.csv", i + 2))
            for i in range(count)]


@pytest.mark.parametrize("value", [1, 1.0, True, "1", " True ", "YES", "ood"])
def test_what_flags_a_row(value: Any) -> None:
    assert flags_of(rows(1), [value], "new") == [True]


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "False", "no ", "", None])
def test_what_does_not(value: Any) -> None:
    assert flags_of(rows(1), [value], "new") == [False]


def test_anything_else_is_refused_with_its_lines() -> None:
    with pytest.raises(UserError) as caught:
        flags_of(rows(5), ["1", "maybe", 2, "maybe", 0.5], "new")
    text = caught.value.text
    assert "rows.csv line 3: the new is 'maybe'." in text
    assert "1, true, yes or ood" in text
    assert "(1 more: 5)" in text
    assert "rows.csv line 4: the new is 2." in text
    assert "rows.csv line 6: the new is 0.5." in text


@pytest.mark.parametrize(("flags", "said"), [([True, True], "All of the 2"), ([False], "None of the 1")])
def test_both_kinds_are_needed(flags: list[bool], said: str) -> None:
    with pytest.raises(UserError, match=said):
        require_both(flags, "a fix")
    require_both([True, False])
