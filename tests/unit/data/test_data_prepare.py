"""From files to Rows and their report, with the real renderer over a tokenizer of characters."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest
from data_rows import CharacterTokenizer

from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.spec import DataSpec, Split
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Origin

TOKENIZER = cast(ChatTokenizer, CharacterTokenizer())


def write(folder: Path, name: str, rows: list[tuple[str, str]]) -> None:
    (folder / name).write_text("prompt,completion\n" + "".join(f"{p},{a}\n" for p, a in rows), encoding="utf-8")


def reviews(count: int, start: int = 0) -> list[tuple[str, str]]:
    return [(f"film {i}", ["bad", "good"][i % 2]) for i in range(start, start + count)]


def prepared(folder: Path, limit: int | None = None, seed: int = 0, **spec: Any) -> Rows:
    return prepare(DataSpec(train="train.csv", **spec), folder, TOKENIZER, limit, seed)


def refused(folder: Path, limit: int | None = None, **spec: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepared(folder, limit, **spec)
    return caught.value.text


def test_a_file_becomes_rows(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(50), *reviews(3)])
    rows = prepared(tmp_path)
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (35, 5, 10)
    assert (rows.task, rows.labels) == ("labels", ["bad", "good"])
    assert str(rows.report.removed["duplicates"]) == "3 (train.csv line 52, 53, 54)"
    assert rows.report.labels["test"] == {"bad": 5, "good": 5}
    for part in ("train", "validation", "test"):
        assert [t.origin for t in rows.tokens[part]] == [c.origin for c in getattr(rows, part)]
    first = rows.tokens["train"][0]
    assert TOKENIZER.decode(first.ids[first.weights > 0].tolist()) == f"{rows.train[0].answer}<end>"


def test_hashes_and_parts_depend_on_content_and_seed_alone(tmp_path: Path) -> None:
    lines = reviews(60)
    write(tmp_path, "train.csv", lines)
    before = prepared(tmp_path)
    random.Random(0).shuffle(lines)
    write(tmp_path, "train.csv", lines)
    after = prepared(tmp_path)
    assert before.hashes == after.hashes
    assert before.hashes["test"] != prepared(tmp_path, seed=1).hashes["test"]


def test_own_files_and_leaks(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", reviews(40))
    write(tmp_path, "held.csv", reviews(10, start=35))
    rows = prepared(tmp_path, test="held.csv", split=Split(validation=5))
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (30, 5, 10)
    assert rows.report.removed["leaks"].count == 5
    assert rows.report.removed["leaks"].first[0] == Origin("train.csv", 37)
    assert "Every prompt of train.csv" in refused(tmp_path, test="train.csv")


def test_over_long_rows(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(20), ("long " * 30, "good"), ("longer " * 30, "bad")])
    text = refused(tmp_path, limit=60)
    assert text.startswith("2 rows are longer than 60 tokens: train.csv line 22 (")
    assert "data.over_length=drop" in text
    rows = prepared(tmp_path, limit=500, max_length_tokens=60, over_length="drop")
    assert rows.report.removed["over_length"].count == 2
    assert rows.report.tokens["row"].max <= 60


def test_max_train_rows_keeps_the_held_out_rows(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", reviews(100))
    rows = prepared(tmp_path, max_train_rows=20)
    assert rows.report.labels["train"] == {"bad": 10, "good": 10}
    assert rows.hashes["test"] == prepared(tmp_path).hashes["test"]
    assert rows.report.removed["not_drawn"].count == 50


def test_few_rows_say_what_became_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(5), *reviews(5), ("empty", "")])
    text = refused(tmp_path, drop_empty=True)
    assert "only 5 usable rows (removed: 1 empty, 5 duplicates)" in text
    assert "at least 10" in text


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(20), ("no answer", "")])
    text = refused(tmp_path, test="missing.csv")
    assert "train.csv line 22: the answer is empty" in text
    assert "missing.csv does not exist" in text


def test_rows_that_the_template_refuses_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.csv", reviews(20))
    monkeypatch.setattr(CharacterTokenizer, "decode", lambda self, ids: "something else")
    text = refused(tmp_path)
    assert "train.csv line 2: the tokenizer does not give the answer back" in text


def test_labels_are_warned_about(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(20), ("x", "Good ")])
    write(tmp_path, "test.csv", [*reviews(10, start=50), ("y", "great")])
    warnings = prepared(tmp_path, test="test.csv", split=Split(validation=0)).report.warnings
    assert 'the label "Good" (line 22)' in warnings[0]
    assert warnings[1] == 'the label "great" occurs in test and never in train, so it cannot be learned'


def test_report_is_json_and_readable(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [*reviews(30), ("film 0", "good"), *reviews(1)])
    report = prepared(tmp_path).report
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    text = "\n".join(report.lines())
    assert 'train: train.csv, CSV, 32 rows; the prompt is the column "prompt"' in text
    assert "exact duplicates removed: 1 (train.csv line 33)" in text
    assert "the same question with different answers, kept: 1 (train.csv line 2)" in text
    assert "answers: one of 2 labels: good 52 %, bad 48 %" in text


def test_lengths_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", [(f"{i:03}", "yes" if i % 2 else "no") for i in range(20)])
    report = prepared(tmp_path).report
    # user: 3 digits <end> assistant: is 5 + 3 + 1 + 10 characters; the answers are 2 or 3 characters and <end>
    assert report.tokens["prompt"].min == report.tokens["prompt"].max == 19
    assert (report.tokens["answer"].min, report.tokens["answer"].max, report.tokens["row"].max) == (3, 4, 23)
    assert report.supervised_percent == pytest.approx(100 * 3.5 / 22.5)
