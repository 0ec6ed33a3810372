"""What a row format cannot hold of a sample, and what is left of a sample of one kind as one of another.

A writer calls `drop(what)` before it leaves something out: that refuses the row, or counts what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tuneloop.data.formats.media import MARK
from tuneloop.types import Conversation, Message, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text

Drop = Callable[[str], None]


class CannotHoldError(Exception):
    """Why a format cannot hold a sample: without `what` nothing of use is left of it."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


def conversation_of(sample: Sample, drop: Drop) -> Conversation | None:
    """A sample as a question with its (best) answer; None for an answer that nobody should learn."""
    match sample:
        case Conversation():
            return sample
        case Preference():
            drop("the rejected answer")
        case Rated():
            drop("whether people liked the answer")
            if not sample.desirable:
                return None
        case Rollout():
            drop("the rewards, and all answers but the best")
        case Ranked():
            drop("all answers but the best")
        case Prompt():
            drop("that the row is for evaluation alone")
            if not sample.references:
                raise CannotHoldError("a prompt that nothing answers")
        case Text():
            raise CannotHoldError("plain text, which has no question and answer")
    return Conversation((*sample.prompt, Message("assistant", sample.answer)), sample.origin)


def without_tools(sample: Conversation, drop: Drop) -> Conversation:
    """The sample without tools, calls of them, and what they answered."""
    if sample.tools:
        drop("tools")
    if not any(turn.calls or turn.role == "tool" for turn in sample.messages):
        return replace(sample, tools=())
    drop("calls of tools, and what they answer")
    kept = tuple(replace(turn, calls=()) for turn in sample.messages
                 if turn.role != "tool" and (turn.content.strip() or not turn.calls))
    return _ending_with_an_answer(replace(sample, messages=kept, tools=()))


def _ending_with_an_answer(sample: Conversation) -> Conversation:
    if not sample.messages or sample.messages[-1].role != "assistant":
        raise CannotHoldError("a chat that ends with a call of a tool")
    return sample


def without_media(turns: Sequence[Message], drop: Drop) -> tuple[Message, ...]:
    """The turns without images, sounds and films."""
    if not any(turn.media for turn in turns):
        return tuple(turns)
    drop("images, sounds and films")
    return tuple(replace(turn, content=MARK.sub("", turn.content), media=()) if turn.media else turn for turn in turns)


def all_trained(turns: Sequence[Message], drop: Drop) -> None:
    """For formats that do not say which answers carry loss: that all do."""
    if any(turn.role == "assistant" and not turn.train for turn in turns):
        drop("which answers carry no loss")


def none_trained(turns: Sequence[Message], drop: Drop) -> None:
    """For the prompts of answers that are judged: that none of their own answers carries loss."""
    if any(turn.role == "assistant" and turn.train for turn in turns):
        drop("that earlier answers carry loss")
