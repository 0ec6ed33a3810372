"""One row stays of those that are alike: the first, in its place."""

from __future__ import annotations

import pytest
from fix_rows import TOOLS, chat, texts
from pydantic import ValidationError

from tuneloop.data.fixes.base import Item
from tuneloop.data.fixes.deduplicate import Fix
from tuneloop.types import Message, Origin, Rollout

LONG = "the parcel that I ordered three weeks ago from your shop in Berlin has not arrived"
ITEMS = texts("good morning", LONG, "something else", f"{LONG}!", LONG, f"and {LONG}!")


def left(fix: Fix) -> list[int]:
    return [item.origin.line for item in fix.apply(ITEMS, TOOLS).items]


def test_the_first_of_each_cluster_stays_and_the_log_names_the_others() -> None:
    done = Fix().apply(ITEMS, TOOLS)
    assert [item.origin.line for item in done.items] == [1, 2, 3]
    exact, nearly = done.log
    assert (str(exact), exact.why) == ("1 row dropped: rows.jsonl line 5", "each says exactly what an earlier row says")
    assert str(nearly) == "2 rows dropped: rows.jsonl line 4, 6"
    assert nearly.examples[0] == (
        'rows.jsonl line 4 is like rows.jsonl line 2: "the parcel that I ordered three weeks ago from your shop …" '
        'and "the parcel that I ordered three weeks ago from your shop …"')


def test_how_alike_is_a_choice() -> None:
    assert left(Fix(near=1)) == [1, 2, 3, 4, 6]
    assert left(Fix(near=0.98)) == [1, 2, 3, 6]         # 78 of 79 shingles, and 78 of 83
    with pytest.raises(ValidationError):
        Fix(near=0.2)


def test_rows_that_answer_differently_stay() -> None:
    items = [chat(LONG, "it is on its way", line=1), chat(f"{LONG}?", "it is lost", line=2),
             chat(f"{LONG}?", "It is on its way.", line=3)]
    assert [item.origin.line for item in Fix().apply(items, TOOLS).items] == [1, 2]


def test_pieces_of_one_row_are_told_apart() -> None:
    items = [chat("a", "b", line=1), chat("c", "d", line=1), chat("a", "b", line=1)]
    assert Fix().apply(items, TOOLS).items == items[:2]


def test_sampled_answers_may_be_equal() -> None:
    origin = Origin("rows.jsonl", 1)
    row = Item({}, origin, Rollout((Message("user", "q"),), ("a",), (1.0,), origin))
    done = Fix().apply([row, row], TOOLS)
    assert (done.items, done.log) == ([row, row], [])
