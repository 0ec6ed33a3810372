"""One label for every item that several people have labelled."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tuneloop.data.fixes.adjudicate import Fix
from tuneloop.data.fixes.base import Applied, Item, Tools
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Origin

PEOPLE = ("anna", "ben", "cleo", "dora", "emil")
SKILLS = (0.8, 0.8, 0.8, 0.0, 0.0)


def made(values: dict[str, Any], origin: Origin) -> Conversation:
    answer = values.get("label", values.get("label_anna"))
    return Conversation((Message("user", values["text"]), Message("assistant", answer)), origin)


def items(rows: list[dict[str, Any]]) -> list[Item]:
    places = [Origin("rows.csv", line) for line in range(1, len(rows) + 1)]
    return [Item(row, place, made(row, place)) for row, place in zip(rows, places, strict=True)]


def rated(count: int = 300) -> list[tuple[str, list[str]]]:
    """Items with their true label and what five people said, of whom two only guess."""
    draw = random.Random(0)
    labels = ("ham", "spam")
    return [(true := draw.choice(labels), [true if draw.random() < skill else draw.choice(labels) for skill in SKILLS])
            for _ in range(count)]


def right(done: Applied, truth: list[str], column: str = "label") -> float:
    assert all(row.sample == made(row.values, row.origin) for row in done.items)
    return sum(row.values[column] == true for row, true in zip(done.items, truth, strict=True)) / len(truth)


def test_a_column_for_each_annotator() -> None:
    truth = [true for true, _ in rated()]
    rows = [{"text": f"q{number}", **{f"label_{who}": label for who, label in zip(PEOPLE, said, strict=True)}}
            for number, (_, said) in enumerate(rated())]
    done = Fix().apply(items(rows), Tools(made))
    majority = sum(max(set(said), key=said.count) == true for true, said in rated()) / 300
    best = sum(said[0] == true for true, said in rated()) / 300
    assert right(done, truth, "label_anna") > max(majority, best) + 0.02        # the column that answers are read from
    assert all(0.5 <= row.values["label_confidence"] <= 1 for row in done.items)
    [change] = done.log
    assert change.what == f"300 items have one label now; that of {len(change.places)} rows is another than before"
    assert change.examples[0].startswith("label_anna is right in ")
    assert rows[0].keys() == {"text", *(f"label_{who}" for who in PEOPLE)}      # as they were


def test_into_another_column() -> None:
    rows = [{"text": f"q{n}", "label_anna": label, "label_ben": label} for n, label in enumerate("abab")]
    done = Fix(into="label").apply(items(rows), Tools(made))
    assert [row.values["label"] for row in done.items] == list("abab")
    assert [row.values["label_anna"] for row in done.items] == list("abab")


def test_a_row_for_each_annotator() -> None:
    rows = [{"text": f"q{number}", "label": label, "annotator": who} for number, (_, said) in enumerate(rated())
            for who, label in zip(PEOPLE, said, strict=True)]
    done = Fix().apply(items(rows), Tools(made))
    assert [row.origin.line for row in done.items] == list(range(1, 1501, 5))
    assert right(done, [true for true, _ in rated()]) > 0.93
    assert [(change.what, len(change.places)) for change in done.log[1:]] == [("1,200 rows dropped", 1200)]


def test_a_list_in_a_column_and_rows_that_nobody_rated() -> None:
    rows = [{"text": f"q{number}", "label": "x", "annotations": said}
            for number, said in enumerate([["y", "y", "x"], [], ["x", "x", "x"]])]
    done = Fix().apply(items(rows), Tools(made))
    assert [row.values["label"] for row in done.items] == ["y", "x", "x"]
    assert done.items[1].values == rows[1]
    assert [str(change) for change in done.log] == [
        "2 items have one label now; that of 1 row is another than before: rows.csv line 1"]


def test_unsure_items_can_be_dropped() -> None:
    rows = [{"text": f"q{number}", **{f"label_{who}": label for who, label in zip(PEOPLE, said, strict=True)}}
            for number, (_, said) in enumerate(rated())]
    done = Fix(least_confidence=0.95).apply(items(rows), Tools(made))
    assert 200 < len(done.items) < 300
    assert all(row.values["label_confidence"] >= 0.95 for row in done.items)
    assert done.log[-1].what == f"{300 - len(done.items)} rows dropped"


def test_rows_without_annotators() -> None:
    with pytest.raises(UserError, match="no column holds what several annotators said"):
        Fix().apply(items([{"text": "q", "label": "x"}]), Tools(made))
