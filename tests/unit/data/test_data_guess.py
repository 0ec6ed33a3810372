"""What `init` guesses, and recipes that parse whatever columns and paths are called."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from data_rows import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.guess import guess, quoted, recipe_text
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError


def write(path: Path, rows: list[list[str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def test_columns_are_guessed_and_the_recipe_reads_the_same_rows(tmp_path: Path) -> None:
    rows = [[str(i), f"a text about film number {i}", ["pos", "neg"][i >= 10]] for i in range(20)]
    path = write(tmp_path / "my reviews.csv", [["id", 'the "text": #1', "tone"], *rows])
    found = guess(path, "my reviews.csv")
    assert (found.prompt, found.answer, found.task) == (
        '{the "text": #1}\n\nAnswer with one of: neg, pos.', "{tone}", "labels")
    assert [row.answer for row in found.examples] == ["pos", "neg", "pos"]
    recipe = yaml.safe_load(recipe_text(found, "smollm2-135m-instruct"))
    assert DataSpec(**recipe["data"]) == DataSpec(train="my reviews.csv", prompt=found.prompt, answer="{tone}")
    assert recipe["goal"] == {"metric": "accuracy", "better_than_base_by": 0.05}
    assert (recipe["method"], recipe["objective"], recipe["training"]) == ("lora", "sft", {})


def test_known_formats_need_no_templates(tmp_path: Path) -> None:
    path = write(tmp_path / "faq.csv", [["question", "answer"], *([f"q {i}", f"a {i}"] for i in range(12)), ["q", ""]])
    found = guess(path, "faq.csv")
    recipe = yaml.safe_load(recipe_text(found, "base"))
    assert recipe["data"] == {"train": "faq.csv", "drop_empty": True}
    assert (found.task, found.empty, recipe["goal"]["metric"]) == ("open", [14], "rouge_l")


@given(st.text())
def test_quoted_text_parses_back(text: str) -> None:
    assert yaml.safe_load(f"key: {quoted(text)}  # comment") == {"key": text}


CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}")
NAMES = st.text(CHARACTERS, min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.lists(NAMES, min_size=2, max_size=4, unique=True), NAMES)
@settings(max_examples=40, deadline=None)
def test_recipes_parse_for_any_names(tmp_path_factory: pytest.TempPathFactory, columns: list[str], base: str) -> None:
    rows = [[f"cell {i % (2 + c)} " * (1 + c) for c in range(len(columns))] for i in range(30)]
    path = write(tmp_path_factory.mktemp("guess") / "rows.csv", [columns, *rows])
    with suppress(UserError):           # too few columns are left when the others look like identifiers
        found = guess(path, base)
        recipe = yaml.safe_load(recipe_text(found, base))
        assert (recipe["base"], recipe["data"]["train"]) == (base, base)
        assert recipe["data"].get("prompt") == found.prompt


@pytest.mark.parametrize(("name", "answer", "task"), [
    ("banking77/train.jsonl", "{category}", "labels"), ("sst2/dev.jsonl", "{label}", "labels"),
    ("meqsum/meqsum.jsonl", "{Summary}", "open"), ("gsm8k/test.jsonl", None, "open"),
    ("fmt_llamafactory_demos/alpaca_zh_demo.jsonl", None, "open"), ("mmlu/test.jsonl.gz", None, "labels"),
])
def test_real_files(name: str, answer: str | None, task: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip("the shared data is not here")
    found = guess(SHARED / name, name)
    assert (found.answer, found.task) == (answer, task)
    assert yaml.safe_load(recipe_text(found, "base"))["data"]["train"] == name


def test_pairs_without_a_prompt_are_not_taken_for_questions(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [["chosen", "rejected"], *([f"a {i}", f"b {i}"] for i in range(12))])
    with pytest.raises(UserError, match="the prompt is empty"):
        guess(path)


@pytest.mark.parametrize(("header", "row", "objective", "metric"), [
    (["prompt", "chosen", "rejected"], ["Q{}", "good {}", "bad {}"], "dpo", "preference_accuracy"),
    (["question", "response", "label"], ["Q{}", "A {}", "true"], "kto", "rouge_l"),
])
def test_rows_that_judge_get_an_objective_that_learns_from_them(header: list[str], row: list[str], objective: str,
                                                                metric: str, tmp_path: Path) -> None:
    rows = [[cell.format(i) for cell in row] for i in range(12)]
    rows[0] = ["false" if cell == "true" else cell for cell in rows[0]]
    path = write(tmp_path / "judged.csv", [header, *rows])
    recipe = yaml.safe_load(recipe_text(guess(path), "base"))
    assert (recipe["objective"], recipe["goal"]["metric"]) == (objective, metric)
    assert "prompt" not in recipe["data"]
