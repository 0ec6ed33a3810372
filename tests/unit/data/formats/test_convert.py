"""Rows of every format from samples of every kind: the same sample comes back, or the row is refused with a reason."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from format_rows import made
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_strategies import HERE, KINDS

from tuneloop.data.convert import FORMATS, convert, convert_rows
from tuneloop.data.formats.messages import linked
from tuneloop.errors import UserError
from tuneloop.types import (
    Conversation,
    Media,
    Message,
    Origin,
    Preference,
    Prompt,
    Ranked,
    Rated,
    Rollout,
    Sample,
    Text,
    ToolCall,
)

Q, A = Message("user", "Q"), Message("assistant", "A")
HOLDS = {
    "chat": Conversation, "sharegpt": Conversation, "gemini": Conversation, "alpaca": Conversation,
    "prompt-completion": Conversation, "text": Text, "preference": Preference, "openai-preference": Preference,
    "kto": Rated, "ranked": Ranked, "rollouts": Rollout, "eval": Prompt,
}


def without_ids(sample: Any) -> Any:
    """The sample with its calls numbered in order: ids may be made up, or follow from the order."""
    part = "messages" if isinstance(sample, Conversation) else "prompt"
    if isinstance(sample, Text):
        return sample
    turns = linked(getattr(sample, part))
    numbers: dict[str, str] = {}
    renamed = []
    for i, turn in enumerate(turns):
        calls = tuple(replace(call, id=f"{i}.{n}") for n, call in enumerate(turn.calls))
        if calls:
            numbers = {old.id: new.id for old, new in reversed(list(zip(turn.calls, calls, strict=True)))}
        renamed.append(replace(turn, calls=calls, call_id=numbers.get(turn.call_id, turn.call_id), name=""))
    return replace(sample, **{part: tuple(renamed)})


def test_every_format_is_tested() -> None:
    assert set(HOLDS) == set(FORMATS)


@pytest.mark.parametrize("to", FORMATS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_written_is_recognised_as_the_same_sample(to: str, data: st.DataObject) -> None:
    comes_back(data.draw(KINDS[HOLDS[to]]), to)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_many_more_samples_come_back(to: str, data: st.DataObject) -> None:
    comes_back(data.draw(KINDS[HOLDS[to]]), to)


def comes_back(sample: Sample, to: str) -> None:
    """Unless the row is refused: see the reasons below."""
    try:
        [row] = convert([sample], to)
    except UserError:
        return
    assert without_ids(made(json.loads(json.dumps(row)))) == without_ids(sample)


# --- by hand ---------------------------------------------------------------------------------------------------------


S, EARLY = Message("system", "S"), Message("assistant", "Hi", train=False)
TOOL = '{"type": "function", "function": {"name": "f", "parameters": {}}}'
CALLING = Conversation((Q, Message("assistant", "", calls=(ToolCall("f", '{"x": 1}'), ToolCall("f", "{}"))),
                        Message("tool", "one"), Message("tool", "two"), A), HERE, (TOOL,))
SHOWING = Conversation((Message("user", "Who <image>?", media=(Media("image", "a.png"),)), A), HERE)
PAIR = Preference((Q,), "A", "B", HERE, 0.5)
LONG_PAIR = Preference((S, Q, EARLY, Q), "A", "B", HERE)
ASKED = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "Hi"},
         {"role": "user", "content": "Q"}]


def rows(sample: Sample, to: str, losses: Counter[str] | None = None) -> list[dict[str, Any]]:
    return list(convert([sample], to, losses))


@pytest.mark.parametrize(("sample", "to", "row"), [
    (Conversation((S, Q, EARLY, Q, A), HERE), "chat", {"messages": [
        *ASKED[:2], {"role": "assistant", "content": "Hi", "weight": 0}, ASKED[3],
        {"role": "assistant", "content": "A"}]}),
    (CALLING, "chat", {"messages": [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "one", "tool_call_id": "call_1"},
        {"role": "tool", "content": "two", "tool_call_id": "call_2"},
        {"role": "assistant", "content": "A"}], "tools": [json.loads(TOOL)]}),
    (SHOWING, "chat", {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Who "}, {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "text", "text": "?"}]}, {"role": "assistant", "content": "A"}]}),
    (CALLING, "sharegpt", {"conversations": [
        {"from": "human", "value": "Q"},
        {"from": "function_call",
         "value": '[{"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {}}]'},
        {"from": "observation", "value": "one"}, {"from": "observation", "value": "two"},
        {"from": "gpt", "value": "A"}], "tools": '[{"name": "f", "parameters": {}}]'}),
    (SHOWING, "sharegpt", {"conversations": [{"from": "human", "value": "Who <image>?"}, {"from": "gpt", "value": "A"}],
                           "images": ["a.png"]}),
    (CALLING, "gemini", {"contents": [
        {"role": "user", "parts": [{"text": "Q"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}},
                                    {"functionCall": {"name": "f", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "one"}}},
                                   {"functionResponse": {"name": "f", "response": {"output": "two"}}}]},
        {"role": "model", "parts": [{"text": "A"}]}],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {}}]}]}),
    (Conversation((S, Message("user", "<image>", media=(Media("image", "data:image/png;base64,AAAA"),)), A), HERE),
     "gemini", {"systemInstruction": {"parts": [{"text": "S"}]}, "contents": [
         {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
         {"role": "model", "parts": [{"text": "A"}]}]}),
    (Conversation((S, Q, A, Q, A), HERE), "alpaca", {"instruction": "Q", "input": "", "output": "A", "system": "S",
                                                     "history": [["Q", "A"]]}),
    (Conversation((Q, A), HERE), "prompt-completion", {"prompt": "Q", "completion": "A"}),
    (Text("T", HERE, "a.pdf page 2"), "text", {"text": "T", "source": "a.pdf page 2"}),
    (PAIR, "preference", {"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.5}),
    (LONG_PAIR, "preference", {"prompt": ASKED, "chosen": [{"role": "assistant", "content": "A"}],
                               "rejected": [{"role": "assistant", "content": "B"}]}),
    (LONG_PAIR, "openai-preference", {
        "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "A"}],
        "non_preferred_output": [{"role": "assistant", "content": "B"}]}),
    (LONG_PAIR, "ranked", {"prompt": ASKED, "ranked": [[{"role": "assistant", "content": "A"}],
                                                       [{"role": "assistant", "content": "B"}]]}),
    (Rated((Q,), "A", False, HERE), "kto", {"prompt": "Q", "completion": "A", "label": False}),
    (Ranked((Q,), ("A", "B"), HERE), "ranked", {"prompt": "Q", "ranked": ["A", "B"]}),
    (Ranked((Q,), ("A", "B"), HERE), "preference", {"prompt": "Q", "chosen": "A", "rejected": "B"}),
    (Rollout((Q,), ("A", "B"), (0.0, 1.0), HERE), "rollouts", {"prompt": "Q", "completions": ["A", "B"],
                                                              "rewards": [0.0, 1.0]}),
    (Prompt((Q,), ("A",), HERE), "eval", {"input": "Q", "ideal": "A"}),
    (Prompt((S, Q), ("A", "B"), HERE), "eval", {"input": ASKED[:2], "ideal": ["A", "B"]}),
])
def test_rows_as_other_tools_take_them(sample: Sample, to: str, row: dict[str, Any]) -> None:
    assert rows(sample, to) == [row]


@pytest.mark.parametrize(("sample", "to", "written", "lost"), [
    (PAIR, "chat", [{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}],
     {"the rejected answer": 1}),
    (CALLING, "alpaca", [{"instruction": "Q", "input": "", "output": "A"}],
     {"tools": 1, "calls of tools, and what they answer": 1}),
    (Conversation((Q, A, Message("user", "R"), A), HERE), "prompt-completion", [{"prompt": "R", "completion": "A"}],
     {"all turns but the last question and answer": 1}),
    (SHOWING, "prompt-completion", [{"prompt": "Who ?", "completion": "A"}], {"images, sounds and films": 1}),
    (PAIR, "kto", [{"prompt": "Q", "completion": "A", "label": True},
                   {"prompt": "Q", "completion": "B", "label": False}],
     {"which two answers belong together": 1}),
    (Rated((Q,), "A", False, HERE), "alpaca", [], {"whether people liked the answer": 1}),
    (Ranked((Q,), ("A", "B", "C"), HERE), "preference",
     [{"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A", "rejected": "C"}],
     {"the order of the answers that are not the best": 1}),
    (Rollout((Q,), ("A", "B"), (0.0, 1.0), HERE), "ranked", [{"prompt": "Q", "ranked": ["B", "A"]}],
     {"the rewards": 1}),
    (Rollout((Q,), ("A", "B"), (0.0, 1.0), HERE), "prompt-completion", [{"prompt": "Q", "completion": "B"}],
     {"the rewards, and all answers but the best": 1}),
    (Conversation((Q, A), HERE), "eval", [{"input": "Q", "ideal": "A"}], {"that the answer is to be learnt": 1}),
    (PAIR, "openai-preference", [{
        "input": {"messages": [{"role": "user", "content": "Q"}], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "A"}],
        "non_preferred_output": [{"role": "assistant", "content": "B"}]}], {"how much better an answer is": 1}),
])
def test_losses_are_named_and_counted_where_they_are_allowed(sample: Sample, to: str, written: list[dict[str, Any]],
                                                             lost: dict[str, int]) -> None:
    losses: Counter[str] = Counter()
    assert rows(sample, to, losses) == written
    assert dict(losses) == lost
    with pytest.raises(UserError, match=f"{to} rows cannot hold"):
        rows(sample, to)


def test_rows_that_cannot_be_held_are_told_with_their_lines_and_what_can_hold_them() -> None:
    samples = [replace(CALLING, origin=Origin("a.jsonl", line)) for line in (3, 5)]
    with pytest.raises(UserError) as caught:
        list(convert([Conversation((Q, A), HERE), *samples], "alpaca"))
    assert caught.value.text == (
        "a.jsonl line 3: alpaca rows cannot hold tools. chat, sharegpt, gemini can: choose one of them with --to, or "
        "leave it out with --lossy, or mend line 3 (1 more: 5).")


@pytest.mark.parametrize(("sample", "to", "told"), [
    (Text("T", HERE), "chat", "cannot hold plain text, which has no question and answer. text can"),
    (Conversation((Q, A), HERE), "text", "cannot hold questions and answers"),
    (Conversation((Q, A), HERE), "preference", "cannot hold rows that do not say which of two answers is better"),
    (Conversation((Q, A), HERE), "kto", "cannot hold rows that do not say what people liked"),
    (Prompt((Q,), (), HERE), "chat", "cannot hold a prompt that nothing answers. eval can"),
    (Rollout((Q,), ("A", "B"), (1.0, 1.0), HERE), "ranked", "cannot hold answers with the same reward"),
    (replace(CALLING, messages=CALLING.messages[:2]), "alpaca", "cannot hold a chat that ends with a call"),
])
def test_what_no_loss_could_mend_is_refused_all_the_same(sample: Sample, to: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        rows(sample, to, Counter())
    assert told in caught.value.text
    assert "--lossy" not in caught.value.text


def test_an_unknown_format() -> None:
    with pytest.raises(UserError, match="did you mean 'alpaca'"):
        rows(PAIR, "alpacca")


# --- files -----------------------------------------------------------------------------------------------------------


MANY: list[Sample] = [CALLING, Conversation((Q, EARLY, Q, A), HERE),
                      Conversation((Message("user", "a\nb, \"c\" é"), A), HERE)]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_files_hold_the_rows(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rows.{suffix}"
    assert convert_rows(iter(MANY), out, "chat") == 3
    text = "" if suffix == "parquet" else out.read_text(encoding="utf-8")
    read = {"jsonl": lambda: [json.loads(line) for line in text.splitlines()], "json": lambda: json.loads(text),
            "parquet": lambda: pyarrow.parquet.read_table(out).to_pylist()}[suffix]()
    assert [without_ids(made(row)) for row in read] == [without_ids(sample) for sample in MANY]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_flat_rows_are_written_as_csv(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    convert_rows([MANY[2], Conversation((S, Q, A), HERE)], out, "prompt-completion")
    with out.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["prompt", "completion", "system"], ["a\nb, \"c\" é", "A", ""],
                                          ["Q", "A", "S"]]


@pytest.mark.parametrize(("sample", "name", "to", "told"), [
    (MANY[1], "rows.csv", "chat", "Row 1 holds a list or an object in \"messages\", which CSV cannot hold"),
    (Conversation((Message("user", "a\rb"), A), HERE), "rows.csv", "alpaca", "carriage returns"),
    (MANY[1], "rows.txt", "chat", "has no suffix that says how to write it"),
    (MANY[1], "rows.parquet", "gemini", "which Parquet has no columns for"),
    (MANY[0], "rows.jsonl", "alpaca", "cannot hold tools"),
    (MANY[1], "folder/rows.jsonl", "chat", "cannot be written: No such file"),
])
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, sample: Sample, name: str, to: str,
                                                      told: str) -> None:
    with pytest.raises(UserError) as caught:
        convert_rows([sample], tmp_path / name, to)
    assert told in caught.value.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "samples"), [
    ("preference", [PAIR, LONG_PAIR]), ("kto", [Rated((Q,), "A", True, HERE), Rated((S, Q), "A", False, HERE)]),
    ("ranked", [Ranked((S, Q), ("A", "B"), HERE), Ranked((Q,), ("A", "B"), HERE)]),
    ("rollouts", [Rollout((S, Q), ("A", "B"), (0.0, 1.0), HERE), Rollout((Q,), ("A",), (0.0,), HERE)]),
    ("eval", [Prompt((S, Q), ("A",), HERE), Prompt((Q,), ("A",), HERE)]),
])
def test_all_rows_of_a_file_are_alike(tmp_path: Path, to: str, samples: list[Sample]) -> None:
    """Messages in all of them where some need messages; so that Parquet holds them, too."""
    convert_rows(samples, tmp_path / "rows.parquet", to)
    convert_rows(samples, tmp_path / "rows.jsonl", to)
    read = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert {type(row.get("prompt", row.get("input"))) for row in read} == {list}
    assert [made(row) for row in read] == samples
    assert [made(row) for row in pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()] == samples


def test_nothing_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No row is left"):
        convert_rows([Rated((Q,), "A", False, HERE)], tmp_path / "rows.jsonl", "chat", Counter())
    assert not list(tmp_path.iterdir())


def test_parquet_has_one_type_in_a_column(tmp_path: Path) -> None:
    mixed = [SHOWING, Conversation((Q, A), HERE)]
    with pytest.raises(UserError, match="different types in one column"):
        convert_rows(mixed, tmp_path / "rows.parquet", "chat")
    assert not list(tmp_path.iterdir())


def test_an_old_file_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("old")
    with pytest.raises(UserError):
        convert_rows([MANY[0]], out, "alpaca")
    assert out.read_text() == "old"
    convert_rows([MANY[2]], out, "alpaca")
    assert json.loads(out.read_text())["output"] == "A"
