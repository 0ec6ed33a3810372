"""The built-in items themselves: well formed, different, balanced, and no rows that tuneloop offers for training."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from tuneloop.data.augment.overlap import rouge_l, words
from tuneloop.evaluation.suites.catalog import SUITES
from tuneloop.evaluation.suites.items import rows
from tuneloop.evaluation.suites.perturb import KINDS, PARAPHRASE

LEAST = {"knowledge": 150, "instructions": 60, "fluency": 40, "formats": 30, "grounded": 80, "tasks": 100}
PARTS = {"knowledge": {"science", "geography", "history", "language", "everyday", "arithmetic"},
         "grounded": {"answerable", "unanswerable"},
         "tasks": {"sentiment", "topic", "odd-one-out", "plural", "rhyme", "unit-conversion", "opposite"}}
WITH_CHOICES = ("knowledge", "tasks")


def asked(row: dict[str, object]) -> str:
    """All that a model sees of an item."""
    return " ".join(str(row[key]) for key in ("context", "question", "prompt", "text") if key in row)


@pytest.mark.parametrize("name", LEAST)
def test_each_line_is_an_item_with_an_id_and_a_question_of_its_own(name: str) -> None:
    text = (files("tuneloop.evaluation.suites") / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    assert len(found) >= LEAST[name]
    assert len({row["id"] for row in found}) == len(found)
    assert all(not set("#/") & set(row["id"]) for row in found)
    assert len({" ".join(words(asked(row))) if name != "tasks" else asked(row) for row in found}) == len(found)
    assert all(asked(row).strip() == asked(row) and "  " not in asked(row) for row in found)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_enough_items(name: str) -> None:
    counts = Counter(row["part"] for row in rows(name) if row.get("use") != "example")
    assert set(counts) == PARTS[name]
    assert min(counts.values()) >= {"knowledge": 25, "grounded": 40, "tasks": 12}[name]


@pytest.mark.parametrize("name", WITH_CHOICES)
def test_options_differ_and_the_right_one_is_not_told_by_its_place_or_length(name: str) -> None:
    items = [row for row in rows(name) if row["part"] not in ("sentiment", "topic")]
    assert all(len(set(map(str.lower, row["choices"]))) == 4 and 0 <= row["answer"] < 4 for row in items)
    places = Counter(row["answer"] for row in items)
    assert max(places.values()) - min(places.values()) <= 1
    for extreme in (max, min):
        told = 0
        for row in items:
            lengths = [len(choice) for choice in row["choices"]]
            told += lengths[row["answer"]] == extreme(lengths) and lengths.count(extreme(lengths)) == 1
        assert told < 0.4 * len(items)


def test_labels_of_tasks_are_balanced_and_no_example_is_a_question() -> None:
    for part, kinds in (("sentiment", 2), ("topic", 4)):
        counts = Counter(row["answer"] for row in rows("tasks") if row["part"] == part and row["use"] == "test")
        assert len(counts) == kinds
        assert max(counts.values()) - min(counts.values()) <= 1
    for part in PARTS["tasks"]:
        of = [row for row in rows("tasks") if row["part"] == part]
        assert [row["use"] for row in of] == ["example"] * 5 + ["test"] * 12


def test_nothing_that_is_offered_for_training_is_asked() -> None:
    """`builtin:general` is mixed in against forgetting: what it teaches cannot show what was kept."""
    text = (files("tuneloop.data") / "builtin" / "general.jsonl").read_text(encoding="utf-8")
    trained = [words(json.loads(line)["messages"][-2]["content"]) for line in text.splitlines()]
    own = [row for name in LEAST for row in rows(name)]
    close = [(row["id"], " ".join(known)) for row, known in itertools.product(own, trained)
             if rouge_l(words(asked(row)), known) > 0.9]
    assert not close


def test_passages_are_of_several_registers_and_alike_in_length() -> None:
    counts = Counter(row["part"] for row in rows("fluency"))
    assert len(counts) == 8
    assert set(counts.values()) == {5}
    assert all(120 <= len(row["text"].encode()) <= 320 for row in rows("fluency"))


def test_a_question_with_an_answer_has_it_in_its_text_and_the_other_kind_shares_the_text() -> None:
    texts: dict[str, list[str]] = {}
    for row in rows("grounded"):
        texts.setdefault(row["context"], []).append(row["part"])
        assert bool(row["answers"]) == (row["part"] == "answerable")
        if row["answers"]:
            assert any(re.search(rf"(?<!\w){re.escape(known.lower())}", row["context"].lower())
                       for known in row["answers"]), row
    assert all(parts == ["answerable", "unanswerable"] for parts in texts.values())


def test_the_docs_name_every_suite_with_its_size_and_every_perturbation() -> None:
    text = (Path(__file__).parents[4] / "docs" / "suites.md").read_text(encoding="utf-8")
    sizes = dict(re.findall(r"^\| `(\w+)` \| (\d+)(?: × 2)? \|", text, re.MULTILINE))
    assert {name: int(size) for name, size in sizes.items()} == {
        name: sum(row.get("use") != "example" for row in rows(name)) for name in SUITES}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*SUITES, *KINDS, PARAPHRASE}
