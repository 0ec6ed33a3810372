"""Answers that must have a form (a JSON schema, a regular expression, one of some choices), by llguidance."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Constraint


class Guide:
    """What may come next in one answer."""

    def __init__(self, constraint: Constraint, tokenizer: ChatTokenizer, vocabulary: int) -> None:
        """`vocabulary` is the number of the model's logits. Raises a UserError where the constraint means nothing."""
        guidance = _library()
        self._matcher = guidance.LLMatcher(_tokens(tokenizer, vocabulary), _grammar(guidance, constraint))
        if self._matcher.is_error():
            raise UserError(f"The constraint cannot be followed: {self._matcher.get_error().splitlines()[0]}",
                            wanted="a JSON schema, a regular expression or choices", fix="mend the constraint")
        self._mask = np.zeros((1, (vocabulary + 31) // 32), np.int32)

    @property
    def finished(self) -> bool:
        """Nothing but the end may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.bool_]:
        """(V,): which tokens may come next; the one that ends the turn where the answer may end."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask)
        return np.unpackbits(self._mask.view(np.uint8), bitorder="little").astype(bool)

    def take(self, token: int) -> None:
        """Go on behind a token that was allowed."""
        self._matcher.consume_token(token)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UserError("Answers under a constraint need the package llguidance, which is not installed.",
                        fix='pip install "tuneloop[constrain]"') from error
    return llguidance


def _grammar(guidance: Any, constraint: Constraint) -> str:
    given = [name for name in ("json_schema", "regex", "choices") if getattr(constraint, name)]
    if len(given) != 1:
        raise UserError(f"A constraint names {' and '.join(given) or 'nothing'}.",
                        wanted="one of json_schema, regex and choices")
    matcher = guidance.LLMatcher    # white space at will is what a model can go on with for ever
    try:
        if constraint.json_schema:
            json.loads(constraint.json_schema)
            return str(matcher.grammar_from_json_schema(constraint.json_schema, {"whitespace_flexible": False}))
        if constraint.regex:
            return str(matcher.grammar_from_regex(constraint.regex))
        return str(matcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, constraint.choices))))
    except ValueError as error:
        raise UserError(f"The constraint cannot be read: {error}.", wanted="a JSON schema as JSON") from error


@lru_cache(maxsize=4)
def _tokens(tokenizer: ChatTokenizer, vocabulary: int) -> Any:
    """The tokens of a base as llguidance needs them; about a second for a large vocabulary."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer.inner, n_vocab=vocabulary, eos_token=tokenizer.end_of_turn_id)
