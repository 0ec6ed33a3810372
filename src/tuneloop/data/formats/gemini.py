"""Rows as Gemini's and Vertex AI's tuning take them: contents of roles and parts."""

from __future__ import annotations

import json
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.base import (
    Format,
    Given,
    Shape,
    Turns,
    Values,
    check_answered,
    kind_of,
    one_of_each,
    with_system,
)
from tuneloop.data.formats.calls import call, tools_of
from tuneloop.data.formats.media import mark
from tuneloop.data.formats.turns import trains
from tuneloop.types import Conversation, Media, Message, Origin, ToolCall

ROLES = {"user": "user", "model": "assistant", "function": "tool", "tool": "tool"}
TOLD = ("output", "result")         # the key of a function's answer that is a plain text
_HOLDS = "A part holds a text, data, or a call;"


def gemini(shape: Shape, given: Given) -> Format | None:
    """`contents`, with `systemInstruction` and `tools` beside them."""
    column, system = shape.find(("contents",)), shape.find(("systeminstruction", "system_instruction"))
    tools = shape.find(("tools",))
    if column is None or not shape.holds(column, list):
        return None

    def make(values: Values, origin: Origin) -> Conversation:
        contents = values.get(column)
        if not isinstance(contents, list):
            raise RowError(f'"{column}" is {kind_of(contents)}', "Contents are a list of role and parts;")
        turns = tuple(turn for content in contents for turn in _turns(content))
        check_answered(turns)
        said = _system(values.get(system)) if system else ""
        return Conversation(with_system(turns, said or given.system), origin,
                            tools_of(values.get(tools)) if tools else ())

    return Format("Gemini chats", Conversation, (column,), "each row is a Gemini chat, contents with role and parts",
                  make, one_of_each(system, tools))


def _system(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "".join(turn.content for turn in _turns({**value, "role": "user"})) if isinstance(value, dict) else ""


def _turns(content: Any) -> Turns:
    """One content as a turn; what several functions answered, which shares one, as a turn each."""
    if not isinstance(content, dict) or not isinstance(content.get("parts"), list):
        raise RowError("a content has no parts", "Contents are a list of role and parts;")
    said = content.get("role") or "user"
    role = ROLES.get(str(said))
    if role is None:
        raise RowError(f"unknown role {str(said)[:40]!r}", "Roles of contents are user and model;")
    texts: list[str] = []
    shown: list[Media] = []
    calls: list[ToolCall] = []
    told: list[Message] = []
    for part in content["parts"]:
        match _part(part):
            case str(text):
                texts.append(text)
            case Media() as media:
                texts.append(mark(media.kind))
                shown.append(media)
            case ToolCall() as called:
                calls.append(called)
            case Message() as answer:
                told.append(answer)
    if told and not texts:
        return tuple(told)
    return (Message(role, "".join(texts), trains(content), tuple(calls), tuple(shown)),)


def _part(part: Any) -> str | Media | ToolCall | Message:
    """A text, something shown, a call, or what a function answered; keys in camelCase or with underscores."""
    if not isinstance(part, dict):
        raise RowError(f"a part of a content is {kind_of(part)}", _HOLDS)
    part = _plain_keys(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    if isinstance(data := part.get("inlinedata") or part.get("filedata"), dict):
        return _media(_plain_keys(data))
    if isinstance(called := part.get("functioncall"), dict):
        return call(called.get("name"), called.get("args") or {}, called.get("id"))
    if isinstance(answer := part.get("functionresponse"), dict):
        return Message("tool", _told(answer.get("response")), call_id=str(answer.get("id") or ""),
                       name=str(answer.get("name") or ""))
    raise RowError(f"a part of a content holds {', '.join(part)[:40] or 'nothing'}", _HOLDS)


def _plain_keys(part: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "").lower(): value for key, value in part.items() if value is not None}


def _media(data: dict[str, Any]) -> Media:
    form, whole, where = str(data.get("mimetype", "")), data.get("data"), data.get("fileuri")
    kind = form.split("/")[0]
    if kind not in ("image", "audio", "video") or not isinstance(whole or where, str):
        raise RowError(f"a part of a content is of the type {form[:40]!r}", "Parts are text, image, audio and video;")
    return Media(kind, f"data:{form};base64,{whole}" if whole else str(where))


def _told(response: Any) -> str:
    if isinstance(response, dict) and len(response) == 1:
        key, value = next(iter(response.items()))
        if key in TOLD and isinstance(value, str):
            return value
    return json.dumps(response, ensure_ascii=False)
