"""From samples to what an optimizer step draws: the branches of a sample as tokens, with what its row says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.data.render import RenderProblem, render
from tuneloop.types import Conversation, Group, Learnt, Message, Origin, Preference, Rated, Rendered, Rollout

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer


def group_all(samples: Sequence[Learnt], tokenizer: ChatTokenizer) -> list[Group | RenderProblem]:
    """One `Group` or one `RenderProblem` per sample, in order."""
    answers = [conversations_of(sample) for sample in samples]
    rendered = iter(render(list(chain(*answers)), tokenizer))
    return [_group(sample, [next(rendered) for _ in mine]) for sample, mine in zip(samples, answers, strict=True)]


def with_probes(samples: Sequence[Rated], groups: Sequence[Group], others: Sequence[Rated], tokenizer: ChatTokenizer,
                limit: int | None) -> list[Group]:
    """The groups with a probe each: the row's own prompt, and the answer of the next of `others` that fits it not.

    As in Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1; an answer to the same prompt would be no mismatch. A
    group gets no probe where there is none, or where it would be longer than `limit` tokens.
    """
    answers = [_mismatch(sample, i, others) for i, sample in enumerate(samples)]
    asked = [_conversation(sample, answer or "") for sample, answer in zip(samples, answers, strict=True)]
    return [Group(group.branches, (probe,)) if answer and isinstance(probe, Rendered)
            and (limit is None or len(probe) <= limit) else group
            for group, answer, probe in zip(groups, answers, render(asked, tokenizer), strict=True)]


def _mismatch(sample: Rated, at: int, others: Sequence[Rated]) -> str | None:
    following = (others[(at + step) % len(others)] for step in range(1, len(others) + 1))
    return next((o.answer for o in following if o.prompt != sample.prompt and o.answer != sample.answer), None)


def by_prompt(groups: Mapping[Rollout, Group]) -> tuple[dict[Rollout, Group], list[Origin]]:
    """One rollout for each prompt, in the place of its first row, and where the rows are that were put to others.

    Answers are compared with all others to the same prompt, however the file spreads them over rows.
    """
    same: dict[tuple[Message, ...], list[Rollout]] = {}
    for rollout in groups:
        same.setdefault(rollout.prompt, []).append(rollout)
    whole = {_put_together(rows): Group(tuple(b for row in rows for b in groups[row].branches))
             for rows in same.values()}
    return whole, [row.origin for rows in same.values() for row in rows[1:]]


def _put_together(rows: Sequence[Rollout]) -> Rollout:
    return replace(rows[0], answers=tuple(a for row in rows for a in row.answers),
                   rewards=tuple(r for row in rows for r in row.rewards),
                   origin=replace(rows[0].origin, row="".join(sorted(row.origin.row for row in rows))))


def preferred(sample: Learnt, group: Group) -> Rendered:
    """The branch that holds `sample.answer`."""
    at = sample.answers.index(sample.answer) if isinstance(sample, Rollout) else 0
    return group.branches[at]


def conversations_of(sample: Learnt) -> tuple[Conversation, ...]:
    """A conversation for each answer of a sample, in the objective's order."""
    match sample:
        case Conversation():
            return (sample,)
        case Preference():
            return _conversation(sample, sample.chosen), _conversation(sample, sample.rejected)
        case Rated():
            return (_conversation(sample, sample.answer),)
        case Rollout():
            return tuple(_conversation(sample, answer) for answer in sample.answers)


def _conversation(sample: Preference | Rated | Rollout, answer: str) -> Conversation:
    return Conversation((*sample.prompt, Message("assistant", answer)), sample.origin)


def _group(sample: Learnt, rendered: Sequence[Rendered | RenderProblem]) -> Group | RenderProblem:
    problem = next((r for r in rendered if isinstance(r, RenderProblem)), None)
    if problem is not None:
        return problem
    return Group(tuple(replace(branch, named=named) for branch, named in zip(rendered, _named(sample), strict=True)
                       if isinstance(branch, Rendered)))


def _named(sample: Learnt) -> list[dict[str, Any]]:
    """What a row says of each of its branches, by the names that objectives know."""
    match sample:
        case Conversation():
            return [{}]
        case Preference():
            return [{"margin": np.float32(sample.margin)}] * 2
        case Rated():
            return [{"desirable": np.float32(sample.desirable)}]
        case Rollout():
            return [{"rewards": np.float32(reward)} for reward in sample.rewards]
