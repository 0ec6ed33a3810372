"""Rows that say how good answers are: pairs, answers that people liked or not, sampled answers with rewards."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.read import Table
from tuneloop.data.recognise import (
    ANSWERS,
    CHAT,
    PROMPTS,
    DroppableError,
    Format,
    Recognised,
    Values,
    check_answered,
    kind_of,
    read_all,
    read_message,
    recognise,
    unused,
    with_system,
)
from tuneloop.data.template import Template, as_text, named
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Preference, Rated, Rollout

CHATS = (CHAT, "conversations")
EXTRAS = ("context", "input")
LIKED = ("label", "kto_tag", "desirable")
SAMPLED = ("completions", "answers", "responses", "outputs")
YES = ("true", "1", "1.0", "yes", "good", "up", "like", "liked", "desirable")
NO = ("false", "0", "0.0", "no", "bad", "down", "dislike", "disliked", "undesirable")
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")

Turns = tuple[Message, ...]


@dataclass(frozen=True)
class Judgement:
    """A kind of sample in words, for messages: what its rows hold, and an objective that learns from them."""

    what: str
    wanted: str
    objective: str


JUDGEMENTS: dict[type[Any], Judgement] = {
    Preference: Judgement("pairs of answers", "prompt, chosen and rejected (texts or messages), perhaps margin", "dpo"),
    Rated: Judgement("answers that people liked or not", "prompt, completion and label (true or false)", "kto"),
    Rollout: Judgement("sampled answers with rewards", "prompt, completions (a list) and rewards (a number each); or "
                       "prompt, completion and reward, an answer a row", "grpo"),
}


def recognise_as(table: Table, kind: type[Any], *, prompt: str | None = None, answer: str | None = None,
                 system: str | None = None, drop_empty: bool = False) -> Recognised:
    """Samples of `kind` from a table. Raises UserError where its rows are of another kind, and as `recognise` does."""
    found = judged_kind(table)
    if kind is Conversation:
        if found is not None and not (prompt and answer):
            judgement = JUDGEMENTS[found]
            raise UserError(f"{table.file} holds {judgement.what}, which this objective does not learn from.",
                            fix=f"set objective={judgement.objective}, or give data.prompt and data.answer to take one "
                                "column as the answer")
        return recognise(table, prompt=prompt, answer=answer, system=system, drop_empty=drop_empty)
    if answer:
        raise UserError(f"data.answer is given, but this objective learns from {JUDGEMENTS[kind].what}, whose columns "
                        "have fixed names.", wanted=JUDGEMENTS[kind].wanted, fix="leave data.answer out")
    if found is not kind:
        other = f"; they are {JUDGEMENTS[found].what}" if found else ""
        raise UserError(f"{table.file}: its rows are no {JUDGEMENTS[kind].what}{other} (columns: "
                        f"{', '.join(table.columns)}).", wanted=JUDGEMENTS[kind].wanted,
                        fix=f"set objective={JUDGEMENTS[found].objective}" if found else "rename the columns")
    return read_all(table, _FORMATS[kind](table, _Asked.of(table, prompt, system)), drop_empty)


def judged_kind(table: Table) -> type[Any] | None:
    """The kind of sample that the columns and values tell of; None for rows that judge nothing."""
    columns = {name.lower() for name in table.columns}
    if {"chosen", "rejected"} <= columns:
        return Preference
    if _rewarded(table):
        return Rollout
    liked = _column(table, LIKED)
    if not liked or not columns & {*ANSWERS, *CHATS}:
        return None
    said = sum(_is_liked(row.values.get(liked)) is not None for row in table.rows)
    return Rated if 2 * said > len(table.rows) else None      # so that an odd row is told with its line


def _rewarded(table: Table) -> tuple[str, str, bool] | None:
    """The columns of sampled answers and of their rewards, and whether a row has one of each in place of lists."""
    for answers, rewards, single in ((SAMPLED, "rewards", False), (ANSWERS, "reward", True)):
        found = _column(table, answers), _column(table, (rewards,))
        if found[0] and found[1]:
            return found[0], found[1], single
    return None


def _column(table: Table, names: tuple[str, ...]) -> str | None:
    """The table's column of the first of these names, as the table spells it."""
    spelt = {column.lower(): column for column in reversed(table.columns)}
    return next((spelt[name] for name in names if name in spelt), None)


