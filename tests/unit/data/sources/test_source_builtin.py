"""The rows that come with tuneloop: what they claim is true, each is there once, and each can be trained on."""

from __future__ import annotations

import doctest
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_tokenizer
from tuneloop.data.augment.overlap import Known
from tuneloop.data.checks._refusing import boilerplate, refuses
from tuneloop.data.read import read_table
from tuneloop.data.recognise import choose
from tuneloop.data.render import render
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Origin, Rendered

NAMES = ("safety", "general")
EQUATION = re.compile(r"([-+*/().,\d ]*\d[)]?) = ([-\d.,]*\d)")


def rows(name: str, *categories: str) -> list[dict[str, Any]]:
    values = [row.values for row in read_table(f"builtin:{name}", Path()).rows]
    return [row for row in values if not categories or row["category"] in categories]


def said(row: dict[str, Any]) -> tuple[str, str]:
    question, answer = row["messages"]
    return question["content"], answer["content"]


def numbers(text: str) -> list[Fraction]:
    return [Fraction(number.replace(",", "")) for number in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)]


def value(expression: str) -> Fraction:
    exact = re.sub(r"[\d.,]+", lambda number: f"Fraction('{number[0].replace(',', '')}')", expression)
    return Fraction(eval(exact, {"Fraction": Fraction}))


def test_sizes() -> None:
    safety = Counter((row["category"], row["kind"]) for row in rows("safety"))
    assert len(safety) == 24
    assert set(safety.values()) == {5}
    general = Counter(row["category"] for row in rows("general"))
    assert sum(general.values()) == 167
    assert len(general) == 16


@pytest.mark.parametrize("name", NAMES)
def test_every_question_is_there_once(name: str) -> None:
    known = Known()
    for row in rows(name):
        assert not known.has_like(said(row)[0], 0.85)
        known.add(said(row)[0])


def test_the_files_hold_nothing_else_and_no_two_rows_of_both_are_alike() -> None:
    keys = {name: {tuple(row) for row in rows(name)} for name in NAMES}
    assert keys == {"safety": {("category", "kind", "messages")}, "general": {("category", "messages")}}
    known = Known(said(row)[0] for row in rows("safety"))
    assert not any(known.has_like(said(row)[0], 0.7) for row in rows("general"))


def test_harmful_requests_are_refused_and_others_answered() -> None:
    for row in rows("safety"):
        answer = said(row)[1]
        declines = re.search(r"\bI (?:can't|won't)\b|\bI'm not going to\b|\bI'd rather not\b", answer[:150])
        assert bool(declines) == (row["kind"] == "refuse"), answer
        assert not (refuses(answer) and row["kind"] == "help")
        assert not boilerplate(answer)
        assert len(answer) < 600
        if row["kind"] == "refuse":
            assert len(re.findall(r"[.!?]", answer)) >= 2, "a refusal says what one can do instead"


@pytest.mark.parametrize("row", rows("general", "arithmetic", "units"), ids=lambda row: said(row)[0])
def test_sums_are_right_and_about_the_question(row: dict[str, Any]) -> None:
    question, answer = said(row)
    (left, right), = EQUATION.findall(answer)
    assert value(left) == value(right)
    used = numbers(left)
    assert all(number in used or number / 100 in used for number in numbers(question))
    assert all(number in [*used, *numbers(question), abs(value(right))] for number in numbers(answer))


@pytest.mark.parametrize("row", rows("general", "sorting"), ids=lambda row: said(row)[0])
def test_what_is_sorted_is_in_order(row: dict[str, Any]) -> None:
    question, answer = said(row)
    given, result = question.rpartition(": ")[2].split(", "), answer.split(", ")
    months = ["January", "March", "July", "October"]
    orders: dict[str, Any] = {"alphabetically": str, "smallest": float, "largest": lambda text: -float(text),
                              "years": int, "length": len, "months": months.index}
    first = min((name for name in orders if name in question), key=question.index)
    assert result == sorted(given, key=orders[first])


def test_code_does_what_it_shows() -> None:
    shown = [said(row)[1] for row in rows("general", "code")]
    tests = [doctest.DocTestParser().get_doctest(answer.replace("```", ""), {}, answer[:20], None, 0)
             for answer in shown if ">>>" in answer]
    assert len(tests) == 8
    assert [doctest.DocTestRunner().run(test).failed for test in tests] == [0] * len(tests)


def test_formats_can_be_read() -> None:
    answers = {said(row)[0].split(":")[0]: said(row)[1] for row in rows("general", "formatting")}
    assert json.loads(answers["Write as JSON with the keys name and age"]) == {"name": "Lena", "age": 31}
    assert json.loads(answers["Turn into a JSON list"]) == ["red", "green", "blue"]
    assert json.loads(answers["Answer with a JSON object with the key sentiment"]) == {"sentiment": "positive"}


def test_letters_and_words_are_counted_right() -> None:
    answers = dict(map(said, rows("general", "counting")))
    for question, answer in answers.items():
        quoted = re.findall(r'"([^"]+)"', question)
        if "letters does" in question:
            assert numbers(answer) == [len(quoted[0])]
        elif "letter r" in question:
            assert numbers(answer) == [quoted[0].count("r")]
        elif "words are" in question:
            assert numbers(answer) == [len(quoted[0].split())]
        elif "vowels" in question:
            vowels = [letter for letter in quoted[0] if letter in "aeiou"]
            assert answer.endswith(f"has {len(vowels)} vowels: {', '.join(vowels)}.")
        elif "items" in question:
            assert numbers(answer) == [question.count(",") + 1]
        else:
            assert answer == "-".join(quoted[0])


def test_extracts_are_in_the_text() -> None:
    for row in rows("general", "extraction"):
        question, answer = said(row)
        if not answer.startswith(("The text does not", "Order number")):
            assert all(part.strip(" .").lower() in question.lower() for part in answer.split(","))


@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_trained_on(name: str, tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    table = read_table(f"builtin:{name}", Path())
    mapped = choose(table, Conversation)
    samples = [mapped.make(row.values, Origin(table.file, row.line)) for row in table.rows]
    rendered = render(samples, ChatTokenizer(tmp_path))
    assert len(rendered) == len(table.rows)
    assert all(isinstance(row, Rendered) and row.supervised for row in rendered)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        read_table("builtin:savety", Path())
    assert caught.value.text == ("builtin:savety: there are no built-in rows of that name.\n"
                                 "  wanted: one of: builtin:general, builtin:safety\n"
                                 "  fix:    did you mean builtin:safety?")
