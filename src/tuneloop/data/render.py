"""From conversations to token ids with an exact loss mask, and the proof of that mask on every row.

The mask comes from the template itself: what `prompt_text` renders before a turn carries no loss, what follows up to
the end of that turn does. Prompt and answer are tokenised apart, as they are when the model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Origin, Rendered


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


def _pieces(conversation: Conversation, tokenizer: ChatTokenizer) -> list[Piece] | RenderProblem:
    """Cut the rendered conversation at the borders of the turns that carry loss; what comes after the last is left."""
    messages, origin = conversation.messages, conversation.origin
    try:
        full = tokenizer.full_text(messages)
        turns = [(tokenizer.prompt_text(messages[:i]), message.content)
                 for i, message in enumerate(messages) if message.role == "assistant" and message.train]
    except Exception as error:      # templates are programs of the base's makers: jinja2 raises whatever they raise
        return RenderProblem(origin, f"the base's chat template refuses this conversation: {error}")
    pieces: list[Piece] = []
    cursor = 0
    for prompt, answer in turns:
        if meant := sorted(token for token in tokenizer.specials if token in answer):
            return RenderProblem(origin, f"the answer contains {meant[0]}, which means something else to the model")
        end = _end_of_answer(full, prompt, answer, tokenizer.end_of_turn)
        if end is None:
            return RenderProblem(origin, "the base's chat template changes this conversation, so that the answer "
                                         f"{answer[:40]!r} with its end of turn is not found after its prompt")
        pieces += [(full[cursor:len(prompt)], False), (full[len(prompt):end], True)]
        cursor = end
    return pieces or RenderProblem(origin, "no turn of this conversation carries loss")


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