# --- prompts ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Asked:
    """Where the rows of a table keep what was asked."""

    columns: list[str]              # of the prompt, in its order
    question: str | None            # the one of them that every row needs; None: the answers bring their prompt along
    template: Template | None
    system: str | None

    @classmethod
    def of(cls, table: Table, prompt: str | None, system: str | None) -> _Asked:
        if prompt:
            template = Template("data.prompt", prompt, table)
            return cls(template.columns, None, template, system)
        question = _column(table, (*PROMPTS, *CHATS))
        extra = _column(table, EXTRAS) if question in table.columns else None
        columns = [c for c in (question, extra) if c]
        return cls(columns[::-1] if extra and extra.lower() == "context" else columns, question, None, system)

    def before(self, values: Values) -> Turns:
        """The turns before an answer; none where the answers bring them along."""
        if self.template is not None:
            return (Message("user", self.template.fill(values, needed=True)),)
        if self.question is None:
            return ()
        given = values.get(self.question)
        earlier = () if isinstance(given, str) else _turns(given, self.question)
        if earlier and earlier[-1].role != "user":
            raise RowError(f'"{self.question}" does not end with a user turn', "It ends with what is asked;")
        asked = values | {self.question: earlier[-1].content if earlier else given}
        texts = [as_text(asked, column, optional=column != self.question) for column in self.columns]
        return (*earlier[:-1], Message("user", "\n\n".join(text for text in texts if text.strip())))

    def sentence(self, table: Table, *others: str) -> str:
        asked = f"the prompt is {named(self.columns)}" if self.columns else "the answers bring their prompt along"
        return f"{asked}{unused(table, [*self.columns, *others])}"


