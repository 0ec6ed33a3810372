"""Rows whose answers people put in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.asked import Asked
from tuneloop.data.formats.base import Format, Given, Shape, Values
from tuneloop.data.formats.judged import ASKED, SAMPLED, EqualAnswersError, several
from tuneloop.types import Origin, Preference, Ranked

BEST_FIRST = ("ranked", "ranked_answers", "ranked_responses", "ranked_completions")
RANKS = ("ranks", "rank")
ORDER = ("ranking",)
TEXTS = ("answer", "response", "completion", "output", "text", "content")
_EACH_ONCE = "Every answer has its own place;"

InOrder = Callable[[Values], list[Any]]
"""The answers of a row, the best first."""


def ranked(shape: Shape, given: Given) -> Format | None:
    """Answers with the best first, with a rank each, or with their numbers in order."""
    found = _found(shape)
    if found is None:
        return None
    needs, what, in_order = found
    asked = Asked.of(shape, given, ASKED)

    def make(values: Values, origin: Origin) -> Ranked:
        prompt, texts = several(asked, in_order(values), needs[0], values)
        if len(texts) < 2:
            raise RowError("there is one answer to rank", "Answers are ranked against each other;")
        if len(set(texts)) < len(texts):
            raise EqualAnswersError("two of the ranked answers are the same")
        return Ranked(prompt, texts, origin)

    return Format("ranked answers", Ranked, needs, f"each row is a prompt with {what}; {asked.sentence}", make,
                  asked.used)


def _found(shape: Shape) -> tuple[tuple[str, ...], str, InOrder] | None:
    """The columns that rows need, which is what, and how to put the answers in order."""
    listed, answers = shape.find(BEST_FIRST), shape.find(SAMPLED)
    if listed and shape.holds(listed, list):
        return (listed,), f'the answers "{listed}", the best first', lambda values: _list(values, listed)
    if answers is None or not shape.holds(answers, list):
        return None
    if ranks := shape.find(RANKS):
        what = f'the answers "{answers}", each with its place in "{ranks}", the lowest for the best'
        return (answers, ranks), what, lambda values: _sorted(_list(values, answers), _list(values, ranks))
    if order := shape.find(ORDER):
        what = f'the answers "{answers}", whose numbers "{order}" lists with the best first'
        return (answers, order), what, lambda values: _picked(_list(values, answers), _list(values, order))
    if _has_rank(next(iter(shape.example[answers]), None)):
        what = f'the answers "{answers}", each with its rank, the lowest for the best'
        return (answers,), what, lambda values: _by_own_rank(_list(values, answers))
    return None


def pairs_of(sample: Ranked) -> list[Preference]:
    """The best answer with each that is worse."""
    return [Preference(sample.prompt, sample.answer, worse, sample.origin) for worse in sample.answers[1:]]


def _list(values: Values, column: str) -> list[Any]:
    value = values.get(column)
    if not isinstance(value, list) or not value:
        raise RowError(f'"{column}" is no list, or empty', "Ranked answers are a list;")
    return value


def _sorted(answers: list[Any], ranks: list[Any]) -> list[Any]:
    """Each answer has its place, the lowest for the best."""
    if len(ranks) != len(answers) or any(isinstance(r, bool) or not isinstance(r, int | float) for r in ranks) or (
            len(set(ranks)) < len(ranks)):
        raise RowError("the ranks are not a different number for each answer", _EACH_ONCE)
    return [answers[i] for i in sorted(range(len(ranks)), key=ranks.__getitem__)]


def _picked(answers: list[Any], order: list[Any]) -> list[Any]:
    """The numbers of the answers in order, counted from 0 or from 1."""
    first = 0 if 0 in order else 1
    if any(isinstance(n, bool) or not isinstance(n, int) for n in order) or (
            sorted(order) != list(range(first, first + len(answers)))):
        raise RowError("the ranking does not name every answer once, by its number", _EACH_ONCE)
    return [answers[n - first] for n in order]


def _has_rank(answer: Any) -> bool:
    return isinstance(answer, dict) and "rank" in answer


def _by_own_rank(answers: list[Any]) -> list[Any]:
    if not all(map(_has_rank, answers)):
        raise RowError("an answer has no rank", _EACH_ONCE)
    texts = [next((answer[key] for key in TEXTS if key in answer), None) for answer in answers]
    return _sorted(texts, [answer["rank"] for answer in answers])
