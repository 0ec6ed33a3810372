"""Calls against the functions of their row, and their results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from checked_rows import assistant, chat, found, user

from tuneloop.data.checks.tool_calls import Check
from tuneloop.types import Message, ToolCall

FLY = {"type": "object", "required": ["height"], "properties": {
    "height": {"type": "integer"}, "mode": {"type": "string", "enum": ["slow", "fast"]},
    "to": {"type": ["array", "null"]}}}


def tool(parameters: dict[str, Any], name: str = "fly") -> str:
    return json.dumps({"type": "function", "function": {"name": name, "parameters": parameters}})


def call(name: str = "fly", **arguments: Any) -> Message:
    return assistant("", ToolCall(name, json.dumps(arguments)))


def seen(*turns: Message, tools: tuple[str, ...] = (tool(FLY),)) -> dict[str, list[str]]:
    """Kinds with their examples."""
    return {kind: list(f.examples) for kind, f in found(Check(), [chat(user("Q"), *turns, tools=tools)]).items()}


@pytest.mark.parametrize(("turn", "kind", "example"), [
    (call("land"), "unknown_tool", "land"),
    (call(), "missing_argument", "fly: height"),
    (call(height=3, speed=2), "unknown_argument", "fly: speed"),
    (call(height="3"), "wrong_argument", 'fly: height is "3"'),
    (call(height=True), "wrong_argument", "fly: height is true"),
    (call(height=3, mode="warp"), "wrong_argument", 'fly: mode is "warp"'),
])
def test_calls_that_the_schema_does_not_allow(turn: Message, kind: str, example: str) -> None:
    assert seen(turn) == {kind: [example]}


@pytest.mark.parametrize("turn", [call(height=3), call(height=3.0, mode="slow", to=None), call(height=1, to=[])])
def test_calls_that_it_allows(turn: Message) -> None:
    assert seen(turn) == {}


@pytest.mark.parametrize(("parameters", "odd"), [
    ({"height": {"type": "int"}}, True), ({"type": "dict", "properties": {}}, True),
    ({"type": "object", "properties": {"a": {"type": "str, optional"}}}, True), ({}, False), (FLY, False),
    ({"type": "object"}, False)])
def test_parameters_that_are_no_schema(parameters: dict[str, Any], odd: bool) -> None:
    assert ("odd_schema" in seen(assistant("No."), tools=(tool(parameters),))) is odd


RESULT = Message("tool", '{"done": true}')


@pytest.mark.parametrize(("turns", "kinds"), [
    ([call(height=1), RESULT, assistant("A")], []),
    ([call(height=1)], []),                                               # a call may end the conversation
    ([call(height=1), call(height=2), RESULT, RESULT, assistant("A")], []),
    ([call(height=1), assistant("A")], ["no_result"]),
    ([call(height=1), user("And?"), assistant("A")], ["no_result"]),
    ([assistant("fly: 1"), RESULT, assistant("A")], ["orphan_result"]),
    ([call(height=1), call(height=2), RESULT, assistant("A")], ["joined_results"]),
    ([call(height=1), Message("tool", json.dumps(json.dumps({"a": 1}))), assistant("A")], ["double_encoded"]),
])
def test_results(turns: list[Message], kinds: list[str]) -> None:
    assert list(seen(*turns)) == kinds


def test_calls_without_a_list_of_tools() -> None:
    assert seen(call(height=1), tools=()) == {"no_tools": ["fly"]}
