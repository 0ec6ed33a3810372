"""Rows that are whole conversations: messages (OpenAI, Hugging Face), ShareGPT's conversations."""

from __future__ import annotations

from tuneloop.data.formats.asked import CHATS, Asked
from tuneloop.data.formats.base import Format, Given, Shape, Values, check_answered
from tuneloop.data.formats.calls import tools_of
from tuneloop.data.formats.turns import read_turns
from tuneloop.data.template import named
from tuneloop.types import Conversation, Origin

UNSEEN = ("parallel_tool_calls",)       # for whoever calls the model; it changes no token


def chats(shape: Shape, given: Given) -> Format | None:
    """Turns in a column, with tools and media beside them."""
    column = shape.find(CHATS) or (c if shape.holds(c := shape.find(("conversation", "dialogue")), list) else None)
    if column is None:
        return None
    beside = Asked.of(shape, Given(system=given.system), ())
    tools = beside.tools

    def make(values: Values, origin: Origin) -> Conversation:
        turns = read_turns(values.get(column), column)
        check_answered(turns)
        return Conversation(beside.complete(turns, values), origin, tools_of(values.get(tools)) if tools else ())

    first = shape.example.get(column)
    is_sharegpt = isinstance(first, list) and bool(first) and isinstance(first[0], dict) and "from" in first[0]
    how = "each row is a chat, " + (f"{column} with from and value" if is_sharegpt else
                                    f"{column} with role and content")
    return Format("chats", Conversation, (column,), how + (f", and {named([tools])}" if tools else ""), make,
                  (*beside.used, *(name for name in UNSEEN if shape.find((name,)))))
