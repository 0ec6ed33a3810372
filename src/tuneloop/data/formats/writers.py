"""A writer for every row format: what a sample is as rows of that format.

To add one, write a function under `@writer(NAME)`. It takes a sample and `drop`, to be called with what it leaves out,
and raises CannotHoldError where nothing of use is left. Whatever it writes without a drop is recognised as the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tuneloop.data.formats import messages
from tuneloop.data.formats.holding import (
    CannotHoldError,
    Drop,
    all_trained,
    conversation_of,
    none_trained,
    without_media,
    without_tools,
)
from tuneloop.data.formats.media import MARK
from tuneloop.data.formats.turns import is_transcript
from tuneloop.types import Conversation, Message, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text

Rows = Iterator[dict[str, Any]]
Writer = Callable[[Sample, Drop], Rows]

PROMPTS = ("prompt", "input")
ANSWERS = ("chosen", "rejected", "completion")
SEVERAL = ("completions", "ranked")
WRITERS: dict[str, Writer] = {}
"""Every writer, by the name of its format."""


def writer(name: str) -> Callable[[Writer], Writer]:
    def register(function: Writer) -> Writer:
        WRITERS[name] = function
        return function
    return register


# --- to learn from ---------------------------------------------------------------------------------------------------


@writer("chat")
def _chat(sample: Sample, drop: Drop) -> Rows:
    if chat := conversation_of(sample, drop):
        yield {"messages": messages.openai(chat.messages, drop)} | _tools(chat, lambda tools: tools)


@writer("sharegpt")
def _sharegpt(sample: Sample, drop: Drop) -> Rows:
    if chat := conversation_of(sample, drop):
        all_trained(chat.messages, drop)
        functions = _tools(chat, lambda tools: json.dumps([tool["function"] for tool in tools], ensure_ascii=False))
        yield {"conversations": messages.sharegpt(chat.messages, drop)} | functions | _media(chat)


@writer("gemini")
def _gemini(sample: Sample, drop: Drop) -> Rows:
    if chat := conversation_of(sample, drop):
        all_trained(chat.messages, drop)
        system, turns = _system(chat.messages)
        row: dict[str, Any] = {"systemInstruction": {"parts": [{"text": system}]}} if system else {}
        yield row | {"contents": messages.gemini(turns, drop)} | _tools(
            chat, lambda tools: [{"functionDeclarations": [tool["function"] for tool in tools]}])


@writer("alpaca")
def _alpaca(sample: Sample, drop: Drop) -> Rows:
    if chat := conversation_of(sample, drop):
        system, pairs = _pairs(chat, drop)
        all_trained(chat.messages, drop)
        *history, (question, answer) = pairs
        yield {"instruction": question, "input": "", "output": answer} | ({"system": system} if system else {}) | (
            {"history": [list(pair) for pair in history]} if history else {})


@writer("prompt-completion")
def _prompt_completion(sample: Sample, drop: Drop) -> Rows:
    if chat := conversation_of(sample, drop):
        system, pairs = _pairs(chat, drop)
        if len(pairs) > 1:
            drop("all turns but the last question and answer")
        question, answer = pairs[-1]
        yield {"prompt": question, "completion": answer} | ({"system": system} if system else {})


@writer("text")
def _text(sample: Sample, drop: Drop) -> Rows:
    if not isinstance(sample, Text):
        raise CannotHoldError("questions and answers, which only a chat template makes into text")
    yield {"text": sample.text} | ({"source": sample.source} if sample.source else {})


# --- to learn from judgements ----------------------------------------------------------------------------------------


@writer("preference")
def _preference(sample: Sample, drop: Drop) -> Rows:
    for pair in _as_pairs(sample, drop):
        prompt, (chosen, rejected) = _judged(pair.prompt, (pair.chosen, pair.rejected), drop)
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected} | (
            {"margin": pair.margin} if pair.margin else {})


@writer("openai-preference")
def _openai_preference(sample: Sample, drop: Drop) -> Rows:
    for pair in _as_pairs(sample, drop):
        none_trained(pair.prompt, drop)
        if pair.margin:
            drop("how much better an answer is")
        asked = {"messages": messages.asked(pair.prompt, drop), "tools": [], "parallel_tool_calls": True}
        yield {"input": asked, "preferred_output": [_said(pair.chosen)], "non_preferred_output": [_said(pair.rejected)]}


@writer("kto")
def _kto(sample: Sample, drop: Drop) -> Rows:
    if isinstance(sample, Rated):
        rated = [(sample.answer, sample.desirable)]
    elif isinstance(sample, Preference):
        drop("which two answers belong together")
        rated = [(sample.chosen, True), (sample.rejected, False)]
    else:
        raise CannotHoldError("rows that do not say what people liked")
    for answer, desirable in rated:
        prompt, (completion,) = _judged(sample.prompt, (answer,), drop)
        yield {"prompt": prompt, "completion": completion, "label": desirable}


@writer("ranked")
def _ranked(sample: Sample, drop: Drop) -> Rows:
    if isinstance(sample, Rollout):
        drop("the rewards")
        if len(set(sample.rewards)) < len(sample.rewards):
            raise CannotHoldError("answers with the same reward, which are in no order")
        best_first = sorted(zip(sample.rewards, sample.answers, strict=True), reverse=True)
        sample = Ranked(sample.prompt, tuple(answer for _, answer in best_first), sample.origin)
    if isinstance(sample, Preference):
        if sample.margin:
            drop("how much better an answer is")
        sample = Ranked(sample.prompt, (sample.chosen, sample.rejected), sample.origin)
    if not isinstance(sample, Ranked) or len(sample.answers) < 2:
        raise CannotHoldError("rows that do not say which of several answers is better")
    prompt, answers = _judged(sample.prompt, sample.answers, drop)
    yield {"prompt": prompt, "ranked": answers}


@writer("rollouts")
def _rollouts(sample: Sample, drop: Drop) -> Rows:
    if not isinstance(sample, Rollout):
        raise CannotHoldError("rows without rewards")
    prompt, answers = _judged(sample.prompt, sample.answers, drop)
    yield {"prompt": prompt, "completions": answers, "rewards": list(sample.rewards)}


# --- to evaluate -----------------------------------------------------------------------------------------------------


@writer("eval")
def _eval(sample: Sample, drop: Drop) -> Rows:
    if not isinstance(sample, Prompt):
        chat = conversation_of(sample, drop)
        if chat is None:
            return
        drop("that the answer is to be learnt")
        chat = without_tools(chat, drop)
        sample = Prompt(chat.prompt, (chat.answer,), chat.origin)
    asked, _ = _judged(sample.prompt, (), drop)
    yield {"input": asked, "ideal": sample.references[0] if len(sample.references) == 1 else list(sample.references)}


# --- what writers share ----------------------------------------------------------------------------------------------


def _tools(chat: Conversation, written: Callable[[list[dict[str, Any]]], Any]) -> dict[str, Any]:
    return {"tools": written([json.loads(tool) for tool in chat.tools])} if chat.tools else {}


def _media(chat: Conversation) -> dict[str, list[str]]:
    """Columns beside turns whose marks say where each belongs."""
    if not any(turn.media for turn in chat.messages):
        return {}
    if any(MARK.search(turn.content) for turn in chat.messages if not turn.media):
        raise CannotHoldError("a text that holds <image> or the like, and shows none")
    columns: dict[str, list[str]] = {}
    for turn in chat.messages:
        for piece in messages.pieces(turn):
            if not isinstance(piece, str):
                columns.setdefault(f"{piece.kind}s", []).append(piece.where)
    return columns


def _system(turns: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system message that a chat begins with, and the rest."""
    if turns[0].role == "system" and turns[0].content.strip():
        return turns[0].content, turns[1:]
    return "", turns


