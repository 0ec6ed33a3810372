"""From conversations to token ids with an exact loss mask, and the proof of that mask on every row.

The mask comes from the template itself: what `prompt_text` renders before a turn carries no loss, what follows up to
the end of that turn does. Prompt and answer are tokenised apart, as they are when the model answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Origin, Rendered, Sample, Text


@dataclass(frozen=True, slots=True)
class RenderProblem:
    """Why a row cannot be trained on."""

    origin: Origin
    message: str


Piece = tuple[str, bool]    # text, whether it carries loss


def render(conversations: Sequence[Conversation], tokenizer: ChatTokenizer) -> list[Rendered | RenderProblem]:
    """One `Rendered` or one `RenderProblem` per conversation, in order."""
    pieces = [_pieces(c, tokenizer) for c in conversations]
    encoded = iter(tokenizer.encode([text for p in pieces if not isinstance(p, RenderProblem) for text, _ in p]))
    return [p if isinstance(p, RenderProblem) else _joined(c, p, [next(encoded) for _ in p], tokenizer)
            for c, p in zip(conversations, pieces, strict=True)]


def specials_in(sample: Sample, tokenizer: ChatTokenizer) -> list[str]:
    """Special tokens that are typed out in what a model reads, where it takes them for the end of a turn or the like.

    In an answer they are a `RenderProblem`.
    """
    texts = [sample.text] if isinstance(sample, Text) else [turn.content for turn in sample.prompt]
    return sorted({token for text in texts for token in _any_of(tokenizer.specials).findall(text)})


def would_cut(rendered: Rendered, limit: int, tokenizer: ChatTokenizer) -> str:
    """The text that a row would lose if it were cut at `limit` tokens, as other tools do."""
    return tokenizer.decode(rendered.ids[limit:].tolist())


@lru_cache(maxsize=8)
def _any_of(specials: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or "(?!)")


def _pieces(conversation: Conversation, tokenizer: ChatTokenizer) -> list[Piece] | RenderProblem:
    """Cut the rendered conversation at the borders of the turns that carry loss; what comes after the last is left."""
    messages, tools, origin = conversation.messages, conversation.tools, conversation.origin
    if shown := next((media.kind for message in messages for media in message.media), None):
        return RenderProblem(origin, f"the row shows {'an' if shown[0] in 'ai' else 'a'} {shown}, and the base reads "
                                     "text alone")
    try:
        full = tokenizer.full_text(messages, tools)
        turns = [(tokenizer.prompt_text(messages[:i], tools), i)
                 for i, message in enumerate(messages) if message.role == "assistant" and message.train]
        if untold := _left_out(conversation, full, turns, tokenizer):
            return RenderProblem(origin, untold)
        pieces: list[Piece] = []
        cursor = 0
        for prompt, i in turns:
            end = _end_of_turn(conversation, full, prompt, i, tokenizer)
            if isinstance(end, str):
                return RenderProblem(origin, end)
            pieces += [(full[cursor:len(prompt)], False), (full[len(prompt):end], True)]
            cursor = end
    except Exception as error:      # templates are programs of the base's makers: jinja2 raises whatever they raise
        return RenderProblem(origin, f"the base's chat template refuses this conversation: {error}")
    return pieces or RenderProblem(origin, "no turn of this conversation carries loss")


def _end_of_turn(conversation: Conversation, full: str, prompt: str, i: int, tokenizer: ChatTokenizer) -> int | str:
    """Where turn i, which follows `prompt`, ends in the whole text; or why it cannot be trained on."""
    answer, closing = conversation.messages[i], tokenizer.end_of_turn
    said = "".join([answer.content, *(call.name + call.arguments for call in answer.calls)])
    if meant := sorted(token for token in tokenizer.specials if token in said):
        return f"the answer contains {meant[0]}, which means something else to the model"
    if answer.calls:
        so_far = tokenizer.full_text(conversation.messages[:i + 1], conversation.tools)
        return _end_of_calls(full if full.startswith(so_far) else "", prompt, answer, closing, len(so_far))
    end = _end_of_answer(full, prompt, answer.content, closing)
    return end if end is not None else (
        "the base's chat template changes this conversation, so that the answer "
        f"{answer.content[:40]!r} with its end of turn is not found after its prompt")


def _end_of_calls(full: str, prompt: str, answer: Message, closing: str, limit: int) -> int | str:
    """The same for a turn that calls functions: it ends before `limit`, and its text says what is called."""
    at = full.find(closing, len(prompt), limit) if full.startswith(prompt) else -1
    if at < 0:
        return ("the base's chat template changes this conversation, so that a turn that calls a function is not found "
                f"with its end of turn, {closing!r}, after its prompt")
    piece = full[len(prompt):at]
    for call in answer.calls:
        if piece.count(call.name) <= answer.content.count(call.name) or not _says(json.loads(call.arguments), piece):
            return f"the base's chat template shows no calls: that of {call.name} is not in what the model would learn"
    if answer.content.strip() not in piece:
        return f"the base's chat template leaves out the text beside a call, {answer.content.strip()[:40]!r}"
    return at + len(closing)


def _says(value: Any, text: str) -> bool:
    """Whether a text holds a JSON value: as JSON, or, for templates that write it otherwise, every part of it."""
    if any(json.dumps(value, ensure_ascii=ascii) in text for ascii in (False, True)):
        return True
    if isinstance(value, dict):
        return all(_says(key, text) and _says(part, text) for key, part in value.items())
    if isinstance(value, list):
        return all(_says(part, text) for part in value)
    return str(value) in text


def _left_out(conversation: Conversation, full: str, turns: Sequence[tuple[str, int]],
              tokenizer: ChatTokenizer) -> str | None:
    """What of tools and of their answers the template does not show."""
    if conversation.tools and turns:
        prompt, i = turns[0]
        bare = tokenizer.prompt_text(conversation.messages[:i])
        for tool in conversation.tools:
            name = json.loads(tool)["function"]["name"]
            if prompt.count(name) <= bare.count(name):
                return f"the base's chat template shows no tools: {name} is not in the prompt"
    for message in conversation.messages:
        if message.role == "tool" and not _says(message.content.strip(), full):
            return f"the base's chat template leaves out what a tool answered, {message.content.strip()[:40]!r}"
    return None


def _end_of_answer(full: str, prompt: str, answer: str, end_of_turn: str) -> int | None:
    """Where the turn that answers `prompt` ends in `full`. Some templates strip the answer or put text before it.

    Text before it that ends a turn is not such: the answer was changed, and a later turn says the same.
    """
    if not full.startswith(prompt):
        return None
    for text in (answer + end_of_turn, answer.strip() + end_of_turn):
        at = full.find(text, len(prompt))
        if at >= 0 and end_of_turn not in full[len(prompt):at]:
            return at + len(text)
    return None


def _joined(conversation: Conversation, pieces: list[Piece], encoded: list[list[int]],
            tokenizer: ChatTokenizer) -> Rendered | RenderProblem:
    for (text, supervised), piece in zip(pieces, encoded, strict=True):
        if supervised and (decoded := tokenizer.decode(piece)) != text:
            return RenderProblem(conversation.origin, f"the tokenizer does not give the answer back: "
                                                      f"{text[:60]!r} became {decoded[:60]!r}")
    ids = np.fromiter((i for piece in encoded for i in piece), np.int64)
    weights = np.repeat([float(s) for _, s in pieces], [len(e) for e in encoded]).astype(np.float32)
    return Rendered(ids, weights, conversation.origin)
