"""Asking one model all test rows: labels are chosen by likelihood or, where a server does not tell it, read from what
the model writes; of pairs the likelier answer is preferred; open answers are written.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import UserError
from tuneloop.evaluation.cache import Cached
from tuneloop.evaluation.cost import Price, Spent
from tuneloop.inference.remote import NoLogprobsError
from tuneloop.types import Answers, Message, Request, Sampling, Scored

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend, Progress

How = Literal["chosen", "parsed", "written", "preferred"]
SHOWN_LABELS = 3


class NotFiniteError(UserError):
    """The model computes no probabilities, so that whatever it answers means nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} gives no finite probabilities: its weights hold numbers that are not finite, or its "
                         "precision overflows.", fix="fetch it or train it again")


@dataclass(frozen=True)
class Asked:
    """What a model answered, how its answers came about, and what they took.

    `unread` counts answers in which no label, or more than one, was found; their text is empty.
    """

    answers: Answers
    how: How
    spent: Spent
    unread: int = 0
    about: str = ""             # what the model was given beside the rows, for whoever reads the report
    is_remote: bool = False     # then it costs what its own server takes, if anybody said so
    price: Price | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader must know to compare this model with others."""
        name, notes = self.answers.name, []
        if self.how == "parsed":
            notes.append(f"{name} does not say how likely labels are: it was told them, and its label was read from "
                         "what it wrote.")
        if self.unread:
            notes.append(f"{self.unread} of the {len(self.answers.texts)} answers of {name} name no label, or several; "
                         "they count as wrong.")
        if self.answers.stopped and (cut := self.answers.stopped.count(False)):
            notes.append(f"{cut} of the {len(self.answers.texts)} answers of {name} ran into the length limit and were "
                         "cut.")
        return notes


def ask(backend: Backend, requests: Sequence[Request], references: Sequence[str], labels: Sequence[str] = (),
        sampling: Sampling | None = None, *, name: str = "", likelihood: bool = True,
        progress: Progress | None = None) -> Asked:
    """Answers to all requests, aligned with the right ones. With `labels` an answer is one of them.

    `likelihood` also measures how likely the references are, where the model tells. `progress` counts requests.
    """
    name = name or backend.name
    if not labels:
        return _written(backend, requests, references, sampling or Sampling(), name, likelihood, progress)
    if unknown := sorted(set(references) - set(labels)):
        shown = ", ".join(map(repr, unknown[:SHOWN_LABELS])) + (", …" if len(unknown) > SHOWN_LABELS else "")
        raise UserError(f"Rows have answers that are not among the labels: {shown}.",
                        wanted=f"one of {', '.join(labels[:10])}{', …' if len(labels) > 10 else ''}",
                        fix="name every label")
    try:
        return _chosen(backend, requests, references, labels, name, progress)
    except NoLogprobsError:
        return _parsed(backend, requests, labels, sampling or Sampling(), name, progress)


def ask_pairs(backend: Backend, requests: Sequence[Request], better: Sequence[str], worse: Sequence[str], *,
              name: str = "", progress: Progress | None = None) -> Asked:
    """Which of two answers a model finds likelier per token, so that length does not decide; ties count as wrong."""
    twice = [request for request in requests for _ in range(2)]
    answers = [answer for pair in zip(better, worse, strict=True) for answer in pair]
    scored, seconds = _timed(backend, lambda: backend.score(twice, answers, progress=_every(2, progress)))
    mean = np.array([s.total / s.tokens for s in scored]).reshape(-1, 2)
    if np.isnan(mean).any():
        raise NotFiniteError(name or backend.name)
    texts = [b if right else w for b, w, right in zip(better, worse, mean[:, 0] > mean[:, 1], strict=True)]
    first = scored[::2]
    return Asked(Answers(name or backend.name, texts, [-s.total for s in first], [s.tokens for s in first]),
                 "preferred", Spent(seconds))


def _chosen(backend: Backend, requests: Sequence[Request], references: Sequence[str], labels: Sequence[str],
            name: str, progress: Progress | None) -> Asked:
    """The likeliest label after each request, by the sum of its tokens' log-probs.

    The end of the turn is counted only where one label is the beginning of another: a base that would go on after the
    right word is not marked wrong for it.
    """
    each = [request for request in requests for _ in labels]
    scored, seconds = _timed(backend, lambda: backend.score(each, list(labels) * len(requests),
                                                            progress=_every(len(labels), progress)))
    nested = any(a != b and b.startswith(a) for a in labels for b in labels)
    counted = _table([s.total if nested else s.without_end for s in scored], requests, labels)
    if np.isnan(counted).any():     # the first label would be chosen for every row, and half of them might be right
        raise NotFiniteError(name)
    best = counted.argmax(1)
    shifted = np.exp(counted - counted.max(1, keepdims=True))
    confidence = (shifted.max(1) / shifted.sum(1)).tolist()
    right = [scored[row * len(labels) + list(labels).index(r)] for row, r in enumerate(references)]
    answers = Answers(name, [labels[i] for i in best], nll=[-s.total for s in right], tokens=[s.tokens for s in right],
                      confidence=confidence)
    return Asked(answers, "chosen", Spent(seconds))


def _parsed(backend: Backend, requests: Sequence[Request], labels: Sequence[str], sampling: Sampling, name: str,
            progress: Progress | None) -> Asked:
    told = [_told(request, named_labels(labels)) for request in requests]
    asked = _written(backend, told, [""] * len(told), sampling, name, False, progress)
    texts = [label_in(text, labels) for text in asked.answers.texts]
    return Asked(replace(asked.answers, texts=texts), "parsed", asked.spent, texts.count(""))


def _written(backend: Backend, requests: Sequence[Request], references: Sequence[str], sampling: Sampling, name: str,
             likelihood: bool, progress: Progress | None) -> Asked:
    completions, seconds = _timed(backend, lambda: backend.generate(requests, sampling, progress=progress))
    if any(math.isnan(logprob) for c in completions for logprob in c.logprobs):
        raise NotFiniteError(name)
    scored = _likelihood(backend, requests, references) if likelihood else None
    answers = Answers(name, [c.text for c in completions], stopped=[c.stopped for c in completions],
                      nll=[-s.total for s in scored] if scored else None,
                      tokens=[s.tokens for s in scored] if scored else None,
                      new_tokens=[c.new_tokens for c in completions], seconds=[c.seconds for c in completions])
    return Asked(answers, "written", Spent(seconds, [c.seconds for c in completions],
                                           [c.prompt_tokens for c in completions], [c.new_tokens for c in completions]))


def _likelihood(backend: Backend, requests: Sequence[Request], references: Sequence[str]) -> list[Scored] | None:
    if not all(references):
        return None
    try:
        return backend.score(requests, references)
    except NoLogprobsError:
        return None


def _timed(backend: Backend, ask: Any) -> tuple[list[Any], float]:
    """The answers, and the machine's seconds that they took: of cached ones those when they were computed."""
    before, began = backend.machine_seconds if isinstance(backend, Cached) else 0.0, time.perf_counter()
    found = ask()
    took = time.perf_counter() - began
    return found, backend.machine_seconds - before if isinstance(backend, Cached) else took