def _pairs(chat: Conversation, drop: Drop) -> tuple[str, list[tuple[str, str]]]:
    """The system message and every question with its answer, of a chat that takes turns."""
    chat = without_tools(chat, drop)
    system, turns = _system(without_media(chat.messages, drop))
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise CannotHoldError("a chat in which user and assistant do not take turns")
    pairs = [(asked.content, said.content) for asked, said in zip(turns[::2], turns[1::2], strict=True)]
    if not pairs[-1][0].strip():
        raise CannotHoldError("an empty question")
    return system, pairs


def _as_pairs(sample: Sample, drop: Drop) -> list[Preference]:
    if isinstance(sample, Preference):
        return [sample]
    if isinstance(sample, Ranked):
        if len(sample.answers) > 2:
            drop("the order of the answers that are not the best")
        return [Preference(sample.prompt, sample.answer, worse, sample.origin) for worse in sample.answers[1:]]
    raise CannotHoldError("rows that do not say which of two answers is better")


def _judged(prompt: Sequence[Message], answers: Sequence[str], drop: Drop) -> tuple[Any, list[Any]]:
    """A prompt and its answers: as texts where one question is all of the prompt, else as messages."""
    none_trained(prompt, drop)
    if len(prompt) == 1 and prompt[0].role == "user" and not prompt[0].media and not any(map(is_transcript, answers)):
        return prompt[0].content, list(answers)
    if prompt[-1].role not in ("user", "tool"):
        raise CannotHoldError(f"a prompt that ends with a {prompt[-1].role} message")
    return messages.asked(prompt, drop), [[_said(answer)] for answer in answers]


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """A row with messages where it had texts: other tools want all rows of a file alike."""
    def said(value: Any, role: str) -> Any:
        return [{"role": role, "content": value}] if isinstance(value, str) else value

    return row | {column: said(row[column], "user") for column in PROMPTS if column in row} | {
        column: said(row[column], "assistant") for column in ANSWERS if column in row} | {
        column: [said(answer, "assistant") for answer in row[column]] for column in SEVERAL if column in row}


def _said(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": answer}
