"""Turns of a conversation, from every way in which rows write them.

Role and content (OpenAI, Hugging Face), from and value (ShareGPT), content in parts (OpenAI, LLaMA-Factory), and the
transcripts of Anthropic's data sets.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats import media as media_of
from tuneloop.data.formats.base import Turns, Values, kind_of
from tuneloop.data.formats.calls import calls_in, calls_of, parsed
from tuneloop.types import Media, Message, ToolCall

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
}
CALLING = ("function_call", "tool_call")        # ShareGPT's turns that are nothing but a call
TEXTS = ("text", "input_text", "output_text", "refusal")
THOUGHTS = ("reasoning", "thinking")
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")
_SAYS = {"Human": "user", "Assistant": "assistant"}
_PARTS = "Parts are text, image, audio and video;"


def read_turns(value: Any, column: str) -> Turns:
    """A list of messages, the JSON text of one as CSV has it, or a single message."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parsed(value)
        except ValueError:
            raise RowError(f'"{column}" is not valid JSON', "It is a list of messages;") from None
    if isinstance(value, dict):
        value = [value]
    if value is None:
        raise RowError("there are no messages", "The other rows are chats;")
    if not isinstance(value, list):
        raise RowError(f'"{column}" is {kind_of(value)}', "It is a list of messages with role and content;")
    return tuple([read_message(message) for message in value])


def read_message(message: Any) -> Message:
    """One turn. Raises RowError for what no conversation can hold."""
    if not isinstance(message, dict):
        raise RowError(f"a message is {kind_of(message)}", "A message has role and content;")
    said = message.get("role") or message.get("from")
    role = ROLES.get(said) if isinstance(said, str) else None
    content = message["content"] if "content" in message else message.get("value")
    if role == "assistant":
        return _answer(message, said, content)
    if isinstance(content, str) and role in ("user", "system"):
        return Message(role, content)
    if role is None:
        raise RowError("a message has no role" if said is None else f"unknown role {str(said)[:40]!r}",
                       "Roles are system, user, assistant and tool;")
    if role == "tool":
        return Message("tool", _told(content), call_id=_text(message, "tool_call_id"), name=_text(message, "name"))
    text, shown, calls = _content(content)
    if calls:
        raise RowError(f"a {role} turn calls a function", "The assistant calls functions;")
    return Message(role, text, media=shown)


def _answer(message: Values, said: Any, content: Any) -> Message:
    if len(message) == 2 and isinstance(content, str) and said not in CALLING:
        return Message("assistant", content)        # almost all of them
    if said in CALLING:
        return Message("assistant", "", trains(message), calls_in(content))
    text, shown, inside = ("", (), ()) if content is None else _content(content)
    calls = (*inside, *calls_of(message))
    if content is None and not calls:
        raise RowError("the content of a message is null", "Content is a text;")
    thought = next((_text(message, key) for key in THOUGHT_KEYS if message.get(key)), "")
    return Message("assistant", _thinking(thought) + text, trains(message), calls, shown)


def _text(message: Values, key: str) -> str:
    value = message.get(key)
    return value if isinstance(value, str) else ""


def _thinking(thought: str) -> str:
    """As bases that think write it, before their answer."""
    return f"<think>\n{thought.strip()}\n</think>\n\n" if thought.strip() else ""


def _told(content: Any) -> str:
    """What a tool answers: a text, text in parts, or any JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") in TEXTS for part in content):
        return _content(content)[0]
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def trains(message: Values) -> bool:
    """OpenAI's `weight`, LLaMA-Factory's `loss_weight` and our `train` switch the loss of an assistant turn off."""
    for key in ("weight", "loss_weight"):
        if (weight := message.get(key)) not in (None, 0, 1):
            raise RowError(f"a message has the {key} {str(weight)[:20]}", "A weight is 0 or 1;")
        if weight == 0:
            return False
    train = message.get("train")
    if train not in (None, True, False):
        raise RowError(f"a message has train: {str(train)[:20]}", "train is true or false;")
    return train is None or bool(train)


# --- content in parts ------------------------------------------------------------------------------------------------


def _content(content: Any) -> tuple[str, tuple[Media, ...], tuple[ToolCall, ...]]:
    """The text with a mark for everything that it shows, what that is, and the calls among the parts."""
    if isinstance(content, str):
        return content, (), ()
    if not isinstance(content, list):
        raise RowError(f"the content of a message is {kind_of(content)}", "Content is a text, or a list of parts;")
    texts: list[str] = []
    shown: list[Media] = []
    calls: list[ToolCall] = []
    for part in content:
        kind, value = _part(part)
        if kind in THOUGHTS:
            texts.append(_thinking(value))
        elif kind in CALLING:
            calls += calls_in(value)
        elif kind in media_of.PARTS:
            texts.append(media_of.mark(media_of.PARTS[kind]))
            shown += [found] if (found := media_of.of_part(part, media_of.PARTS[kind])) else []
        else:
            texts.append(value)
    return "".join(texts), tuple(shown), tuple(calls)


def _part(part: Any) -> tuple[str, str]:
    """The type of a part, and its text."""
    if isinstance(part, str):
        return "text", part
    if not isinstance(part, dict):
        raise RowError(f"a part of a message is {kind_of(part)}", _PARTS)
    kind = part.get("type") or next((key for key in ("text", *media_of.COLUMNS) if part.get(key)), None)
    if kind in media_of.PARTS:
        return str(kind), ""
    if kind not in (*TEXTS, *THOUGHTS, *CALLING):
        raise RowError(f"a part of a message has the type {str(kind)[:40]!r}", _PARTS)
    value = next((part[key] for key in ("text", "value", str(kind)) if part.get(key) is not None), None)
    if not isinstance(value, str):
        raise RowError(f"the text of a part of a message is {kind_of(value)}", _PARTS)
    return str(kind), value


# --- turns before an answer ------------------------------------------------------------------------------------------


def without_loss(turns: Turns) -> Turns:
    return tuple(replace(turn, train=False) if turn.role == "assistant" else turn for turn in turns)


def answered(value: Any, column: str) -> tuple[Turns, Message]:
    """The turns that an answer brings along, and the answer: a text, a transcript, or messages."""
    if isinstance(value, str) and _TRANSCRIPT.match(value):
        turns = _transcript(value)
    elif isinstance(value, str) or value is None:
        return (), Message("assistant", value or "")
    else:
        turns = read_turns(value, column)
    if not turns or turns[-1].role != "assistant":
        raise RowError(f'"{column}" does not end with an assistant turn', "It ends with the answer;")
    return without_loss(turns[:-1]), turns[-1]


def is_transcript(text: str) -> bool:
    """Whether a text is turns after "Human:" and "Assistant:", as in the data sets of Bai et al. 2022."""
    return _TRANSCRIPT.match(text) is not None


def _transcript(text: str) -> Turns:
    _, *parts = _TRANSCRIPT.split(text)
    return tuple(Message(_SAYS[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))
