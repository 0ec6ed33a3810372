"""Where answers stand in raw rows."""

from __future__ import annotations

from typing import Any

import pytest

from tuneloop.data.labels.place import AnswerPlace, answer_place


@pytest.mark.parametrize(("rows", "place"), [
    ([({"text": "a", "label": "x"}, "x"), ({"text": "b", "label": "y "}, "y")], AnswerPlace("label")),
    ([({"text": "a", "label": 1}, "1"), ({"text": "b", "label": True}, "true")], AnswerPlace("label")),
    ([({"label": "x", "label_copy": "x"}, "x")], AnswerPlace("label")),
    ([({"first": "x", "second": "x"}, "x"), ({"first": "y", "second": "x"}, "x")], AnswerPlace("second")),
    ([({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]}, "x")],
     AnswerPlace("messages", "content")),
    ([({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]}, "x")],
     AnswerPlace("conversations", "value")),
    ([({"text": "a", "label": "0"}, "negative")], None),
    ([({"text": "a", "label": None}, ""), ({"text": "b", "label": {"x": 1}}, "x")], None),
    ([], None)])
def test_the_place_that_holds_every_answer(rows: list[tuple[dict[str, Any], str]], place: AnswerPlace | None) -> None:
    assert answer_place(rows) == place


def test_writing_makes_a_new_row() -> None:
    row = {"text": "a", "label": "x"}
    assert AnswerPlace("label").write(row, "y") == {"text": "a", "label": "y"}
    assert row["label"] == "x"
    turns = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x", "weight": 1}]}
    assert AnswerPlace("messages", "content").write(turns, "y")["messages"] == [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "y", "weight": 1}]
    assert turns["messages"][1]["content"] == "x"


@pytest.mark.parametrize("row", [{}, {"messages": []}, {"messages": "q"}, {"messages": [{"content": ["x"]}]}])
def test_rows_without_a_text_there(row: dict[str, Any]) -> None:
    assert AnswerPlace("messages", "content").read(row) is None
