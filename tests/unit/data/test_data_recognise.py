"""Raw rows to conversations: every format, and every problem of a file at once, by line."""

from __future__ import annotations

from typing import Any

import pytest
from data_rows import SHARED, table
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.read import read
from tuneloop.data.recognise import recognise
from tuneloop.errors import Problems, UserError
from tuneloop.types import Message

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def only(*rows: dict[str, Any], **options: Any) -> tuple[Message, ...]:
    return recognise(table(*rows), **options).samples[0].messages


def refused(*rows: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        recognise(table(*rows), **options)
    return caught.value.text


@pytest.mark.parametrize(("row", "prompt"), [
    ({"prompt": "Q", "completion": "A"}, "Q"),
    ({"context": "C", "prompt": "Q", "completion": "A"}, "C\n\nQ"),
    ({"context": "", "question": "Q", "answer": "A"}, "Q"),
    ({"Question": "Q", "Answer": "A"}, "Q"),
    ({"instruction": "Q", "response": "A"}, "Q"),
    ({"instruction": "Q", "input": "I", "output": "A"}, "Q\n\nI"),
    ({"instruction": "Q", "input": None, "output": "A"}, "Q"),
    ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}, "Q"),
])
def test_formats(row: dict[str, Any], prompt: str) -> None:
    assert only(row) == (Message("user", prompt), Message("assistant", "A"))


def test_optional_columns_count_even_where_most_rows_lack_them() -> None:
    found = recognise(table({"instruction": "Q", "output": "A"}, {"instruction": "R", "output": "A"},
                            {"instruction": "S", "output": "A", "input": "I"}))
    assert found.samples[2].prompt[0].content == "S\n\nI"


def test_weights_switch_the_loss_of_answers_off() -> None:
    turns = [USER, ASSISTANT | {"weight": 0}, USER | {"weight": 0}, ASSISTANT | {"train": False}, USER, ASSISTANT]
    assert [m.train for m in only({"messages": turns})] == [True, False, True, False, True, True]


def test_templates_win_and_take_numbers_and_braces() -> None:
    row = {"prompt": "ignored", "completion": "ignored", "a:b c.d": "x", "label": 0}
    assert only(row, prompt="{{json}} {a:b c.d}{a:b c.d}!", answer="{label}") == (
        Message("user", "{json} xx!"), Message("assistant", "0"))


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_cells_are_never_read_as_templates(literal: str, cell: str) -> None:
    prompt = literal.replace("{", "{{").replace("}", "}}") + "{text}"
    cell = cell.encode(errors="ignore").decode() or "x"
    if cell.strip():
        assert only({"text": cell, "label": "{text}"}, prompt=prompt, answer="{label}") == (
            Message("user", literal + cell), Message("assistant", "{text}"))


@pytest.mark.parametrize(("prompt", "answer", "said"), [
    ("{txt}", "{label}", 'did you mean "text"?'),
    ("{text", "{label}", "lone '{' at character 1"),
    ("no column", "{label}", "names no column"),
    ("{text}", None, "data.answer is not"),
])
def test_wrong_templates(prompt: str, answer: str | None, said: str) -> None:
    assert said in refused({"text": "a", "label": "b"}, prompt=prompt, answer=answer)


def test_an_empty_answer_is_told_as_the_design_says() -> None:
    rows = [{"prompt": str(i), "completion": "" if i in (3, 5, 6) else "A"} for i in range(1, 9)]
    assert refused(*rows) == (
        "rows.jsonl line 3: the answer is empty. Every row needs an answer; drop such rows with data.drop_empty=true, "
        "or mend line 3 (2 more: 5, 6).")
    found = recognise(table(*rows), drop_empty=True)
    assert [o.line for o in found.dropped] == [3, 5, 6]
    assert len(found.samples) == 5


@pytest.mark.parametrize(("messages", "said"), [
    ("Hi", "messages is a text"),
    ([], "there is no assistant turn"),
    ([USER], "there is no assistant turn"),
    ([USER, ASSISTANT, USER], "ends with a user turn"),
    ([ASSISTANT], "the prompt is empty"),
    ([USER, {"role": "bot", "content": "x"}], "unknown role 'bot'"),
    ([USER, {"content": "x"}], "a message has no role"),
    ([USER, {"role": "assistant", "content": None}], "the content of a message is null"),
    ([USER, {"role": "assistant", "content": 3}], "the content of a message is a number"),
    ([USER, {"role": "assistant", "content": None, "tool_calls": [{}]}], "calls a tool"),
    ([{"role": "user", "content": [{"type": "text", "text": "x"}]}, ASSISTANT], "in parts"),
    ([USER, ASSISTANT | {"weight": 0.5}], "the weight 0.5"),
    ([USER, {"role": "assistant", "content": "\ud83d"}], "half of a surrogate pair"),
    (["Hi"], "a message is a text"),
])
def test_problems_of_chats(messages: Any, said: str) -> None:
    text = refused({"messages": [USER, ASSISTANT]}, {"messages": messages})
    assert text.startswith("rows.jsonl line 2: ")
    assert said in text


def test_every_problem_of_a_file_at_once() -> None:
    with pytest.raises(Problems) as caught:
        recognise(table({"prompt": "Q", "completion": "A"}, {"prompt": "Q"}, {"prompt": "", "completion": "A"},
                        {"prompt": ["Q"], "completion": "A"}, {"messages": [USER, ASSISTANT]}, {"prompt": "R"}))
    assert [p.found.split(". ")[0] for p in caught.value.problems] == [
        'rows.jsonl line 2: "completion" is missing', "rows.jsonl line 3: the prompt is empty",
        'rows.jsonl line 4: "prompt" holds a list and not a text', 'rows.jsonl line 5: "prompt" is missing']
    assert "mend line 2 (1 more: 6)." in caught.value.text


def test_an_odd_first_row_does_not_decide_the_format() -> None:
    text = refused({"messages": [USER, ASSISTANT]}, *[{"prompt": "Q", "completion": "A"}] * 3)
    assert text.startswith('rows.jsonl line 1: "prompt" is missing')


def test_unknown_columns_are_shown_with_templates_that_would_work() -> None:
    rows = [{"id": i, "phrase": "long enough " * 3 + str(i), "tone": ["up", "down"][i % 2]} for i in range(20)]
    text = refused(*rows)
    assert "columns id, phrase, tone" in text
    assert "data.prompt='{phrase}\n\nAnswer with one of: down, up.' data.answer='{tone}'" in text


def test_other_formats_are_named() -> None:
    assert "ShareGPT rows, which are not supported yet" in refused({"conversations": []})
    assert "images" in refused({"messages": [USER, ASSISTANT], "images": ["x.png"]})


def test_system_goes_before_conversations_without_one() -> None:
    own = {"role": "system", "content": "Own"}
    found = recognise(table({"messages": [USER, ASSISTANT]}, {"messages": [own, USER, ASSISTANT]}), system="Be kind")
    assert [c.messages[0].content for c in found.samples] == ["Be kind", "Own"]


def test_real_odd_rows() -> None:
    folder = SHARED / "fmt_openai_chat_cookbook"
    if not folder.exists():
        pytest.skip("the shared data is not here")
    toy = recognise(read(folder / "toy_chat_fine_tuning.jsonl", "toy.jsonl"))
    assert [c.origin.line for c in toy.samples] == [1, 2, 3, 4, 5]
    with pytest.raises(UserError, match=r"drone\.jsonl line 1: the row has tools .* \(4 more: 2, 3, 4, 5\)"):
        recognise(read(folder / "drone_training_first5.jsonl", "drone.jsonl"))