def _turns(value: Any, column: str) -> Turns:
    """Messages with role and content, or with ShareGPT's from and value. Their answers carry no loss."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowError(f'"{column}" is {kind_of(value)}', "It is a text, or a list of messages;")
    return tuple(_without_loss(read_message(_renamed(message))) for message in value)


def _renamed(message: Any) -> Any:
    if not isinstance(message, dict) or "from" not in message:
        return message
    return {"role": SPEAKERS.get(message["from"], message["from"]), "content": message.get("value")}


def _answered(value: Any, column: str) -> tuple[Turns, str]:
    """The turns that an answer brings along, and the answer."""
    if isinstance(value, str) and _TRANSCRIPT.match(value):
        turns = _transcript(value)
    elif isinstance(value, str) or value is None:
        return (), value or ""
    else:
        turns = _turns(value, column)
    if not turns or turns[-1].role != "assistant":
        raise RowError(f'"{column}" does not end with an assistant turn', "It ends with the answer;")
    return turns[:-1], turns[-1].content


def _transcript(text: str) -> Turns:
    """Turns after "Human:" and "Assistant:", each after an empty line, as in the data sets of Bai et al. 2022."""
    _, *parts = _TRANSCRIPT.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(_without_loss(Message(roles[who], said.strip()))
                 for who, said in zip(parts[::2], parts[1::2], strict=True))


def _without_loss(message: Message) -> Message:
    return replace(message, train=message.role != "assistant")


def _whole(asked: Turns, brought: Turns) -> Turns:
    """The prompt, where a row gives it in a column, before its answer, or in both places."""
    longer, shorter = sorted((asked, brought), key=len, reverse=True)
    if shorter and longer[-len(shorter):] != shorter:
        raise RowError("prompt and answer hold different questions", "An answer that repeats its prompt repeats it "
                       "whole;")
    return longer


def _checked(prompt: Turns, answers: tuple[str, ...], system: str | None) -> Turns:
    for answer in answers:
        check_answered((*prompt, Message("assistant", answer)))
    return with_system(prompt, system)


# --- kinds -----------------------------------------------------------------------------------------------------------

class _EqualAnswersError(DroppableError):
    def __init__(self) -> None:
        super().__init__("chosen and rejected are the same", "A pair says which of two answers is better; drop such "
                         "rows with data.drop_empty=true, or")


class _OtherPromptError(DroppableError):
    def __init__(self) -> None:
        super().__init__("chosen and rejected follow different conversations", "A pair answers one prompt; drop such "
                         "rows with data.drop_empty=true, or")


def _pairs(table: Table, asked: _Asked) -> Format:
    chosen, rejected, margin = (_column(table, (name,)) for name in ("chosen", "rejected", "margin"))
    assert chosen is not None
    assert rejected is not None

    def make(values: Values, origin: Any) -> Preference:
        (before, better), (other, worse) = (_answered(values.get(c), c) for c in (chosen, rejected))
        if before != other:
            raise _OtherPromptError
        prompt = _checked(_whole(asked.before(values), before), (better, worse), asked.system)
        if better == worse:
            raise _EqualAnswersError
        return Preference(prompt, better, worse, origin, _number(values, margin) if margin else 0.0)

    used = [c for c in (chosen, rejected, margin) if c]
    return Format(f'each row is a pair of answers, "{chosen}" better than "{rejected}"; '
                  + asked.sentence(table, *used), make)


def _rated(table: Table, asked: _Asked) -> Format:
    liked, answer = _column(table, LIKED), _column(table, (*ANSWERS, *CHATS))
    assert liked is not None
    assert answer is not None

    def make(values: Values, origin: Any) -> Rated:
        before, text = _answered(values.get(answer), answer)
        prompt = _checked(before if answer == asked.question else _whole(asked.before(values), before), (text,),
                          asked.system)
        verdict = _is_liked(values.get(liked))
        if verdict is None:
            raise RowError(f'"{liked}" is {json.dumps(values.get(liked))[:40]}', "It is true or false;")
        return Rated(prompt, text, verdict, origin)

    return Format(f'each row is an answer, and "{liked}" says whether people liked it; '
                  + asked.sentence(table, liked, answer), make)


def _rollouts(table: Table, asked: _Asked) -> Format:
    found = _rewarded(table)
    assert found is not None
    answers, rewards, single = found

    def make(values: Values, origin: Any) -> Rollout:
        texts, numbers = values.get(answers), values.get(rewards)
        if single:
            texts, numbers = [texts], [_number(values, rewards)]
        if not isinstance(texts, list) or not isinstance(numbers, list) or len(texts) != len(numbers) or not texts:
            raise RowError(f'"{answers}" and "{rewards}" are no lists of equal length',
                           "Every sampled answer has its reward;")
        said = [_answered(text, answers) for text in texts]
        if len({before for before, _ in said}) > 1:
            raise RowError("the answers follow different conversations", "The answers of a row answer one prompt;")
        written = tuple(text for _, text in said)
        prompt = _checked(_whole(asked.before(values), said[0][0]), written, asked.system)
        return Rollout(prompt, written, tuple(_finite(number, rewards) for number in numbers), origin)

    what = f'an answer "{answers}" with its "{rewards}", and the rows of a prompt belong together' if single else \
        f'a prompt with the answers "{answers}" and their "{rewards}"'
    return Format(f"each row is {what}; {asked.sentence(table, answers, rewards)}", make)


_FORMATS: dict[type[Any], Callable[[Table, _Asked], Format]] = {
    Preference: _pairs, Rated: _rated, Rollout: _rollouts}


def _is_liked(value: Any) -> bool | None:
    """true, 1, "yes" and their opposites; None for anything else."""
    said = str(value).strip().lower()
    return True if said in YES else False if said in NO else None


def _number(values: Values, column: str) -> float:
    try:
        return _finite(float(values[column]), column)
    except (KeyError, TypeError, ValueError):
        raise RowError(f'"{column}" is missing or no number', "It is a number;") from None


def _finite(value: Any, column: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(f'"{column}" holds what is no finite number', "It is a number;")
    return float(value)
