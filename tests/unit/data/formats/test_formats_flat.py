"""Rows in plain columns: prompt and answer by many names, evaluation samples, texts."""

from __future__ import annotations

from typing import Any

import pytest
from format_rows import ASSISTANT, ORIGIN, USER, A, Q, flaw, made

from tuneloop.types import Conversation, Message, Prompt, Text

EARLIER = Message("assistant", "A", train=False)


@pytest.mark.parametrize(("row", "prompt"), [
    ({"prompt": "Q", "completion": "A"}, "Q"),
    ({"context": "C", "prompt": "Q", "completion": "A"}, "C\n\nQ"),
    ({"context": "", "question": "Q", "answer": "A"}, "Q"),
    ({"Question": "Q", "Answer": "A"}, "Q"),
    ({"instruction": "Q", "response": "A"}, "Q"),
    ({"instruction": "Q", "input": "I", "response": "A"}, "Q\n\nI"),
    ({"instruction": "Q", "input": "I", "output": "A"}, "Q\n\nI"),
    ({"instruction": "Q", "input": None, "output": "A"}, "Q"),
    ({"query": "Q", "response": "A"}, "Q"),
    ({"input": "Q", "output": "A"}, "Q"),
    ({"context": "C", "input": "Q", "output": "A"}, "C\n\nQ"),
    ({"prompt": 3, "completion": "A"}, "3"),
])
def test_a_prompt_and_its_answer(row: dict[str, Any], prompt: str) -> None:
    assert made(row) == Conversation((Message("user", prompt), A), ORIGIN)


@pytest.mark.parametrize(("row", "messages"), [
    ({"system_prompt": "S", "question": "Q", "response": "A"}, (Message("system", "S"), Q, A)),
    ({"instruction": "Q", "input": "", "output": "A", "system": "S", "history": [["Hi", "Yes?"]]},
     (Message("system", "S"), Message("user", "Hi"), Message("assistant", "Yes?"), Q, A)),
    ({"instruction": "Q", "output": "A", "system": "", "history": []}, (Q, A)),
    ({"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}, (Q, EARLIER, Q, A)),
    ({"prompt": [USER], "completion": "A"}, (Q, A)),
    ({"context": "C", "prompt": [USER, ASSISTANT, USER], "completion": "A"},
     (Q, EARLIER, Message("user", "C\n\nQ"), A)),
    ({"prompt": "\n\nHuman: Q", "completion": "\n\nHuman: A"}, (Message("user", "\n\nHuman: Q"),
                                                               Message("assistant", "\n\nHuman: A"))),
])
def test_systems_histories_and_messages(row: dict[str, Any], messages: tuple[Message, ...]) -> None:
    assert made(row).messages == messages


@pytest.mark.parametrize(("row", "told"), [
    ({"prompt": ["Q"], "completion": "A"}, '"prompt" holds a list and not a text'),
    ({"prompt": "Q", "completion": {"text": "A"}}, "a message has no role"),
    ({"prompt": [ASSISTANT], "completion": "A"}, '"prompt" does not end with a user turn'),
    ({"prompt": "Q", "completion": [USER]}, '"completion" does not end with an assistant turn'),
    ({"instruction": "Q", "output": "A", "history": ["Hi", "Yes?"]}, "the history is no list of pairs"),
    ({"instruction": "Q", "output": None}, "the answer is empty"),
    ({"prompt": " ", "completion": "A"}, "the prompt is empty"),
])
def test_what_is_wrong_with_a_row(row: dict[str, Any], told: str) -> None:
    assert told in flaw(row)


@pytest.mark.parametrize(("row", "prompt", "references"), [
    ({"input": "Q", "ideal": "A"}, (Q,), ("A",)),
    ({"input": [{"role": "system", "content": "S"}, USER], "ideal": ["A", "B"]}, (Message("system", "S"), Q),
     ("A", "B")),
    ({"input": "Q", "target": ["A"], "id": 3}, (Q,), ("A",)),
    ({"prompt": "Q", "references": ["A", "B"]}, (Q,), ("A", "B")),
    ({"question": "Q", "reference": "A"}, (Q,), ("A",)),
    ({"prompt": "Q"}, (Q,), ()),
    ({"key": 3, "prompt": "Q", "kwargs": [{}]}, (Q,), ()),
])
def test_evaluation_samples(row: dict[str, Any], prompt: tuple[Message, ...], references: tuple[str, ...]) -> None:
    assert made(row) == Prompt(prompt, references, ORIGIN)


@pytest.mark.parametrize(("row", "told"), [
    ({"input": "", "ideal": "A"}, "the prompt is empty"),
    ({"input": "Q", "ideal": 3}, '"ideal" holds a number'),
    ({"input": "Q", "ideal": ["A", None]}, '"ideal" holds null'),
    ({"input": [USER], "ideal": "A", "tools": [{"name": "f"}]}, "the row offers tools"),
])
def test_what_is_wrong_with_an_evaluation_sample(row: dict[str, Any], told: str) -> None:
    assert told in flaw(row)


@pytest.mark.parametrize(("row", "text"), [
    ({"text": "T"}, Text("T", ORIGIN)),
    ({"text": "T", "source": "guide.pdf page 3"}, Text("T", ORIGIN, "guide.pdf page 3")),
    ({"text": "T", "url": "https://x.org", "timestamp": "2024"}, Text("T", ORIGIN, "https://x.org")),
    ({"content": "T"}, Text("T", ORIGIN)),
])
def test_texts(row: dict[str, Any], text: Text) -> None:
    assert made(row) == text


def test_what_is_wrong_with_a_text() -> None:
    assert "the text is empty" in flaw({"text": " "})
    assert "half of a surrogate pair" in flaw({"text": "\ud800"})
    assert '"text" holds a list' in flaw({"text": ["T"]})


@pytest.mark.parametrize("row", [
    {"prompt": "Q", "completion": "\ud800"}, {"prompt": "Q", "completion": "A", "system": "\ud800"},
    {"input": "Q", "ideal": "\ud800"}, {"text": "T", "source": "\ud800"}, {"prompt": "Q", "ranked": ["A", "\ud800"]},
    {"prompt": "Q", "chosen": "A", "rejected": "\ud800"}, {"prompt": "Q", "completion": "\ud800", "label": True},
    {"messages": [USER, ASSISTANT], "tools": [{"name": "\ud800"}]},
    {"messages": [USER, {"role": "tool", "content": "", "name": "\ud800"}, ASSISTANT]},
    {"messages": [USER, {"role": "assistant", "function_call": {"name": "\ud800", "arguments": "{}"}}]},
    {"prompt": "Q", "completion": "A", "image": "https://\ud800"},
])
def test_half_a_character_is_found_wherever_it_is(row: dict[str, Any]) -> None:
    assert "half of a surrogate pair" in flaw(row)


def test_a_template_makes_prompts_of_any_column() -> None:
    assert made({"Behavior": "Q"}, prompt="Do this: {Behavior}") == Prompt((Message("user", "Do this: Q"),), (), ORIGIN)
