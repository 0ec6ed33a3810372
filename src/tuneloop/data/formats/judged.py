"""Rows that say how good answers are: pairs, ratings, sampled answers with rewards."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.asked import ANSWERS, CHATS, PROMPTS, Asked
from tuneloop.data.formats.base import (
    DroppableError,
    Format,
    Given,
    Shape,
    Turns,
    Values,
    check_answered,
    one_of_each,
)
from tuneloop.data.formats.calls import tools_of
from tuneloop.data.formats.turns import answered, read_turns, without_loss
from tuneloop.types import Message, Origin, Preference, Rated, Rollout

CHOSEN, REJECTED = ("chosen", "chosen_messages"), ("rejected", "rejected_messages")
LIKED = ("label", "kto_tag", "desirable")
SAMPLED = ("completions", "answers", "responses", "outputs")
ASKED = (*PROMPTS, *CHATS)
YES = ("true", "1", "1.0", "yes", "good", "up", "like", "liked", "desirable")
NO = ("false", "0", "0.0", "no", "bad", "down", "dislike", "disliked", "undesirable")


class EqualAnswersError(DroppableError):
    """A row whose answers cannot be told apart."""

    def __init__(self, what: str = "chosen and rejected are the same") -> None:
        super().__init__(what, "Such rows say which of several answers is better; drop those that do not with "
                         "data.drop_empty=true, or")


class _OtherPromptError(DroppableError):
    def __init__(self) -> None:
        super().__init__("chosen and rejected follow different conversations", "A pair answers one prompt; drop such "
                         "rows with data.drop_empty=true, or")


# --- pairs -----------------------------------------------------------------------------------------------------------


def pairs(shape: Shape, given: Given) -> Format | None:
    """`chosen` and `rejected`: texts, messages or transcripts, with a prompt or with whole conversations."""
    chosen, rejected, margin = shape.find(CHOSEN), shape.find(REJECTED), shape.find(("margin",))
    if chosen is None or rejected is None:
        return None
    asked = Asked.of(shape, given, ASKED)

    def make(values: Values, origin: Origin) -> Preference:
        better, worse = answered(values.get(chosen), chosen), answered(values.get(rejected), rejected)
        return _pair(asked, asked.before(values), (better, worse), values, origin,
                     _number(values, margin) if margin and values.get(margin) not in (None, "") else 0.0)

    how = f'each row is a pair of answers, "{chosen}" better than "{rejected}"; {asked.sentence}'
    return Format("pairs of answers", Preference, (chosen, rejected), how, make, (*asked.used, *one_of_each(margin)))


def openai_pairs(shape: Shape, given: Given) -> Format | None:
    """`input` with messages, `preferred_output` and `non_preferred_output`."""
    names = ("input", "preferred_output", "non_preferred_output")
    asked, better, worse = (shape.find((name,)) for name in names)
    if asked is None or better is None or worse is None:
        return None
    beside = Asked.of(shape, Given(system=given.system), ())

    def make(values: Values, origin: Origin) -> Preference:
        content = values.get(asked)
        if not isinstance(content, dict):
            raise RowError(f'"{asked}" is no object with messages', "It holds the messages that are answered;")
        if tools_of(content.get("tools")):
            raise RowError("the row offers tools, which only chats may hold",
                           "Learn from the better answers as chats, or leave the tools out;")
        before = without_loss(read_turns(content.get("messages"), "messages"))
        said = answered(values.get(better), better), answered(values.get(worse), worse)
        return _pair(beside, before, said, values, origin, 0.0)

    how = f'each row is a pair of answers, "{better}" better than "{worse}", to the messages of "{asked}"'
    return Format("pairs of answers", Preference, (asked, better, worse), how, make, beside.used)


def _pair(asked: Asked, before: Turns, said: tuple[tuple[Turns, Message], tuple[Turns, Message]], values: Values,
          origin: Origin, margin: float) -> Preference:
    (brought, better), (other, worse) = said
    if brought != other:
        raise _OtherPromptError
    asked.no_tools(values)
    good, bad = answers = _texts((better, worse))
    prompt = _checked(_whole(before, brought), answers)
    if good == bad:
        raise EqualAnswersError
    return Preference(asked.complete(prompt, values), good, bad, origin, margin)


def _whole(asked: Turns, brought: Turns) -> Turns:
    """The prompt, where a row gives it in a column, before its answer, or in both places."""
    longer, shorter = sorted((asked, brought), key=len, reverse=True)
    if shorter and longer[-len(shorter):] != shorter:
        raise RowError("prompt and answer hold different questions", "An answer that repeats its prompt repeats it "
                       "whole;")
    return longer


def _texts(answers: Sequence[Message]) -> tuple[str, ...]:
    if any(answer.calls or answer.media for answer in answers):
        raise RowError("an answer calls a tool or shows something, and is judged", "Answers that are judged are texts;")
    return tuple(answer.content for answer in answers)


def _checked(prompt: Turns, answers: tuple[str, ...]) -> Turns:
    for answer in answers:
        check_answered((*prompt, Message("assistant", answer)))
    return prompt


# --- one answer ------------------------------------------------------------------------------------------------------


def rated(shape: Shape, given: Given) -> Format | None:
    """An answer, and a label that says whether people liked it."""
    liked = next((c for name in LIKED if (c := shape.find((name,))) in given.liked), None)
    answer = shape.find((*ANSWERS, *CHATS))
    if liked is None or answer is None:
        return None
    asked = Asked.of(shape, given, ASKED)

    def make(values: Values, origin: Origin) -> Rated:
        before, said = answered(values.get(answer), answer)
        turns = before if answer == asked.question else _whole(asked.before(values), before)
        prompt = _checked(turns, texts := _texts((said,)))
        asked.no_tools(values)
        verdict = is_liked(values.get(liked))
        if verdict is None:
            raise RowError(f'"{liked}" is {json.dumps(values.get(liked))[:40]}', "It is true or false;")
        return Rated(asked.complete(prompt, values), texts[0], verdict, origin)

    how = f'each row is an answer, and "{liked}" says whether people liked it; {asked.sentence}'
    return Format("answers that people liked or not", Rated, (answer, liked), how, make, asked.used)


def is_liked(value: Any) -> bool | None:
    """true, 1, "yes" and their opposites; None for anything else."""
    said = str(value).strip().lower()
    return True if said in YES else False if said in NO else None


# --- several answers -------------------------------------------------------------------------------------------------


def rollouts(shape: Shape, given: Given) -> Format | None:
    """Sampled answers, each with its reward: as lists, or an answer a row."""
    for names, rewards_name, single in ((SAMPLED, "rewards", False), (ANSWERS, "reward", True)):
        answers, rewards = shape.find(names), shape.find((rewards_name,))
        if answers and rewards:
            return _rollouts(Asked.of(shape, given, ASKED), answers, rewards, single)
    return None


def _rollouts(asked: Asked, answers: str, rewards: str, single: bool) -> Format:
    def make(values: Values, origin: Origin) -> Rollout:
        texts, numbers = values.get(answers), values.get(rewards)
        if single:
            texts, numbers = [texts], [_number(values, rewards)]
        if not isinstance(texts, list) or not isinstance(numbers, list) or len(texts) != len(numbers) or not texts:
            raise RowError(f'"{answers}" and "{rewards}" are no lists of equal length',
                           "Every sampled answer has its reward;")
        prompt, said = several(asked, texts, answers, values)
        return Rollout(prompt, said, tuple(_finite(number, rewards) for number in numbers), origin)

    what = f'an answer "{answers}" with its "{rewards}", and the rows of a prompt belong together' if single else \
        f'a prompt with the answers "{answers}" and their "{rewards}"'
    return Format("sampled answers with rewards", Rollout, (answers, rewards), f"each row is {what}; {asked.sentence}",
                  make, asked.used)


def several(asked: Asked, answers: Sequence[Any], column: str, values: Values) -> tuple[Turns, tuple[str, ...]]:
    """The prompt of a row with several answers, and their texts."""
    said = [answered(answer, column) for answer in answers]
    if len({before for before, _ in said}) > 1:
        raise RowError("the answers follow different conversations", "The answers of a row answer one prompt;")
    asked.no_tools(values)
    texts = _texts([answer for _, answer in said])
    prompt = _checked(_whole(asked.before(values), said[0][0]), texts)
    return asked.complete(prompt, values), texts


def _number(values: Values, column: str) -> float:
    try:
        return _finite(float(values[column]), column)
    except (KeyError, TypeError, ValueError):
        raise RowError(f'"{column}" is missing or no number', "It is a number;") from None


def _finite(value: Any, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f'"{column}" holds what is no finite number', "It is a number;")
    return float(value)
