"""What suites are made of: questions with options, scored by likelihood, and prompts whose answer a function grades.

A suite is a list of either and one call of `choose` or `ask`. Both kinds say what a model answered, and both keep the
order of their items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, TypeVar

from tuneloop.evaluation.suites.base import Graded
from tuneloop.inference.backend import Backend, Progress
from tuneloop.types import Message, Request, Sampling, Scored

Grade = Callable[[str], tuple[float, str]]
"""The score in [0, 1] of an answer, and what the grader saw."""


class Parted(Protocol):
    """Anything with a part that `pick` can choose from."""

    @property
    def part(self) -> str: ...


Kind = TypeVar("Kind", bound=Parted)


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with options, one of which is right. `before` are turns that show how to answer."""

    id: str
    part: str
    question: str
    choices: tuple[str, ...]
    answer: int
    before: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and the function that grades what a model says to it."""

    id: str
    part: str
    prompt: str
    grade: Grade


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of a data file of this package."""
    text = (files("tuneloop.evaluation.suites") / "data" / f"{name}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def choice(row: dict[str, Any], *, part: str = "", before: tuple[Message, ...] = ()) -> Choice:
    """A question of a data file."""
    return Choice(row["id"], part or row["part"], row["question"], tuple(row["choices"]), row["answer"], before)


def pick(items: Sequence[Kind], limit: int | None) -> list[Kind]:
    """At most `limit` items, the first of every part, then the second of every part, and so on; in their own order."""
    if limit is None or limit >= len(items):
        return list(items)
    seen: dict[str, int] = {}
    places = []
    for at, item in enumerate(items):
        seen[item.part] = seen.get(item.part, 0) + 1
        places.append((seen[item.part], at))
    return [items[at] for at in sorted(at for _, at in sorted(places)[:limit])]


def choose(backend: Backend, items: Sequence[Choice], progress: Progress | None = None) -> list[Graded]:
    """1 where the right option is the likeliest per character, else 0; nan where a log-prob is no number.

    Length normalisation by characters as in the `acc_norm` of lm-eval. The end of the turn counts only where one option
    begins another, such as 20 and 200, so that a base which would go on after the right word is not marked wrong.
    """
    requests = [Request((*item.before, Message("user", item.question))) for item in items]
    pairs = [(request, option) for request, item in zip(requests, items, strict=True) for option in item.choices]
    scored = iter(backend.score([request for request, _ in pairs], [option for _, option in pairs], progress=progress))
    return [_chosen(item, [next(scored) for _ in item.choices]) for item in items]


def _chosen(item: Choice, scored: Sequence[Scored]) -> Graded:
    nested = any(a != b and b.startswith(a) for a in item.choices for b in item.choices)
    each = [(one.total if nested else one.without_end) / len(option)
            for one, option in zip(scored, item.choices, strict=True)]
    if any(math.isnan(value) for value in each) or max(each) == -math.inf:
        return Graded(item.id, item.part, math.nan, "", "an option has no probability")
    at = each.index(max(each))
    right = item.choices[item.answer]
    return Graded(item.id, item.part, float(at == item.answer), item.choices[at],
                  "" if at == item.answer else f"right: {right}")


def ask(backend: Backend, items: Sequence[Asked], max_new_tokens: int,
        progress: Progress | None = None) -> list[Graded]:
    """Each answer, generated greedily, as its own function grades it."""
    answers = generated(backend, [item.prompt for item in items], max_new_tokens, progress)
    graded = []
    for item, (text, cut) in zip(items, answers, strict=True):
        score, why = item.grade(text)
        graded.append(Graded(item.id, item.part, score, text, joined(why, cut)))
    return graded


def generated(backend: Backend, prompts: Sequence[str], max_new_tokens: int,
              progress: Progress | None = None) -> list[tuple[str, str]]:
    """The greedy answer to each prompt, and a remark where it was cut."""
    requests = [Request((Message("user", prompt),)) for prompt in prompts]
    completions = backend.generate(requests, Sampling(max_new_tokens=max_new_tokens), progress=progress)
    return [(completion.text, "" if completion.stopped else "cut at the length limit") for completion in completions]


def joined(*remarks: str) -> str:
    """Remarks of a grader in one line."""
    return "; ".join(filter(None, remarks))
