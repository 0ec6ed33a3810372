"""Files of answers become questions, whatever format they have; what cannot be judged is named with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judging import questions, rows

from toy import write_jsonl
from tuneloop.errors import UserError
from tuneloop.people.items import items_of, pairs_of
from tuneloop.people.questions import different, read_questions


def test_a_collected_file(tmp_path: Path) -> None:
    first, second = questions(tmp_path, 2)
    assert [turn.content for turn in first.prompt] == ["Question 0?"]
    assert list(first.answers.values()) == ["poor 0", "fair 0", "good 0"]
    assert list(first.models.values()) == ["base", "tuned", "tuned"]
    assert second.origin.line == 2


def test_ids_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    there = {one.id: one.answers for one in questions(tmp_path, 5)}
    again = read_questions(write_jsonl(tmp_path / "other.jsonl", [
        row | {"completions": row["completions"][::-1], "sampled": row["sampled"][::-1]} for row in rows(5)[::-1]]))
    assert {one.id: one.answers for one in again} == there
    assert {one.models[name] for one in again for name, text in one.answers.items() if "poor" in text} == {"base"}


def test_answers_that_a_reader_cannot_tell_apart_are_one(tmp_path: Path) -> None:
    [one] = read_questions(write_jsonl(tmp_path / "f.jsonl", [
        {"prompt": "Why?", "completions": ["a  b", "a b", "c"]}, {"prompt": "Why?", "completions": ["c\n", "d"]}]))
    assert list(one.answers.values()) == ["a  b", "c", "d"]


def test_the_first_of_answers_that_are_alike_keeps_its_place() -> None:
    assert different(["x", "y", " x", "z", "y\n"]) == [0, 1, 3]


@pytest.mark.parametrize(("row", "answers"), [
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, ["a", "b"]),
    ({"prompt": "q", "ranked": ["a", "b", "c"]}, ["a", "b", "c"]),
    ({"prompt": "q", "completions": ["a", "b"], "rewards": [0, 1]}, ["a", "b"]),
    ({"prompt": "q", "responses": ["a", "b"]}, ["a", "b"]),
    ({"prompt": "q", "completion": "a"}, ["a"]),
    ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
      "completions": [[{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]]}, ["a", "b"]),
    ({"prompt": "q", "completions": []}, [])])
def test_other_rows_with_answers(tmp_path: Path, row: dict[str, object], answers: list[str]) -> None:
    [one] = read_questions(write_jsonl(tmp_path / "f.jsonl", [row]))
    assert list(one.answers.values()) == answers
    assert one.prompt[-1].content == "q"


@pytest.mark.parametrize(("text", "says"), [
    ("", "holds no rows|is empty"),
    ('{"prompt": "q", "completions": ["a"', "line 1"),
    ('{"prompt": "q", "completions": ["a", 3]}\n{"prompt": "q", "completions": [""]}', "line 1(.|\n)*line 2"),
    ('{"prompt": "q"}\n{"prompt": "r"}', "no answer to judge(.|\n)*1 more: 2"),
    ('{"completions": ["a", "b"]}', "prompt is empty|line 1")])
def test_what_cannot_be_judged_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "f.jsonl").write_text(text)
    with pytest.raises(UserError, match=says):
        read_questions(tmp_path / "f.jsonl")


def test_a_version_of_data_is_exported_first() -> None:
    with pytest.raises(UserError, match="tuneloop data export data:tries"):
        read_questions(Path("data:tries"))


# --- items -----------------------------------------------------------------------------------------------------------


def test_all_pairs_come_round_by_round(tmp_path: Path) -> None:
    found = items_of(questions(tmp_path, 4), "compare")
    assert len(found) == len({item.id for item in found}) == 12
    assert all(len({item.question for item in found[i:i + 4]}) == 4 for i in (0, 4, 8))
    assert len(items_of(questions(tmp_path, 4), "compare", per_prompt=2)) == 8


def test_the_first_n_pairs_use_every_answer_twice() -> None:
    for n in range(3, 8):
        names = [str(i) for i in range(n)]
        found = pairs_of(names)
        assert len(found) == len(set(found)) == n * (n - 1) // 2
        assert all(sum(name in pair for pair in found[:n]) == 2 for name in names)


@pytest.mark.parametrize(("ask", "items"), [("order", 4), ("thumbs", 12), ("stars", 12)])
def test_other_ways_to_ask(tmp_path: Path, ask: str, items: int) -> None:
    assert len(items_of(questions(tmp_path, 4), ask)) == items     # type: ignore[arg-type]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two different answers(.|\n)*collect more"):
        items_of(questions(tmp_path, 3, ["only"]), "compare")
    with pytest.raises(UserError, match="too many to put in order"):
        items_of(questions(tmp_path, 1, [f"answer {chr(97 + i)}" for i in range(10)]), "order")


def test_lines_of_the_file_are_json(tmp_path: Path) -> None:
    questions(tmp_path, 1)
    assert set(json.loads((tmp_path / "collected.jsonl").read_text())) == {"prompt", "completions", "sampled"}
