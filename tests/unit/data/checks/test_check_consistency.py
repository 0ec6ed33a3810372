"""Answers unlike the others in form: each kind by line."""

from __future__ import annotations

import json

import pytest
from checked_rows import answers, found, lines, qa, texts

from tuneloop.data.checks._json_answers import keys_of
from tuneloop.data.checks._layout import Form, form_of
from tuneloop.data.checks.consistency import Check
from tuneloop.types import Origin, Rated


def test_labels_in_several_spellings_and_a_slip() -> None:
    said = ["positive", "negative"] * 10 + ["Positive", "positive ", "postive", "Negative."]
    seen = found(Check(), answers(*said))
    assert sorted(seen) == ["slip", "spelling"]
    assert lines(seen["spelling"]) == [21, 22, 24]
    assert seen["spelling"].severity == "fix"
    assert seen["spelling"].fix == "tuneloop data fix FILE relabel column=answer"
    assert seen["spelling"].examples[0] == '"Positive" for "positive": rows.jsonl line 21'
    assert lines(seen["slip"]) == [23]
    assert seen["slip"].fix == "tuneloop data fix FILE relabel column=answer 'map={\"postive\": \"positive\"}'"
    assert seen["slip"].what == "1 row has a label that looks like a slip of another"


def test_labels_in_one_spelling_are_no_finding() -> None:
    assert found(Check(), answers(*["yes", "no", "Maybe so."] * 10)) == {}


def test_labels_in_chats_are_no_column() -> None:
    rows = [qa("Q", label, line) for line, label in enumerate([*["yes", "no"] * 6, "Yes"], 1)]
    values = [{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": row.answer}]}
              for row in rows]
    assert found(Check(), rows, values=values)["spelling"].fix == "tuneloop data fix FILE relabel"


def objects(*others: str) -> list[str]:
    return [json.dumps({"name": f"n{number}", "age": number}) for number in range(20)] + list(others)


@pytest.mark.parametrize(("other", "kind", "example"), [
    ('{"name": "n"}', "missing_keys", '"age": rows.jsonl line 21'),
    ('{"name": "n", "age": "4"}', "other_kinds", '"age": rows.jsonl line 21'),
    ('{"name": "n", "age": 4, "nam": 1}', "rare_keys", '"nam": rows.jsonl line 21'),
    ('{"name": "n", "age": 4', "broken_json", None),
    ("The name is n.", "no_json", "The name is n.")])
def test_json_unlike_the_others(other: str, kind: str, example: str | None) -> None:
    seen = found(Check(), answers(*objects(other)))
    assert list(seen) == [kind]
    assert lines(seen[kind]) == [21]
    assert list(seen[kind].examples) == ([example] if example else [])


def test_null_is_of_any_kind_and_a_list_has_no_keys() -> None:
    assert found(Check(), answers(*objects('{"name": "n", "age": null}'))) == {}
    assert lines(found(Check(), answers(*objects("[1]")))["missing_keys"]) == [21]


def test_objects_that_differ_by_design_are_no_finding() -> None:
    assert found(Check(), answers(*(json.dumps({"name": 1, f"k{number % 4}": 1}) for number in range(40)))) == {}


def test_the_keys_of_an_answer() -> None:
    assert keys_of('{"b": 1, "a": [], "c": null, "d": true}') == (
        ("a", "a list"), ("b", "a number"), ("c", ""), ("d", "true or false"))
    assert keys_of("[1]") == ()
    assert keys_of("{") is None
    assert keys_of("[" * 100_000) is None


@pytest.mark.parametrize(("usual", "other", "kind"), [
    ("Water is wet, said {}.", "- wet\n- cold", "layout_list"),
    ("Water is wet, said {}.", "```\nx\n```", "layout_code"),
    ("Water is wet, said {}.", "# Water\nIt is wet.", "layout_headings"),
    ("Water is wet, said {}.", "It is\nwet.", "layout_paragraphs"),
    ("1. a\n2. {}", "One is a.", "layout_one_line"),
    ("City {}", "Answer: Paris", "lead_in_with"),
    ("Answer: City {}", "Paris", "lead_in_without"),
    ("City {}", "Paris.", "end_closed"),
    ("City {}.", "Paris", "end_open"),
    ("City {}", "paris", "capital_small"),
    ("city {}", "Paris", "capital_large"),
    ("1{}", "12 km", "number_unit"),
    ("1{}", "1,200", "number_thousands"),
    ("1{} km", "12", "number_bare")])
def test_a_few_answers_laid_out_in_another_way(usual: str, other: str, kind: str) -> None:
    rows = answers(*(usual.format(number) for number in range(15)), other)
    seen = found(Check(), rows)
    assert lines(seen[kind]) == [16]
    assert seen[kind].severity == ("fix" if kind.startswith("lead_in") else "note")


def test_mixed_layouts_are_no_finding() -> None:
    assert found(Check(), answers(*["One line here.", "- a\n- b"] * 10)) == {}
    assert found(Check(), answers("Water is wet.", "- a\n- b")) == {}           # too few to tell what is usual


def test_forms_by_hand() -> None:
    assert form_of("$ 12.50") == Form("one_line", "without", number="unit")
    assert form_of("**Answer:** Paris") == Form("one_line", "with", "open", "large")
    assert form_of("The answer is Paris.") == Form("one_line", "without", "closed", "large")
    assert form_of("5 of them") == Form("one_line", "without", "open", "")
    assert form_of("x" * 61) == Form("one_line", "without")


def test_only_what_a_model_is_to_imitate_is_looked_at() -> None:
    rows = [Rated((), "Answer: a" if line > 20 else f"City {line}", line <= 20, Origin("rows.jsonl", line))
            for line in range(1, 23)]
    assert found(Check(), rows) == {}
    assert found(Check(), texts(*["One line."] * 20, "Answer: a")) == {}
    assert found(Check(), answers(*["City"] * 20, "Answer: City"), part="evaluation") == {}
