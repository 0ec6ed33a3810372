"""The fix that makes rows: in every format of rows only the question changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from augment_rows import Model, loaded

from tuneloop.data.augment import parse
from tuneloop.data.augment.apart import AUGMENTED_FROM, digest_of
from tuneloop.data.augment.asked import leaves
from tuneloop.data.fix import apply_all, parse_words
from tuneloop.data.fixes.augment import Fix
from tuneloop.errors import UserError
from tuneloop.types import Conversation

ASKED, ANSWER = "Please explain how refunds normally work", "Refunds are paid within fourteen days"
FORMATS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"prompt": ASKED, "completion": ANSWER}, {}),
    ({"messages": [{"role": "system", "content": "Kindly answer customers"}, {"role": "user", "content": ASKED},
                   {"role": "assistant", "content": ANSWER}]}, {}),
    ({"instruction": ASKED, "input": "", "output": ANSWER}, {}),
    ({"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWER}]}, {}),
    ({"review": ASKED, "verdict": ANSWER, "reviewer": "somebody else"},
     {"prompt": "Please explain:\n\n{review}", "answer": "{verdict}"}),
    ({"prompt": ASKED, "chosen": ANSWER, "rejected": "Nobody knows anything about it"}, {}),
    ({"prompt": ASKED, "completion": ANSWER, "label": True}, {}),
]


def answers(sample: Any) -> Any:
    return sample.answer, [m for m in sample.prompt if m.role != "user"]


@pytest.mark.parametrize(("values", "templates"), FORMATS)
def test_in_every_format_the_question_changes_and_nothing_else(values: dict[str, Any],
                                                               templates: dict[str, str]) -> None:
    items, tools = loaded(values, **templates)
    before = json.dumps(values)
    applied = Fix(by=("typos",), rate=0.5).apply(items, tools)
    original, made = applied.items
    assert original is items[0]
    assert json.dumps(values) == before
    assert (made.made_by, made.origin) == ("augment", original.origin)
    assert made.values[AUGMENTED_FROM] == digest_of(values)
    assert made.sample == tools.again(made.values, made.origin)
    assert answers(made.sample) == answers(original.sample)
    assert made.sample.prompt[-1].content != original.sample.prompt[-1].content
    assert json.dumps(made.values).count(ANSWER) == 1
    changed = [key for key, value in values.items() if made.values[key] != value]
    assert len(changed) == 1
    assert [str(change) for change in applied.log] == ["1 row made by typos: rows.jsonl line 1"]


def test_labels_in_the_question_stay_and_are_found_by_themselves() -> None:
    rows = [{"text": f"The story number {i} was wonderful to read tonight", "label": ("positive", "negative")[i % 2]}
            for i in range(12)]
    items, tools = loaded(*rows, prompt="Is this positive or negative?\n\n{text}", answer="{label}")
    made = Fix(by=("typos", "casing", "deletion"), rate=0.5).apply(items, tools).items
    assert len(made) == 48
    for item in made:
        assert item.sample.prompt[-1].content.startswith("Is this positive or negative?\n\n")
        assert item.sample.answer in ("positive", "negative")


def test_the_same_seed_makes_the_same_rows_in_any_order_of_the_file() -> None:
    rows = [{"prompt": f"{ASKED} in country {name}", "completion": ANSWER} for name in ("France", "Spain", "Italy")]
    made = [{json.dumps(item.values) for item in Fix(copies=3, seed=4).apply(*loaded(*given)).items}
            for given in (rows, rows[::-1])]
    assert made[0] == made[1]
    other = {json.dumps(item.values) for item in Fix(copies=3, seed=5).apply(*loaded(*rows)).items}
    assert made[0] != other


def test_copies_that_are_equal_are_made_once() -> None:
    items, tools = loaded({"prompt": "Explain it", "completion": "No."})
    made = Fix(by=("casing",), copies=20).apply(items, tools).items
    assert sorted(item.values["prompt"] for item in made) == ["EXPLAIN IT", "Explain it", "explain it"]


def test_a_question_of_one_word_is_not_deleted() -> None:
    applied = Fix(by=("deletion",)).apply(*loaded({"prompt": "Why?", "completion": "So."}))
    assert [item.values["prompt"] for item in applied.items] == ["Why?"]


def test_made_up_rows_are_no_parents() -> None:
    items, tools = loaded({"prompt": ASKED, "completion": ANSWER})
    once = Fix().apply(items, tools).items
    twice = Fix(seed=1).apply(once, tools).items
    assert [item.made_by for item in twice] == ["", "augment", "augment"]
    assert {item.values.get(AUGMENTED_FROM) for item in twice} == {None, digest_of(items[0].values)}


def test_rows_that_ask_nothing_are_told() -> None:
    applied = Fix().apply(*loaded({"text": "Plain text for training, without any question in it."}))
    assert len(applied.items) == 1
    assert [(str(change), change.why) for change in applied.log] == [
        ("from 1 row nothing was made by typos: rows.jsonl line 1", "they ask nothing")]


def test_questions_said_differently() -> None:
    model = Model(json.dumps(["In which way do refunds normally work?", "Refunds", "Tell me how refunds work, please"]))
    items, tools = loaded({"instruction": ASKED, "input": "For the shop", "output": ANSWER},
                          {"instruction": "", "input": "Why?", "output": "So."}, generate=model)
    applied = Fix(by=("paraphrase",), copies=3).apply(items, tools)
    assert [item.values["instruction"] for item in applied.items] == [
        ASKED, "In which way do refunds normally work?", "Tell me how refunds work, please", ""]
    assert applied.items[1].values["input"] == "For the shop"
    assert [str(change) for change in applied.log] == [
        "2 rows made by paraphrase: rows.jsonl line 1, 1", "3 of the texts that a model wrote for paraphrase refused",
        "1 of the texts that a model wrote for paraphrase refused"]
    assert applied.log[0].examples[0] == f"{ASKED} → In which way do refunds normally work?"
    assert applied.log[2].why == "hardly a word in common with the original"


def test_new_tasks_take_the_form_of_the_row_they_are_like() -> None:
    topics = ("gravity", "algebra", "poetry", "music", "chess", "Rome", "tides", "cells")
    rows = [{"messages": [{"role": "user", "content": f"Please explain topic {topic} to a student"},
                          {"role": "assistant", "content": "Gladly."}]} for topic in topics]
    model = Model(parse.line(instruction="How would you explain tides of the sea in a poem", output="Like this."))
    applied = Fix(by=("self_instruct",), new=1).apply(*loaded(*rows, generate=model))
    made = [item for item in applied.items if item.made_by]
    assert [item.sample for item in made] == [made[0].sample]
    assert isinstance(made[0].sample, Conversation)
    assert [m.content for m in made[0].sample.messages] == ["How would you explain tides of the sea in a poem",
                                                            "Like this."]
    assert made[0].origin.line == 7
    assert applied.items.index(made[0]) == 7


@pytest.mark.parametrize("way", ["paraphrase", "self_instruct"])
def test_a_model_is_needed(way: str) -> None:
    fix, = parse_words(["augment", f"by={way}"])
    items, tools = loaded({"prompt": ASKED, "completion": ANSWER})
    with pytest.raises(UserError, match=f"augment by={way} needs a model that writes"):
        apply_all(items, [fix], tools)


def test_it_is_for_training_rows_alone() -> None:
    fix, = parse_words(["augment", "by=typos,deletion", "rate=0.2"])
    assert fix.only_training
    assert fix == Fix(by=("typos", "deletion"), rate=0.2)


def test_where_a_chat_of_several_turns_asks_and_answers() -> None:
    items, tools = loaded({"id": "7", "messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"}]})
    found = leaves(items[0], tools.again)
    assert found.asked == [("messages", 0, "content"), ("messages", 2, "content")]
    assert found.answered == [("messages", 3, "content")]
