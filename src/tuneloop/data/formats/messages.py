"""Turns as other tools write them, for the writers of row formats: OpenAI's messages, ShareGPT's, Gemini's contents."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from tuneloop.data.formats.holding import CannotHoldError, Drop
from tuneloop.data.formats.media import MARK, URLS
from tuneloop.types import Media, Message, ToolCall

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)


# --- OpenAI ----------------------------------------------------------------------------------------------------------


def openai(turns: Sequence[Message], drop: Drop) -> list[dict[str, Any]]:
    """Messages with role and content: every call with an id, and a weight of 0 where an answer carries no loss."""
    return [_openai(turn, drop) for turn in linked(turns)]


def asked(turns: Sequence[Message], drop: Drop) -> list[dict[str, Any]]:
    """The same for a prompt, whose answers never carry loss and need not say so."""
    return openai([replace(turn, train=True) for turn in turns], drop)


def _openai(turn: Message, drop: Drop) -> dict[str, Any]:
    if turn.media and turn.role == "tool":
        drop("what a tool shows")
    content: Any = list(_parts(turn)) if turn.media and turn.role != "tool" else turn.content
    message: dict[str, Any] = {"role": turn.role, "content": content if content or not turn.calls else None}
    if turn.calls:
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": {
            "name": call.name, "arguments": call.arguments}} for call in turn.calls]
    if turn.role == "assistant" and not turn.train:
        message["weight"] = 0
    return message | {key: value for key, value in (("tool_call_id", turn.call_id), ("name", turn.name)) if value}


def _parts(turn: Message) -> Iterator[dict[str, Any]]:
    for piece in pieces(turn):
        if isinstance(piece, str):
            yield {"type": "text", "text": piece}
        else:
            kind = f"{piece.kind}_url"
            yield {"type": kind, kind: {"url": piece.where}}


def pieces(turn: Message) -> Iterator[str | Media]:
    """The texts of a turn, none of them empty, and what it shows between them."""
    waiting, cursor = list(turn.media), 0
    for found in MARK.finditer(turn.content):
        media = next((media for media in waiting if media.kind == found[1]), None)
        if media is not None:
            waiting.remove(media)
            yield from filter(None, [turn.content[cursor:found.start()]])
            yield media
            cursor = found.end()
    yield from filter(None, [turn.content[cursor:]])


# --- calls and the tools that answer them ----------------------------------------------------------------------------


def linked(turns: Sequence[Message]) -> list[Message]:
    """The turns with an id for every call, and with the id of its call for every answer of a tool."""
    taken = {call.id for turn in turns for call in turn.calls}
    free = (name for number in count(1) if (name := f"call_{number}") not in taken)
    named = [replace(turn, calls=tuple(call if call.id else replace(call, id=next(free)) for call in turn.calls))
             for turn in turns]
    found = _answered(turns)
    calls = [call for turn in named for call in turn.calls]
    return [replace(turn, call_id=calls[found[i]].id) if i in found else turn for i, turn in enumerate(named)]


def unlinked(turns: Sequence[Message], drop: Drop) -> list[Message]:
    """The turns without ids, and without the names of tools that speak, where the order of the turns says the same."""
    bare = [replace(turn, calls=tuple(replace(call, id="") for call in turn.calls), call_id="", name="")
            for turn in turns]
    found = _answered(turns)
    calls = [call for turn in turns for call in turn.calls]
    if found != _answered(bare) or any(((turn.call_id or turn.name) and i not in found) or (
            turn.name and turn.name != calls[found[i]].name) for i, turn in enumerate(turns)):
        drop("which call a tool answers")
    return bare


def _answered(turns: Sequence[Message]) -> dict[int, int]:
    """For every turn of a tool the number of the call that it answers: the one with its id, else the next in order."""
    found: dict[int, int] = {}
    waiting: list[tuple[int, ToolCall]] = []
    seen = 0
    for i, turn in enumerate(turns):
        if turn.calls:
            waiting = list(enumerate(turn.calls, seen))
            seen += len(turn.calls)
        elif turn.role == "tool":
            fits = [(n, call) for n, call in waiting if not turn.call_id or call.id == turn.call_id]
            if fits:
                found[i] = fits[0][0]
                waiting.remove(fits[0])
    return found


# --- ShareGPT --------------------------------------------------------------------------------------------------------


def sharegpt(turns: Sequence[Message], drop: Drop) -> list[dict[str, str]]:
    """Turns with from and value; a turn that calls is nothing but the JSON of its calls."""
    said: list[dict[str, str]] = []
    for turn in unlinked(turns, drop):
        if turn.calls:
            if turn.content:
                drop("the text beside a call")
            calls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in turn.calls]
            said.append({"from": "function_call",
                         "value": json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)})
        else:
            said.append({"from": SPEAKERS[turn.role], "value": turn.content})
    return said


# --- Gemini ----------------------------------------------------------------------------------------------------------


def gemini(turns: Sequence[Message], drop: Drop) -> list[dict[str, Any]]:
    """Contents with role and parts. Tools that answer one after the other share a content."""
    found, calls = _answered(turns), [call for turn in turns for call in turn.calls]
    contents: list[dict[str, Any]] = []
    for i, turn in enumerate(turns):
        if turn.role == "system":
            raise CannotHoldError("a system message in the middle of a chat")
        if turn.role == "tool":
            answer = {"name": turn.name or (calls[found[i]].name if i in found else ""),
                      "response": {"output": turn.content}} | ({"id": turn.call_id} if turn.call_id else {})
            if turn.media:
                drop("what a tool shows")
            if i and turns[i - 1].role == "tool":
                contents[-1]["parts"].append({"functionResponse": answer})
            else:
                contents.append({"role": "user", "parts": [{"functionResponse": answer}]})
        else:
            parts = [{"text": piece} if isinstance(piece, str) else _data(piece) for piece in pieces(turn)]
            parts += [{"functionCall": {"name": call.name, "args": json.loads(call.arguments)} | (
                {"id": call.id} if call.id else {})} for call in turn.calls]
            contents.append({"role": "model" if turn.role == "assistant" else "user", "parts": parts or [{"text": ""}]})
    return contents


def _data(media: Media) -> dict[str, Any]:
    if found := _DATA.match(media.where):
        return {"inlineData": {"mimeType": found[1], "data": media.where[found.end():]}}
    form = mimetypes.guess_type(media.where.split("?")[0])[0] or ""
    if not media.where.startswith(URLS) or not form.startswith(media.kind):
        raise CannotHoldError("images, sounds and films that are files beside the data")
    return {"fileData": {"mimeType": form, "fileUri": media.where}}
