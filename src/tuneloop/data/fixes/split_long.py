"""Cut rows that are too long into several: plain text at paragraphs, chats between an answer and the next question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tuneloop.data.checks.base import text_of
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Sample, Text

BORDERS = (r"\n\s*\n", r"\n", r"(?<=[.!?])\s+|(?<=[。！？])", r"\s+")     # where a text is cut, the best first
USERS, ASSISTANTS = ("user", "human"), ("assistant", "gpt", "chatgpt", "model")
Measure = Callable[[Sample], int]
Turn = dict[str, Any]


class Fix(base.Fix):
    """No row longer than a limit, as far as a row can be cut without cutting an answer.

    Plain text is cut at paragraphs, else lines, sentences, words; of a row of plain text nothing but white space at the
    cuts is lost. A chat is cut before a question: each answer is learnt once, and earlier turns go along, without loss,
    as far as they fit.
    """

    about: ClassVar[str] = "cuts long texts at paragraphs, and long chats between their turns; never an answer"

    kind: Literal["split_long"] = "split_long"
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Longest row, in characters of its texts."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest row, in tokens of the base."""

    @model_validator(mode="after")
    def _one_limit(self) -> Fix:
        if (self.max_characters is None) == (self.max_tokens is None):
            raise ValueError("either max_characters or max_tokens")
        return self

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        limit, measure = self._limit(tools)
        rows: list[Item] = []
        cut, left = Places(), Places()
        for item in items:
            pieces = [item]
            if measure(item.sample) > limit:
                pieces = _pieces(item, limit, measure, tools) or pieces
                (cut if len(pieces) > 1 else left).add(item.origin)
            rows += pieces
        log = []
        if cut:
            made = len(rows) - len(items) + len(cut)
            log.append(Change(f"{base.count_of(cut)} cut into {made:,}", f"longer than {self._said}", cut))
        if left:
            log.append(Change(f"{base.count_of(left)} left as they are, too long", "only plain text and chats with "
                              "several answers can be cut without cutting an answer", left))
        return Applied(rows, log)

    @property
    def _said(self) -> str:
        return f"{self.max_tokens:,} tokens" if self.max_tokens else f"{self.max_characters:,} characters"

    def _limit(self, tools: Tools) -> tuple[int, Measure]:
        if self.max_characters is not None:
            return self.max_characters, lambda sample: len(text_of(sample))
        if tools.tokens is None:
            raise UserError("split_long max_tokens=… needs the tokenizer of a base.",
                            fix="name one with --model, or give max_characters")
        assert self.max_tokens is not None
        return self.max_tokens, tools.tokens


def _pieces(item: Item, limit: int, measure: Measure, tools: Tools) -> list[Item]:
    """The rows that `item` is cut into; none where it cannot be cut."""
    match item.sample:
        case Text() as sample:
            column = next((name for name, value in item.values.items() if value == sample.text), None)
            if column is None:
                return []
            texts = cut_text(sample.text, limit, lambda text: measure(replace(sample, text=text)))
            return [tools.changed(item, item.values | {column: text}) for text in texts]
        case Conversation():
            pieces = _cut_chat(item, limit, measure, tools)
            return pieces if sum(map(_answers_learnt, pieces)) == _answers_learnt(item) else []
        case _:
            return []


def _answers_learnt(item: Item) -> int:
    return sum(m.role == "assistant" and m.train for m in getattr(item.sample, "messages", ()))


# --- plain text ------------------------------------------------------------------------------------------------------


def cut_text(text: str, limit: int, measure: Callable[[str], int]) -> list[str]:
    """The text in pieces of at most `limit`, as `measure` counts, without white space at either end.

    A word that is longer than the limit alone is cut too.
    """
    return [stripped for piece in _cut(text, limit, measure, BORDERS) if (stripped := piece.strip())]


def _cut(text: str, limit: int, measure: Callable[[str], int], borders: Sequence[str]) -> list[str]:
    if measure(text) <= limit or len(text) == 1:
        return [text]
    if not borders:
        middle = len(text) // 2
        return [piece for half in (text[:middle], text[middle:]) for piece in _cut(half, limit, measure, ())]
    first, *rest = re.split(f"({borders[0]})", text)
    joined = [first]
    for gap, part in zip(rest[::2], rest[1::2], strict=True):
        longer = joined[-1] + gap + part
        if measure(longer) <= limit:
            joined[-1] = longer
        else:
            joined.append(part)
    return [piece for part in joined if part for piece in _cut(part, limit, measure, borders[1:])]


# --- chats -----------------------------------------------------------------------------------------------------------


def _cut_chat(item: Item, limit: int, measure: Measure, tools: Tools) -> list[Item]:
    """Rows that learn a few answers each, with as many earlier turns as fit; none where one exchange is too long."""
    column = next((name for name, value in item.values.items() if _are_turns(value)), None)
    if column is None:
        return []
    head, exchanges = _exchanges(item.values[column])

    def row(context: int, start: int, end: int) -> Item:
        turns = [_without_loss(turn) for exchange in exchanges[context:start] for turn in exchange]
        turns += [turn for exchange in exchanges[start:end] for turn in exchange]
        return tools.changed(item, item.values | {column: [*head, *turns]})

    def size(context: int, start: int, end: int) -> int:
        return measure(row(context, start, end).sample)

    rows, start = [], 0
    while start < len(exchanges):
        if size(start, start, start + 1) > limit:
            return []
        context, end = start, start + 1
        room = limit // 2 if start else limit       # the rest is for earlier turns
        while end < len(exchanges) and size(start, start, end + 1) <= room:
            end += 1
        while context and size(context - 1, start, end) <= limit:
            context -= 1
        rows.append(row(context, start, end))
        start = end
    return rows


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(t, dict) and _role(t) for t in value)


def _role(turn: Turn) -> Any:
    return turn.get("role", turn.get("from"))


def _exchanges(turns: Sequence[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    """The turns before the first question, and the others in parts that begin with a question and end with an answer.

    A part ends only after an answer that is learnt, so that each of them teaches something.
    """
    starts = [i for i, turn in enumerate(turns) if _role(turn) in USERS and (i == 0 or _may_end(turns[i - 1]))]
    first = next((i for i, turn in enumerate(turns) if _role(turn) in USERS), 0)
    borders = sorted({first, *starts})
    return list(turns[:first]), [list(turns[a:b]) for a, b in pairwise([*borders, len(turns)])]


def _may_end(turn: Turn) -> bool:
    return _role(turn) in ASSISTANTS and turn.get("train") is not False and turn.get("weight") != 0


def _without_loss(turn: Turn) -> Turn:
    return turn | {"train": False} if _role(turn) in ASSISTANTS else turn