def _table(values: Sequence[float], requests: Sequence[Request], labels: Sequence[str]) -> NDArray[np.float64]:
    return np.array(values).reshape(len(requests), len(labels))


def _every(of: int, progress: Progress | None) -> Progress | None:
    """Progress in requests of what is counted in answers, `of` for each request."""
    if progress is None:
        return None
    done = 0

    def count(answers: int) -> None:
        nonlocal done
        before, done = done // of, done + answers
        if done // of > before:
            progress(done // of - before)

    return count


# ── labels in texts ──────────────────────────────────────────────────────────────────────────────────────────────────

def named_labels(labels: Sequence[str]) -> str:
    """An instruction that names all labels; empty without any."""
    return f"Answer with exactly one of these labels and nothing else: {', '.join(labels)}." if labels else ""


def label_in(text: str, labels: Sequence[str]) -> str:
    """The label that a text is, or the only one that it names as a whole word; "" where there is none, or several.

    Case does not matter where no two labels differ in it alone. Of labels that hold each other the longest is meant.
    """
    fold = str.casefold if len({label.casefold() for label in labels}) == len(set(labels)) else str
    said = fold(text.strip())
    bare = said.strip(" \t\n\"'`*.,:;!?()[]")
    exact = {fold(label.strip()): label for label in labels}
    if bare in exact or said in exact:
        return exact[said if said in exact else bare]
    longest_first = sorted(exact, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(label)}(?!\w)" for label in longest_first if label)
    named = set(re.findall(pattern, said)) if pattern else set()
    return exact[named.pop()] if len(named) == 1 else ""


def _told(request: Request, instruction: str) -> Request:
    """The instruction behind the last turn."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user":
        return replace(request, messages=(*request.messages, Message("user", instruction)))
    return replace(request, messages=(*request.messages[:-1],
                                      replace(last, content=f"{last.content}\n\n{instruction}")))
