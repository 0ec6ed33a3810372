"""Tools that a model may call, and its calls, from every way in which rows write them to one: OpenAI's.

A tool becomes the JSON text of `{"type": "function", "function": {"name": …, "parameters": …}}`, as chat templates take
it. The arguments of a call become the JSON text of an object, written anew, so that the same call is the same text.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.base import Values, kind_of
from tuneloop.types import ToolCall

DECLARATIONS = ("functionDeclarations", "function_declarations")
_ONE_OBJECT = "Arguments are the text of one JSON object, encoded once;"
_LIST_OF_FUNCTIONS = "Tools are a list of functions, each with a name;"


def tools_of(value: Any) -> tuple[str, ...]:
    """A list of functions, or the JSON text of one: OpenAI's, bare functions, or Gemini's declarations."""
    if isinstance(value, str):
        try:
            value = parsed(value) if value.strip() else None
        except ValueError:
            raise RowError("the tools are a text that is not valid JSON", _LIST_OF_FUNCTIONS) from None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowError(f"the tools are {kind_of(value)}", _LIST_OF_FUNCTIONS)
    return tuple(_tool(function) for tool in value for function in _functions(tool))


def _functions(tool: Any) -> list[Any]:
    if not isinstance(tool, dict):
        raise RowError(f"a tool is {kind_of(tool)}", _LIST_OF_FUNCTIONS)
    for key in DECLARATIONS:
        if isinstance(tool.get(key), list):
            return list(tool[key])
    return [tool["function"] if isinstance(tool.get("function"), dict) else tool]


def _tool(function: Any) -> str:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError("a tool has no name", _LIST_OF_FUNCTIONS)
    return written({"type": "function", "function": function}, "a tool")


def calls_of(message: Values) -> tuple[ToolCall, ...]:
    """What an assistant turn calls: OpenAI's `tool_calls`, or its older `function_call`."""
    listed, single = message.get("tool_calls"), message.get("function_call")
    if not listed:
        return (_call(single),) if single else ()
    if not isinstance(listed, list):
        raise RowError(f"tool_calls is {kind_of(listed)}", "Calls are a list;")
    return tuple(_call(called) for called in listed)


def calls_in(text: Any) -> tuple[ToolCall, ...]:
    """The call, or the list of calls, whose JSON is the text of a ShareGPT turn."""
    if isinstance(text, str):
        try:
            text = parsed(text)
        except ValueError:
            raise RowError("a turn that calls a function is not valid JSON",
                           'It is {"name": …, "arguments": {…}};') from None
    return tuple(_call(called) for called in (text if isinstance(text, list) else [text]))


def _call(called: Any) -> ToolCall:
    if not isinstance(called, dict):
        raise RowError(f"a call is {kind_of(called)}", "A call has a name and arguments;")
    function = called["function"] if isinstance(called.get("function"), dict) else called
    return call(function.get("name"), function.get("arguments"), called.get("id"))


def call(name: Any, arguments: Any, call_id: Any = None) -> ToolCall:
    """A call of a function by its name, its arguments as an object or as the JSON text of one."""
    if not isinstance(name, str) or not name:
        raise RowError("a call names no function", "A call has a name and arguments;")
    if isinstance(arguments, str):
        try:
            arguments = parsed(arguments)
        except ValueError:
            raise RowError("the arguments of a call are not valid JSON", _ONE_OBJECT) from None
        if isinstance(arguments, str):
            raise RowError("the arguments of a call are JSON within JSON, a text in place of an object", _ONE_OBJECT)
    if not isinstance(arguments, dict):
        raise RowError(f"the arguments of a call are {kind_of(arguments)}", _ONE_OBJECT)
    return ToolCall(name, written(arguments, "a call"), call_id if isinstance(call_id, str) else "")


def parsed(text: str) -> Any:
    """The value of a JSON text. Raises ValueError also for what is nested too deeply, and for NaN and infinities."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def written(value: Any, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise RowError(f"{what} holds what is no JSON, such as an infinite number", "Numbers are finite;") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
