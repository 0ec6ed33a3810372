"""Long rows in pieces: nothing is lost, every answer is learnt once and whole."""

from __future__ import annotations

import pytest
from fix_rows import TOOLS, chat, item, made, texts
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.checks.base import text_of
from tuneloop.data.fixes.base import Item, Tools
from tuneloop.data.fixes.split_long import Fix, cut_text
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Origin, Preference


def learnt(row: Item) -> list[str]:
    assert isinstance(row.sample, Conversation)
    return [m.content for m in row.sample.messages if m.role == "assistant" and m.train]


def said(row: Item) -> list[str]:
    assert isinstance(row.sample, Conversation)
    return [m.content for m in row.sample.messages]


def test_a_text_is_cut_at_paragraphs_first() -> None:
    assert cut_text("One. Two.\n\nThree. Four.\n\nFive.", 20, len) == ["One. Two.", "Three. Four.\n\nFive."]


def test_a_long_paragraph_is_cut_at_lines_then_sentences_then_words() -> None:
    assert cut_text("aaa bbb\nccc ddd", 8, len) == ["aaa bbb", "ccc ddd"]
    assert cut_text("Aa bb. Cc dd.", 8, len) == ["Aa bb.", "Cc dd."]
    assert cut_text("aa bb cc", 5, len) == ["aa bb", "cc"]
    assert cut_text("一二三。四五六。", 4, len) == ["一二三。", "四五六。"]


def test_a_word_longer_than_the_limit_is_cut_too() -> None:
    assert cut_text("abcdefgh", 3, len) == ["ab", "cd", "ef", "gh"]


@given(st.text(alphabet="ab .\n。", max_size=60), st.integers(1, 12))
def test_pieces_fit_and_together_are_the_text(text: str, limit: int) -> None:
    pieces = cut_text(text, limit, len)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_row_of_text_becomes_several_and_keeps_its_other_columns() -> None:
    rows = [item({"text": "aa bb", "title": "t"}, 3), *texts("cc")]
    done = Fix(max_characters=2).apply(rows, TOOLS)
    assert [i.values for i in done.items] == [{"text": "aa", "title": "t"}, {"text": "bb", "title": "t"},
                                              {"text": "cc"}]
    assert [str(c) for c in done.log] == ["1 row cut into 2: rows.jsonl line 3"]


def test_every_answer_of_a_chat_is_learnt_once_with_the_turns_before_it() -> None:
    whole = chat("q1", "a1", "q2", "a2", "q3", "a3", "q4", "a4", system="s")
    pieces = Fix(max_characters=20).apply([whole], TOOLS).items      # 24 in all; each turn 2 and a line end, system 1
    assert [learnt(p) for p in pieces] == [["a1", "a2", "a3"], ["a4"]]
    assert [said(p) for p in pieces] == [["s", "q1", "a1", "q2", "a2", "q3", "a3"],
                                         ["s", "q2", "a2", "q3", "a3", "q4", "a4"]]
    assert max(len(text_of(p.sample)) for p in pieces) <= 20


def test_a_tool_goes_with_the_call_it_answers() -> None:
    turns = [("user", "q1"), ("assistant", "call"), ("tool", "result"), ("assistant", "a1"), ("user", "q2"),
             ("assistant", "a2")]
    whole = item({"messages": [{"role": role, "content": text} for role, text in turns]})
    pieces = Fix(max_characters=20).apply([whole], TOOLS).items
    assert [said(p) for p in pieces] == [["q1", "call", "result", "a1"], ["q2", "a2"]]


def test_a_piece_ends_with_an_answer_that_is_learnt() -> None:
    turns = [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1", "train": False},
             {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"},
             {"role": "user", "content": "q3"}, {"role": "assistant", "content": "a3"}]
    pieces = Fix(max_characters=12).apply([item({"messages": turns})], TOOLS).items
    assert [(said(p), learnt(p)) for p in pieces] == [(["q1", "a1", "q2", "a2"], ["a2"]),
                                                      (["q3", "a3"], ["a3"])]


def test_what_cannot_be_cut_stays_and_is_named() -> None:
    single = chat("a long question", "and a long answer", line=2)
    pair = Item({}, Origin("rows.jsonl", 3),
                Preference((Message("user", "q"),), "chosen", "rejected", Origin("rows.jsonl", 3)))
    done = Fix(max_characters=10).apply([single, pair], TOOLS)
    assert done.items == [single, pair]
    assert [str(c) for c in done.log] == ["2 rows left as they are, too long: rows.jsonl line 2, 3"]


def test_a_chat_whose_format_cannot_switch_loss_off_stays() -> None:
    def again(values: dict[str, list[dict[str, str]]], origin: Origin) -> Conversation:
        return Conversation(tuple(Message(m["role"], m["content"]) for m in values["messages"]), origin)

    whole = chat("q1", "a1", "q2", "a2", "q3", "a3")
    assert Fix(max_characters=12).apply([whole], Tools(again)).items == [whole]


def test_tokens_are_counted_by_the_base() -> None:
    rows = texts("aa bb cc")
    counting = Tools(made, tokens=lambda sample: len(text_of(sample).split()))
    assert [i.values["text"] for i in Fix(max_tokens=2).apply(rows, counting).items] == ["aa bb", "cc"]
    with pytest.raises(UserError, match="needs the tokenizer of a base"):
        Fix(max_tokens=2).apply(rows, TOOLS)
