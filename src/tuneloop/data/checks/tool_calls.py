"""Calls of functions: that they exist, take these arguments, and are answered.

Arguments that are not one JSON object, such as JSON within JSON, are no calls: such rows cannot be read at all, and the
report says so of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Conversation, Message, ToolCall

REMEMBERED = 10_000     # lists of functions: most rows share theirs
_SCHEMA_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "str": str, "integer": int, "int": int, "number": (int, float), "float": (int, float),
    "boolean": bool, "bool": bool, "array": list, "list": list, "object": dict, "dict": dict, "null": type(None),
}


class Check(base.Check):
    """Calls that the functions of their row do not allow, and results that are missing or come from nowhere."""

    about = "tool calls: unknown functions, arguments against their schema, calls without results and the reverse"

    def __init__(self) -> None:
        self._tally = Tally("tool_calls")
        self._schemas = lru_cache(REMEMBERED)(_schemas)

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            if not isinstance(sample, Conversation):
                continue
            if sample.tools:
                schemas = self._schemas(sample.tools)
                if odd := next((name for name, schema in schemas.items() if not _is_schema(schema)), None):
                    self._tally.add("odd_schema", origin, odd)
                for turn in sample.messages:
                    for call in turn.calls:
                        for kind, example in _against(call, schemas):
                            self._tally.add(kind, origin, example)
            elif called := [call.name for turn in sample.messages for call in turn.calls]:
                self._tally.add("no_tools", origin, called[0])
            if sample.messages and any(turn.role == "tool" or turn.calls for turn in sample.messages):
                for kind, example in _unanswered(sample.messages):
                    self._tally.add(kind, origin, example)

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        return [
            *told("unknown_tool", "fix", "call a function that is not among their tools", "name it in tools, or mend "
                  "the call"),
            *told("missing_argument", "fix", "call a function without an argument that it requires", "add it to the "
                  "call, or take it out of the function's required"),
            *told("unknown_argument", "fix", "call a function with an argument that it does not have", "mend the "
                  "call, or the function's properties"),
            *told("wrong_argument", "fix", "call a function with an argument of a type or value that it does not "
                  "allow", "mend the call, or the function's properties"),
            *told("orphan_result", "fix", "hold a tool's result that no call asked for", "write the call as a call, "
                  "not as text, before its result"),
            *told("no_result", "fix", "hold a call that is not answered before the talk goes on", "add the tool's "
                  "turn with its result"),
            *told("joined_results", "note", "answer several calls in one tool's turn", "give every call a tool's turn "
                  "of its own"),
            *told("no_tools", "note", "call a function, but list no tools", "list the functions in tools, as the "
                  "model will see them in use"),
            *told("odd_schema", "note", "list a function whose parameters are no JSON schema", "write parameters as "
                  '{"type": "object", "properties": {…}}, with the types string, integer, number, boolean, array and '
                  "object"),
            *told("double_encoded", "fix", "hold a tool's result that is JSON within JSON", "encode the result once"),
        ]


def _schemas(tools: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The parameters of each function by its name; where they are no schema, nothing is known of them."""
    functions = [json.loads(tool)["function"] for tool in tools]
    return {function["name"]: parameters if isinstance(parameters := function.get("parameters"), dict) else {}
            for function in functions}


def _is_schema(parameters: dict[str, Any]) -> bool:
    """Whether parameters are an object's schema with the types that JSON schema knows; none at all are fine."""
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict) or (parameters and "properties" not in parameters and "type" not in parameters):
        return False
    return all(_has_known_type(schema) for schema in (parameters, *properties.values()))


def _has_known_type(schema: Any) -> bool:
    names = schema.get("type", ()) if isinstance(schema, dict) else ()
    return all(isinstance(name, str) and name.lower() in _SCHEMA_TYPES
               for name in (names if isinstance(names, list | tuple) else [names]))


def _against(call: ToolCall, schemas: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What is wrong with a call: kind and example."""
    schema = schemas.get(call.name)
    if schema is None:
        yield "unknown_tool", call.name
        return
    arguments, properties = json.loads(call.arguments), schema.get("properties")
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in arguments:
            yield "missing_argument", f"{call.name}: {name}"
    if not isinstance(properties, dict):
        return
    for name, value in arguments.items():
        if name not in properties:
            if schema.get("additionalProperties") in (None, False):
                yield "unknown_argument", f"{call.name}: {name}"
        elif isinstance(properties[name], dict) and not _allowed(value, properties[name]):
            yield "wrong_argument", f"{call.name}: {name} is {json.dumps(value, ensure_ascii=False)[:40]}"


def _allowed(value: Any, wanted: dict[str, Any]) -> bool:
    """Whether type and enum of a JSON schema allow a value; what else a schema may say is not looked at."""
    allowed = wanted.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return False
    names = wanted.get("type")
    names = names if isinstance(names, list) else [names]
    types = [_TYPES.get(name.lower()) if isinstance(name, str) else None for name in names]
    if None in types:
        return True
    return any(_is(value, type_) for type_ in types if type_)


def _is(value: Any, wanted: type | tuple[type, ...]) -> bool:
    """JSON's true is no number, and 3.0 is an integer."""
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, wanted) or (wanted is int and isinstance(value, float) and value.is_integer())


def _unanswered(turns: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Calls without results, and results without calls. A call that ends the conversation needs none."""
    open_calls: list[str] = []
    answered = 0
    for turn in turns:
        if turn.role == "tool":
            answered += 1
            if not open_calls and answered == 1:
                yield "orphan_result", turn.content[:60]
            if _is_text_of_json(turn.content):
                yield "double_encoded", turn.content[:60]
            continue
        if open_calls and not (turn.calls and not answered):
            if not answered:
                yield "no_result", ", ".join(open_calls)
            elif answered < len(open_calls):
                yield "joined_results", ", ".join(open_calls)
            open_calls = []
        open_calls += [call.name for call in turn.calls]
        answered = 0


def _is_text_of_json(content: str) -> bool:
    """Whether a result is the JSON of a text that is itself an object or a list."""
    if not content.startswith(('"{', '"[', '"\\"')):
        return False
    try:
        return isinstance(json.loads(json.loads(content)), dict | list)
    except (ValueError, TypeError, RecursionError):
        return False
