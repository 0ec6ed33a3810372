"""As many rows of every label as are asked for, drawn by what they say."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from fix_rows import TOOLS, chat, texts

from tuneloop.data.fixes.balance import Fix
from tuneloop.data.fixes.base import Item
from tuneloop.errors import UserError


def labelled(**counts: int) -> list[Item]:
    named = [(label, number) for label, count in counts.items() for number in range(count)]
    return [chat(f"{label} {number}", label, line=line) for line, (label, number) in enumerate(named, 1)]


def counted(rows: list[Item]) -> dict[str, int]:
    return dict(Counter(row.sample.answer for row in rows))


def test_fewer_rows_of_the_frequent_ones() -> None:
    before = labelled(yes=100, no=40, maybe=12)
    done = Fix().apply(before, TOOLS)
    assert counted(done.items) == {"yes": 36, "no": 36, "maybe": 12}
    assert [(change.what, len(change.places)) for change in done.log] == [
        ("64 rows of “yes” left out", 64), ("4 rows of “no” left out", 4)]
    kept = {id(row) for row in done.items}
    assert [id(row) for row in before if id(row) in kept] == [id(row) for row in done.items]     # in their order


def test_rare_ones_several_times_as_evenly_as_can_be() -> None:
    done = Fix(how="repeat", ratio=2).apply(labelled(yes=100, no=20), TOOLS)
    assert counted(done.items) == {"yes": 100, "no": 50}
    times = Counter(row.origin.line for row in done.items if row.sample.answer == "no")
    assert sorted(times.values()) == [2] * 10 + [3] * 10
    assert [change.what for change in done.log] == ["30 rows of “no” taken again"]


def test_what_is_balanced_stays() -> None:
    before = labelled(yes=30, no=10)
    assert Fix(ratio=3).apply(before, TOOLS).items == before
    assert Fix().apply([], TOOLS).items == []


def test_the_order_of_rows_does_not_matter_and_a_seed_does() -> None:
    before = labelled(yes=100, no=10)
    shuffled = random.Random(0).sample(before, len(before))

    def chosen(fix: Fix, rows: list[Item]) -> set[int]:
        return {row.origin.line for row in fix.apply(rows, TOOLS).items}

    assert chosen(Fix(), before) == chosen(Fix(), shuffled)
    assert chosen(Fix(), before) != chosen(Fix(seed=1), before)


def by_column(*values: Any) -> list[Item]:
    return [Item(row.values | {"source": value}, row.origin, row.sample)
            for row, value in zip(texts(*(f"text {number}" for number in range(len(values)))), values, strict=True)]


def test_values_of_a_column() -> None:
    done = Fix(column="source", ratio=1).apply(by_column(*["web"] * 30, *["book"] * 10), TOOLS)
    assert Counter(row.values["source"] for row in done.items) == {"web": 10, "book": 10}


@pytest.mark.parametrize(("fix", "rows", "said"), [
    (Fix(), labelled(yes=100, no=9), "“no” has only 9 rows"),
    (Fix(column="soruce"), labelled(yes=100, no=10), 'no row has the column "soruce"'),
    (Fix(), texts(*(f"text {number}" for number in range(101))), "101 different answers"),
    (Fix(column="source"), by_column(*map(str, range(101))), '101 different values of "source"')])
def test_what_cannot_be_balanced(fix: Fix, rows: list[Item], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fix.apply(rows, TOOLS)


def test_it_is_for_training_rows_alone() -> None:
    assert Fix.only_training
