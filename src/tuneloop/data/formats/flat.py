"""Rows in plain columns: a prompt and its answer (Alpaca and its variants among them), evaluation samples, text."""

from __future__ import annotations

from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.asked import ANSWERS, PROMPTS, Asked
from tuneloop.data.formats.base import (
    DroppableError,
    Format,
    Given,
    Shape,
    Turns,
    Values,
    check_answered,
    check_asked,
    kind_of,
    one_of_each,
)
from tuneloop.data.formats.calls import tools_of
from tuneloop.data.formats.turns import answered
from tuneloop.data.template import Template, as_text, named
from tuneloop.types import Conversation, Message, Origin, Prompt, Text

IDEALS = (("input", ("ideal", "target")), ("prompt", ("references", "reference", "ideal")),
          ("question", ("references", "reference", "ideal")))
TEXTS = ("text", "content", "raw_content")


def prompt_and_answer(shape: Shape, given: Given) -> Format | None:
    """`instruction` (input) `output`; or a prompt and an answer, each by one of several names."""
    is_alpaca = shape.find(("instruction",)) and shape.find(("output",))
    asked = Asked.of(shape, given, ("instruction",) if is_alpaca else PROMPTS)
    answer = shape.find(("output",) if is_alpaca else ANSWERS)
    if asked.question is None or answer is None:
        return None
    history = shape.find(("history",))

    def make(values: Values, origin: Origin) -> Conversation:
        brought, said = answered(value, answer) if isinstance(value := values.get(answer), list | dict) else (
            (), Message("assistant", as_text(values, answer)))
        turns = (*_history(values.get(history) if history else None), *asked.before(values), *brought, said)
        check_answered(turns)
        tools = tools_of(values.get(asked.tools)) if asked.tools else ()
        return Conversation(asked.complete(turns, values), origin, tools)

    how = f"{asked.sentence}, the answer {named([answer])}" + (
        f", earlier turns {named([history])}" if history else "")
    return Format(f"{asked.question} and {answer}", Conversation, (asked.question, answer), how, make,
                  (*asked.used, *one_of_each(history)))


def _history(value: Any) -> Turns:
    """Earlier questions with their answers, which are learnt too, as LLaMA-Factory does."""
    if not value:
        return ()
    if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value) or any(
            not isinstance(text, str) for pair in value for text in pair):
        raise RowError("the history is no list of pairs", "History is a list of pairs, a question and its answer;")
    return tuple(Message(role, text) for pair in value for role, text in zip(("user", "assistant"), pair, strict=True))


def templates(asked: Template, answer: Template, given: Given, remark: str = "") -> Format:
    """Rows by the recipe's templates, or by a guess at them, of which a `remark` says so."""
    def make(values: Values, origin: Origin) -> Conversation:
        turns = Message("user", asked.fill(values, needed=True)), Message("assistant", answer.fill(values))
        check_answered(turns)
        return Conversation(turns if not given.system else (Message("system", given.system), *turns), origin)

    how = f"{remark}the prompt is made from {named(asked.columns)}, the answer from {named(answer.columns)}"
    columns = one_of_each(*asked.columns, *answer.columns)
    return Format("plain columns", Conversation, columns, how, make)


def evaluation(shape: Shape, given: Given) -> Format | None:
    """`input` and `ideal` (OpenAI's evals), `input` and `target` (Inspect): a text or messages, one answer or many."""
    found = next(((q, a) for name, ideals in IDEALS if (q := shape.find((name,))) and (a := shape.find(ideals))), None)
    return _prompts(shape, given, *found) if found else None


def prompt_alone(shape: Shape, given: Given) -> Format | None:
    """A prompt that nothing answers, by its column or by the recipe's template."""
    question = given.prompt.columns[0] if given.prompt else shape.find(PROMPTS)
    return _prompts(shape, given, question, None) if question else None


def _prompts(shape: Shape, given: Given, question: str, ideal: str | None) -> Format:
    asked = Asked.of(shape, given, (question.lower(),))

    def make(values: Values, origin: Origin) -> Prompt:
        references = _references(values.get(ideal), ideal) if ideal else ()
        turns = asked.before(values)
        check_asked(turns)
        asked.no_tools(values)
        return Prompt(asked.complete(turns, values), references, origin)

    how = f"{asked.sentence}, " + (f"the right answers {named([ideal])}" if ideal else "and no column answers it")
    return Format("evaluation samples" if ideal else "prompts without answers", Prompt, one_of_each(question, ideal),
                  how, make, asked.used)


def _references(value: Any, column: str) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    texts = tuple(item for item in listed if isinstance(item, str))
    if len(texts) != len(listed):
        raise RowError(f'"{column}" holds {kind_of(next(i for i in listed if not isinstance(i, str)))}',
                       "It is the right answer as a text, or a list of such;")
    return texts


def text_alone(shape: Shape, given: Given) -> Format | None:
    """Plain text, perhaps with where it came from."""
    column, source = shape.find(TEXTS), shape.find(("source", "url"))
    if column is None:
        return None

    def make(values: Values, origin: Origin) -> Text:
        text = as_text(values, column)
        if not text.strip():
            raise _EmptyTextError
        return Text(text, origin, as_text(values, source, optional=True) if source else "")

    return Format("plain texts", Text, (column,), f"each row is a text, {named([column])}", make, one_of_each(source))


class _EmptyTextError(DroppableError):
    def __init__(self) -> None:
        super().__init__("the text is empty", "Drop such rows with data.drop_empty=true, or")
