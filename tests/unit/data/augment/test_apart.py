"""Made-up rows never reach validation or test, and never train beside their held-out original."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from augment_rows import loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.augment.apart import AUGMENTED_FROM, apart, beside, digest_of
from tuneloop.data.fixes.augment import Fix
from tuneloop.data.fixes.base import Item
from tuneloop.data.read import read_table
from tuneloop.data.split import Parts, split
from tuneloop.types import Conversation


def parts_of(items: list[Item], seed: int) -> tuple[Parts[Conversation], list[Item], list[Item]]:
    """Split as a run does: the originals alone, then the made-up rows beside those that train."""
    originals, made = apart(items)
    samples = [item.sample for item in originals if isinstance(item.sample, Conversation)]
    parts = split(samples, 0.2, 0.2, seed=seed, labels=False)
    joined = beside(made, [sample.origin for sample in parts.train])
    return parts, joined.train, joined.left_out


@given(st.permutations(range(20)), st.integers(0, 1_000), st.integers(1, 3), st.sets(st.integers(0, 19), max_size=3))
@settings(max_examples=60, deadline=None)
def test_held_out_rows_are_original_and_no_relative_of_theirs_trains(order: list[int], seed: int, copies: int,
                                                                     dropped: set[int]) -> None:
    items, tools = loaded(*({"prompt": f"Please explain topic number {i} once more", "completion": f"Answer {i}"}
                            for i in order))
    rows = Fix(by=("typos", "casing"), copies=copies).apply(items, tools).items
    rows = [item for item in rows if item.made_by or item.origin.line not in dropped]       # some originals are gone
    parts, joined, left_out = parts_of(rows, seed)
    assert len(parts.train) + len(parts.validation) + len(parts.test) == 20 - len(dropped & set(range(1, 20)))
    assert parts.validation
    assert parts.test
    held_out = {sample.answer for sample in (*parts.validation, *parts.test)}
    made = {item.sample for item in rows if item.made_by}
    assert not {*parts.train, *parts.validation, *parts.test} & made
    assert {item.sample.answer for item in joined} == {sample.answer for sample in parts.train}
    assert not {item.sample.answer for item in joined} & held_out
    assert len(joined) + len(left_out) == len(made)


def test_the_split_does_not_depend_on_what_was_made() -> None:
    items, tools = loaded(*({"prompt": f"Please explain topic number {i}", "completion": "Gladly."} for i in range(20)))
    alone = parts_of(items, 1)[0]
    assert parts_of(Fix(copies=2).apply(items, tools).items, 1)[0] == alone


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_made_up_rows_are_known_in_an_exported_file(tmp_path: Path, suffix: str) -> None:
    items, tools = loaded(*({"id": i, "prompt": f"Please explain topic number {i}", "completion": f"Answer {i}"}
                            for i in range(20)))
    values = [item.values for item in Fix().apply(items, tools).items]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in values))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "prompt", "completion", AUGMENTED_FROM])
            writer.writeheader()
            writer.writerows(values)
    again, _ = loaded(*(row.values for row in read_table(str(path), path.parent).rows))
    originals, made = apart(again)
    assert [item.sample.answer for item in originals] == [f"Answer {i}" for i in range(20)]
    assert [item.origin for item in made] == [item.origin for item in originals]
    assert {item.made_by for item in made} == {"augment"}
    _, joined, left_out = parts_of(again, 3)
    assert (len(joined), len(left_out)) == (12, 8)


@pytest.mark.parametrize(("a", "b"), [
    ({"n": 7, "x": None}, {"n": "7", "x": "", AUGMENTED_FROM: ""}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
])
def test_a_row_keeps_its_name_in_a_table(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert digest_of(a) == digest_of(b) != digest_of({**a, "n": "8"})
