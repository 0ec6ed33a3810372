"""What a row format is, and what every sample must satisfy, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.template import Template
from tuneloop.types import (
    Conversation,
    Message,
    Origin,
    Preference,
    Prompt,
    Ranked,
    Rated,
    Rollout,
    Sample,
    Text,
)

Values = dict[str, Any]
Turns = tuple[Message, ...]
Maker = Callable[[Values, Origin], Sample]


class DroppableError(RowError):
    """A row that nothing can be learnt from; the recipe may drop these."""


class EmptyAnswerError(DroppableError):
    """A row without an answer."""

    def __init__(self) -> None:
        super().__init__("the answer is empty",
                         "Every row needs an answer; drop such rows with data.drop_empty=true, or")


@dataclass(frozen=True)
class Shape:
    """What rows that look alike have in common: their columns, as the file spells them. `example` is one such row."""

    columns: tuple[str, ...]
    example: Values

    @cached_property
    def _spelt(self) -> dict[str, str]:
        return {column.lower(): column for column in reversed(self.columns)}

    def find(self, names: Sequence[str]) -> str | None:
        """The column of the first of these names, whatever its case."""
        return next((self._spelt[name] for name in names if name in self._spelt), None)

    def holds(self, column: str | None, *types: type) -> bool:
        """Whether there is such a column and its value is of one of the types."""
        return column is not None and isinstance(self.example.get(column), types)


@dataclass(frozen=True)
class Given:
    """What the recipe says of how rows are read, and which columns say, by a look at many rows, what people liked."""

    prompt: Template | None = None
    system: str | None = None
    liked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Format:
    """How rows of one shape become samples."""

    name: str                           # what its rows are, in the plural: `chats`
    kind: type[Any]                     # of sample
    needs: tuple[str, ...]              # columns that every row has
    how: str                            # a sentence that says which column is what
    make: Maker
    also: tuple[str, ...] = ()          # columns that are used where a row has them

    @cached_property
    def columns(self) -> frozenset[str]:
        """All that are used."""
        return frozenset((*self.needs, *self.also))


Detector = Callable[[Shape, Given], Format | None]
"""The format of rows of a shape, or None where they are not of the detector's kind."""


def one_of_each(*columns: str | None) -> tuple[str, ...]:
    """The columns that are there."""
    return tuple(dict.fromkeys(column for column in columns if column))


def kind_of(value: Any) -> str:
    names: Mapping[type, str] = {dict: "an object", list: "a list", bool: "true or false", type(None): "null",
                                 str: "a text"}
    return names.get(type(value), "a number")


# --- what every sample must satisfy ----------------------------------------------------------------------------------


def check_answered(turns: Sequence[Message]) -> None:
    """Of a conversation: that it ends with an answer that carries loss, to something that was asked."""
    last = turns[-1] if turns else None
    if last is None or not any(turn.role == "assistant" for turn in turns):
        raise RowError("there is no assistant turn", "A conversation ends with the answer to learn;")
    if last.role != "assistant":
        raise RowError(f"the conversation ends with a {last.role} turn",
                       "A conversation ends with the assistant's answer;")
    if not last.train:
        raise RowError("the last answer carries no loss", "It is what the model is judged by; end the chat earlier,")
    for turn in turns:
        if turn.role == "assistant" and (turn.train or turn is last) and says_nothing(turn):
            raise EmptyAnswerError
    check_asked(turns[:-1])


def check_asked(turns: Sequence[Message]) -> None:
    """Of what comes before an answer: that there is something to answer."""
    if all(map(says_nothing, turns)):
        raise RowError("the prompt is empty", "Every row needs something to answer;")


def says_nothing(turn: Message) -> bool:
    return not (turn.calls or turn.media or turn.content.strip())


def check_unicode(sample: Sample) -> None:
    """Of every text in a sample: that it can be written into a file."""
    try:
        "".join(_texts(sample)).encode()
    except UnicodeEncodeError:
        raise RowError("the text holds half of a surrogate pair (\\ud800 to \\udfff), which is no character",
                       "Text is Unicode;") from None


def _texts(sample: Sample) -> Iterator[str]:
    for turn in sample.messages if isinstance(sample, Conversation) else sample.prompt:
        yield turn.content
        if turn.role != "user":
            yield from (turn.name, turn.call_id, *(text for c in turn.calls for text in (c.name, c.arguments, c.id)))
        yield from (media.where for media in turn.media)
    match sample:
        case Conversation():
            yield from sample.tools
        case Preference():
            yield from (sample.chosen, sample.rejected)
        case Rated():
            yield sample.answer
        case Rollout() | Ranked():
            yield from sample.answers
        case Prompt():
            yield from sample.references
        case Text():
            yield from (sample.text, sample.source)


def with_system(turns: Turns, system: str | None) -> Turns:
    """The turns with a system message before them, unless they have one."""
    if system and all(turn.role != "system" for turn in turns):
        return (Message("system", system), *turns)
    return turns
