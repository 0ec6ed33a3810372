"""Files of rows: their format or formats, and every problem of a file at once, by line."""

from __future__ import annotations

from typing import Any

import pytest
from data_rows import SHARED, read, recognise_as, table
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.flaws import RowError
from tuneloop.data.recognise import choose
from tuneloop.errors import Problems, UserError
from tuneloop.types import Conversation, Message, Origin, Preference, Prompt, Ranked, Rated, Rollout, Text

ORIGIN = Origin("rows.jsonl", 1)
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def only(*rows: dict[str, Any], **options: Any) -> tuple[Message, ...]:
    return recognise_as(table(*rows), Conversation, **options).samples[0].messages


def refused(*rows: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        recognise_as(table(*rows), Conversation, **options)
    return caught.value.text


def test_optional_columns_count_even_where_most_rows_lack_them() -> None:
    found = recognise_as(table({"instruction": "Q", "output": "A"}, {"instruction": "R", "output": "A"},
                               {"instruction": "S", "output": "A", "input": "I"}), Conversation)
    assert found.samples[2].prompt[0].content == "S\n\nI"
    assert found.sentence == 'the prompt is the columns "instruction" and "input", the answer the column "output"'


def test_plain_texts_are_refused_as_what_they_are() -> None:
    assert "rows.jsonl holds plain texts, which this objective does not learn from" in refused(
        {"text": "The bridge is old."}, {"text": "So is the ferry."})


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
    found = recognise_as(table(*rows), Conversation, drop_empty=True)
    assert [o.line for o in found.dropped] == [3, 5, 6]
    assert len(found.samples) == 5


@pytest.mark.parametrize(("messages", "said"), [
    ("Hi", '"messages" is a text'),
    ([], "there is no assistant turn"),
    ([USER], "there is no assistant turn"),
    ([USER, ASSISTANT, USER], "ends with a user turn"),
    ([ASSISTANT], "the prompt is empty"),
    ([USER, {"role": "bot", "content": "x"}], "unknown role 'bot'"),
    ([USER, {"content": "x"}], "a message has no role"),
    ([USER, {"role": "assistant", "content": None}], "the content of a message is null"),
    ([USER, {"role": "assistant", "content": 3}], "the content of a message is a number"),
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
        recognise_as(table({"prompt": "Q", "completion": "A"}, {"prompt": "Q"}, {"prompt": "", "completion": "A"},
                           {"prompt": ["Q"], "completion": "A"}, {"messages": [USER]}, {"prompt": "R"},
                           {"colour": "red"}), Conversation)
    assert [p.found.split(". ")[0] for p in caught.value.problems] == [
        'rows.jsonl line 2: "completion" is missing', "rows.jsonl line 3: the prompt is empty",
        'rows.jsonl line 4: "prompt" holds a list and not a text', "rows.jsonl line 5: there is no assistant turn",
        "rows.jsonl line 7: no known row format in the columns colour"]
    assert "mend line 2 (1 more: 6)." in caught.value.text
    assert "Most rows are prompt and completion; mend line 7." in caught.value.text


# --- several formats in one file -------------------------------------------------------------------------------------


CHAT, PLAIN = {"messages": [USER, ASSISTANT]}, {"prompt": "Hi", "completion": "Hello"}
PAIR = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}


def test_rows_of_several_formats_are_all_read_and_counted() -> None:
    found = recognise_as(table(PLAIN, CHAT, PLAIN, PLAIN, CHAT), Conversation)
    assert {sample.messages for sample in found.samples} == {(Message("user", "Hi"), Message("assistant", "Hello"))}
    assert found.sentence == (
        'the rows have 2 formats: 3 rows as prompt and completion (the prompt is the column "prompt", the answer the '
        'column "completion"); 2 rows, the first at line 2, as chats (each row is a chat, messages with role and '
        'content)')


def test_rows_of_another_kind_are_refused_with_their_lines() -> None:
    text = refused(PLAIN, CHAT, PAIR, PLAIN, PAIR)
    assert "rows.jsonl mixes rows that this objective learns from with others: 2 rows as prompt and completion" in text
    assert "2 rows, the first at line 3, as pairs of answers" in text


def test_a_look_without_a_kind_takes_whatever_rows_are() -> None:
    rows = [PLAIN, CHAT, PAIR, PLAIN | {"label": True}, {"prompt": "Hi", "completions": ["a", "b"], "rewards": [0, 1]},
            {"prompt": "Hi", "ranked": ["a", "b"]}, {"input": "Hi", "ideal": "Hello"}, {"text": "Hi"}]
    mapped = choose(table(*rows))
    assert "formats" not in mapped.sentence
    kinds = [type(mapped.make(row, Origin("rows.jsonl", line))) for line, row in enumerate(rows, 1)]
    assert kinds == [Conversation, Conversation, Preference, Rated, Rollout, Ranked, Prompt, Text]
    assert [(part.rows, part.first.line) for part in mapped.parts.values()] == [(1, line) for line in range(1, 9)]
    assert "the rows have 8 formats: 1 row as prompt and completion" in mapped.sentence


def test_rows_after_the_head_may_be_of_a_new_format() -> None:
    mapped = choose(table(CHAT), Conversation)
    assert mapped.make(PLAIN | {"id": 3}, Origin("rows.jsonl", 9000)) == mapped.make(CHAT, Origin("rows.jsonl", 9000))
    with pytest.raises(RowError, match="the row is of another kind, pairs of answers"):
        mapped.make(PAIR, Origin("rows.jsonl", 9001))


def test_a_table_of_several_formats_holds_nulls() -> None:
    """As Parquet has it: every row has all columns."""
    empty = dict.fromkeys(["messages", "prompt", "completion", "text"])
    rows = [empty | CHAT, empty | PLAIN, empty | {"text": "T"}, empty | {"prompt": "Hi"}]
    mapped = choose(table(*rows))
    assert mapped.make(rows[0], ORIGIN) == mapped.make(rows[1], ORIGIN)
    with pytest.raises(RowError, match="the answer is empty"):
        mapped.make(rows[3], ORIGIN)


def test_a_null_is_no_other_format_where_the_columns_are_shared() -> None:
    mapped = choose(table(*[PLAIN | {"label": bool(i % 2)} for i in range(8)]))
    with pytest.raises(RowError, match='"label" is null'):
        mapped.make(PLAIN | {"label": None}, ORIGIN)


def test_columns_that_tell_nothing_are_guessed_for_a_look_and_refused_for_training() -> None:
    rows = [{"text": f"film {i}", "label": ["good", "bad"][i % 2]} for i in range(20)]
    mapped = choose(table(*rows))
    assert mapped.guessed == ("{text}\n\nAnswer with one of: bad, good.", "{label}")
    assert mapped.sentence == ('a guess (data.prompt and data.answer correct it): the prompt is made from the column '
                               '"text", the answer from the column "label"')
    assert mapped.make(rows[1], ORIGIN).answer == "bad"
    assert "data.answer='{label}'" in refused(*rows)


def test_a_few_rows_of_a_known_format_do_not_decide_over_the_others() -> None:
    rows = [{"text": f"film {i}", "label": ["good", "bad"][i % 2]} for i in range(20)] + [CHAT] * 3
    mapped = choose(table(*rows))
    assert [mapped.make(row, ORIGIN).answer for row in (*rows[:2], CHAT)] == ["good", "bad", "Hello"]
    assert mapped.sentence.startswith("the rows have 2 formats: 2 rows as plain columns (a guess")
    assert "no known row format in the columns text, label" in refused(*rows)


def test_a_file_without_rows() -> None:
    with pytest.raises(UserError, match="holds no rows"):
        choose(table())


def test_unknown_columns_are_shown_with_templates_that_would_work() -> None:
    rows = [{"id": i, "phrase": "long enough " * 3 + str(i), "tone": ["up", "down"][i % 2]} for i in range(20)]
    text = refused(*rows)
    assert "columns id, phrase, tone" in text
    assert "data.prompt='{phrase}\n\nAnswer with one of: down, up.' data.answer='{tone}'" in text


def test_system_goes_before_conversations_without_one() -> None:
    own = {"role": "system", "content": "Own"}
    found = recognise_as(table({"messages": [USER, ASSISTANT]}, {"messages": [own, USER, ASSISTANT]}), Conversation,
                         system="Be kind")
    assert [c.messages[0].content for c in found.samples] == ["Be kind", "Own"]


REAL = {
    "fmt_llamafactory_demos/alpaca_en_demo.jsonl": (Conversation, 999),
    "fmt_llamafactory_demos/c4_demo.jsonl": (Text, 300),
    "fmt_llamafactory_demos/alpaca_zh_demo.jsonl": (Conversation, 1000),
    "fmt_llamafactory_demos/dpo_en_demo.jsonl": (Preference, 300),
    "fmt_llamafactory_demos/dpo_zh_demo.jsonl": (Preference, 300),
    "fmt_llamafactory_demos/glaive_toolcall_en_demo.jsonl": (Conversation, 300),
    "fmt_llamafactory_demos/glaive_toolcall_zh_demo.jsonl": (Conversation, 300),
    "fmt_llamafactory_demos/identity.jsonl": (Conversation, 91),
    "fmt_llamafactory_demos/kto_en_demo.jsonl": (Rated, 300),
    "fmt_llamafactory_demos/mllm_audio_demo.jsonl": (Conversation, 3),
    "fmt_llamafactory_demos/mllm_demo.jsonl": (Conversation, 6),
    "fmt_llamafactory_demos/mllm_video_audio_demo.jsonl": (Conversation, 3),
    "fmt_llamafactory_demos/mllm_video_demo.jsonl": (Conversation, 3),
    "fmt_llamafactory_demos/reason_tool_use_demo_50.jsonl": (Conversation, 50),
    "fmt_llamafactory_demos/v1_dpo_demo.jsonl": (Preference, 10),
    "fmt_llamafactory_demos/v1_multimodal_demo.jsonl": (Conversation, 0),       # its images lie elsewhere
    "fmt_llamafactory_demos/v1_sft_demo.jsonl": (Conversation, 500),
    "fmt_openai_chat_cookbook/drone_training_first5.jsonl": (Conversation, 2),
    "fmt_openai_chat_cookbook/toy_chat_fine_tuning.jsonl": (Conversation, 5),
    "fmt_sharegpt_fastchat/dummy_conversation.jsonl": (Conversation, 500),
    "hh_rlhf_harmless_test/harmless_base_test.jsonl": (Preference, 2303), "banking77/test.jsonl": (Conversation, 3080),
    "wikitext2/valid.jsonl": (Text, 2461), "ifeval/input_data.jsonl": (Prompt, 541),
}
FLAWS = {
    "fmt_llamafactory_demos/v1_multimodal_demo.jsonl": {
        "the file of an image is not there, or empty": list(range(1, 25))},
    "fmt_openai_chat_cookbook/drone_training_first5.jsonl": {
        "the arguments of a call are JSON within JSON, a text in place of an object": [3, 4, 5]},
    "hh_rlhf_harmless_test/harmless_base_test.jsonl": {
        "the answer is empty": [87, 517, 926, 1104],
        "chosen and rejected follow different conversations": [1255, 1689, 1951, 1953, 2037]},
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows_are_what_they_are_and_odd_ones_are_told_by_line(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the public data sets are not here")
    rows = read(path, name)
    mapped = choose(rows, folder=path.parent)
    kind, count = REAL[name]
    flaws: dict[str, list[int]] = {}
    samples = []
    for row in rows.rows:
        try:
            samples.append(mapped.make(row.values, Origin(name, row.line)))
        except RowError as error:
            flaws.setdefault(error.what, []).append(row.line)
    assert ({type(sample) for sample in samples} or {kind}, len(samples)) == ({kind}, count)
    assert flaws == FLAWS.get(name, {})
