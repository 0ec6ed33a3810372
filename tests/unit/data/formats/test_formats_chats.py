"""Whole conversations in every dialect: OpenAI, ShareGPT, parts, Gemini; tools, calls and what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from format_rows import ASSISTANT, USER, A, Q, flaw, made
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.formats.calls import call, tools_of
from tuneloop.types import Conversation, Media, Message, ToolCall

WEATHER = {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}}
TOOL = '{"type": "function", "function": {"name": "weather", "description": "of a city", ' \
       '"parameters": {"type": "object", "properties": {}}}}'
CALL = ToolCall("weather", '{"city": "Rome"}')
TOLD = Message("tool", "sunny")


def calling(arguments: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"messages": [USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": function} | more]},
                         {"role": "tool", "content": "sunny"}, ASSISTANT]}


@pytest.mark.parametrize("tools", [
    [WEATHER], [{"type": "function", "function": WEATHER}], json.dumps([WEATHER]),
    [{"functionDeclarations": [WEATHER]}], [{"function_declarations": [WEATHER]}],
])
def test_tools_are_written_in_one_way(tools: Any) -> None:
    assert tools_of(tools) == (TOOL,)
    assert made({"messages": [USER, ASSISTANT], "tools": tools}).tools == (TOOL,)


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_tools(tools: Any) -> None:
    assert made({"messages": [USER, ASSISTANT], "functions": tools}).tools == ()


@pytest.mark.parametrize(("tools", "told"), [
    ("weather", "the tools are a text that is not valid JSON"), ({"a": 1}, "the tools are an object"),
    ([3], "a tool is a number"), ([{"type": "web_search"}], "a tool has no name"), (4, "the tools are a number"),
    ([{"name": "f", "limit": float("inf")}], "a tool holds what is no JSON"),
])
def test_what_is_wrong_with_tools(tools: Any, told: str) -> None:
    assert told in flaw({"messages": [USER, ASSISTANT], "tools": tools})


@pytest.mark.parametrize("row", [
    calling('{"city":"Rome"}'), calling({"city": "Rome"}),
    {"messages": [USER, {"role": "assistant", "content": None, "function_call": {
        "name": "weather", "arguments": '{"city": "Rome"}'}}, {"role": "function", "content": "sunny"}, ASSISTANT]},
    {"conversations": [{"from": "human", "value": "Q"},
                       {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                       {"from": "observation", "value": "sunny"}, {"from": "gpt", "value": "A"}]},
    {"messages": [USER, {"role": "assistant", "content": [
        {"type": "tool_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'}]},
        {"role": "tool", "content": [{"type": "text", "value": "sunny"}]}, ASSISTANT]},
    {"contents": [{"role": "user", "parts": [{"text": "Q"}]},
                  {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]},
                  {"role": "user", "parts": [{"functionResponse": {"response": {"output": "sunny"}}}]},
                  {"role": "model", "parts": [{"text": "A"}]}]},
])
def test_a_call_and_its_answer_in_every_dialect(row: dict[str, Any]) -> None:
    assert made(row).messages == (Q, Message("assistant", "", calls=(CALL,)), TOLD, A)


def test_several_calls_with_ids_and_a_text() -> None:
    calls = [{"id": f"c{i}", "type": "function", "function": {"name": "weather", "arguments": f'{{"day": {i}}}'}}
             for i in (1, 2)]
    told = [{"role": "tool", "tool_call_id": f"c{i}", "name": "weather", "content": {"sky": i}} for i in (1, 2)]
    row = {"messages": [USER, {"role": "assistant", "content": "Let me see.", "tool_calls": calls}, *told, ASSISTANT]}
    assert made(row).messages[1:4] == (
        Message("assistant", "Let me see.", calls=(ToolCall("weather", '{"day": 1}', "c1"),
                                                   ToolCall("weather", '{"day": 2}', "c2"))),
        Message("tool", '{"sky": 1}', call_id="c1", name="weather"),
        Message("tool", '{"sky": 2}', call_id="c2", name="weather"))


def test_a_chat_may_end_with_a_call_and_rows_say_so_in_their_sentence() -> None:
    row = {"messages": calling("{}")["messages"][:2], "tools": [WEATHER], "parallel_tool_calls": False}
    assert made(row).messages[-1].calls == (ToolCall("weather", "{}"),)


@pytest.mark.parametrize(("arguments", "told"), [
    ('"{\\"city\\": \\"Rome\\"}"', "the arguments of a call are JSON within JSON"),
    ("{city: Rome}", "the arguments of a call are not valid JSON"), ("", "the arguments of a call are not valid JSON"),
    ("[1]", "the arguments of a call are a list"), (None, "the arguments of a call are null"),
    ('{"x": NaN}', "not valid JSON"), ('{"x": 1e999}', "what is no JSON"), ('{"x": "\\ud800"}', "surrogate pair"),
    ("[" * 100_000, "not valid JSON"),
])
def test_what_is_wrong_with_arguments(arguments: Any, told: str) -> None:
    assert told in flaw(calling(arguments))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())))
def test_arguments_are_the_same_text_however_they_were_written(arguments: dict[str, Any]) -> None:
    ways = [arguments, json.dumps(arguments), json.dumps(arguments, indent=2),
            json.dumps(arguments, ensure_ascii=False)]
    assert len({call("f", way) for way in ways}) == 1
    assert json.loads(call("f", arguments).arguments) == arguments


@pytest.mark.parametrize(("message", "told"), [
    ({"role": "assistant", "tool_calls": "weather"}, "tool_calls is a text"),
    ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "a call names no function"),
    ({"role": "assistant", "tool_calls": ["weather"]}, "a call is a text"),
    ({"role": "user", "content": [{"type": "tool_call", "value": '{"name": "f", "arguments": {}}'}]},
     "a user turn calls a function"),
    ({"from": "function_call", "value": "weather(Rome)"}, "a turn that calls a function is not valid JSON"),
    ({"role": "user", "content": [{"type": "hologram"}]}, "has the type 'hologram'"),
    ({"role": "user", "content": [{"type": "text", "text": 3}]}, "the text of a part of a message is a number"),
    ({"role": "user", "content": [4]}, "a part of a message is a number"),
    ({"role": "assistant", "content": "x", "loss_weight": 0.3}, "the loss_weight 0.3"),
    ({"role": "assistant", "content": "x", "train": "no"}, "train: no"),
])
def test_what_is_wrong_with_a_message(message: dict[str, Any], told: str) -> None:
    assert told in flaw({"messages": [USER, message, ASSISTANT]})


@pytest.mark.parametrize(("said", "role"), [("developer", "system"), ("human", "user"), ("function_response", "tool")])
def test_roles_by_other_names(said: str, role: str) -> None:
    assert made({"messages": [{"from": said, "value": "x"}, USER, ASSISTANT]}).messages[0] == Message(role, "x")


def test_text_in_parts_and_refusals() -> None:
    parts = [{"type": "text", "text": "two "}, {"type": "input_text", "text": "parts"}]
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    assert [m.content for m in made({"messages": [{"role": "user", "content": parts}, refusal]}).messages] == [
        "two parts", "I cannot."]


@pytest.mark.parametrize("answer", [
    {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "A"}]},
    {"role": "assistant", "content": "A", "reasoning_content": "Hm."},
])
def test_thoughts_go_before_the_answer_as_bases_write_them(answer: dict[str, Any]) -> None:
    assert made({"messages": [USER, answer]}).answer == "<think>\nHm.\n</think>\n\nA"


def test_weights_of_every_tool_switch_the_loss_off() -> None:
    turns = [USER, ASSISTANT | {"loss_weight": 0.0}, USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT | {"weight": 1}]
    assert [m.train for m in made({"messages": turns}).messages] == [True, False, True, False, True, True]


def test_chats_in_csv_are_json() -> None:
    assert made({"messages": json.dumps([USER, ASSISTANT])}).messages == (Q, A)
    assert '"messages" is not valid JSON' in flaw({"messages": "[oops"})


def test_system_columns_come_before_the_recipes() -> None:
    row = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "Own"}
    assert made(row, system="Fixed").messages[0] == Message("system", "Own")
    assert made(row | {"system": " "}, system="Fixed").messages[0] == Message("system", "Fixed")


def test_gemini() -> None:
    row = {"systemInstruction": {"parts": [{"text": "Be kind."}]},
           "contents": [{"role": "user", "parts": [{"text": "Look: "}, {"inlineData": {
               "mimeType": "image/png", "data": "AAAA"}}, {"file_data": {
                   "mime_type": "video/mp4", "file_uri": "gs://films/a.mp4"}}]},
               {"role": "model", "parts": [{"text": "A"}]}], "tools": [{"functionDeclarations": [WEATHER]}]}
    assert made(row) == Conversation((
        Message("system", "Be kind."),
        Message("user", "Look: <image><video>", media=(Media("image", "data:image/png;base64,AAAA"),
                                                       Media("video", "gs://films/a.mp4"))), A),
        made(row).origin, (TOOL,))


@pytest.mark.parametrize(("content", "told"), [
    ({"role": "user"}, "a content has no parts"), ({"role": "bot", "parts": []}, "unknown role 'bot'"),
    ({"role": "user", "parts": ["x"]}, "a part of a content is a text"),
    ({"role": "user", "parts": [{"executableCode": {}}]}, "a part of a content holds executablecode"),
    ({"role": "user", "parts": [{"inlineData": {"mimeType": "text/plain", "data": "AAAA"}}]}, "the type 'text/plain'"),
    ("x", "a content has no parts"),
])
def test_what_is_wrong_with_gemini(content: Any, told: str) -> None:
    assert told in flaw({"contents": [content, {"role": "model", "parts": [{"text": "A"}]}]})
