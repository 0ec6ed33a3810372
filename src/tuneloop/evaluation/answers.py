"""What a model answers on held-out rows: labels by constrained choice, open answers by generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tuneloop.compute.model import ForestModel
from tuneloop.data.render import RenderProblem, render
from tuneloop.inference.local import generate
from tuneloop.inference.score import rewards, score
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Answers, Conversation, Group, Ints, Message, Preference, Rendered, Sample, Sampling, tools_of

Progress = Callable[[int], None]


def choose_labels(name: str, model: ForestModel, rows: Sequence[Rendered], references: Sequence[str],
                  labels: Sequence[str], tokenizer: ChatTokenizer, *, token_budget: int, share: bool,
                  progress: Progress | None = None) -> Answers:
    """The most likely label after each prompt, by the sum of its tokens' log-probs.

    The end of the turn is counted only where one label is the beginning of another: a base that would go on after the
    right word is not marked wrong for it.
    """
    endings = [_label_ids(label, tokenizer) for label in labels]
    prompts = [row.ids[:len(row) - len(row.last_answer)] for row in rows]
    samples = [_choice(prompt, ending) for prompt in prompts for ending in endings]
    groups = [row for row in range(len(rows)) for _ in labels]
    scored = score(model, samples, token_budget=token_budget, share=share, groups=groups,
                   progress=None if progress is None else lambda done: progress(done // len(labels)))
    counted = scored.total if _nested(endings) else scored.without_end
    chosen = counted.reshape(len(rows), len(labels)).argmax(1)
    right = np.array([list(labels).index(r) for r in references])
    total = scored.total.reshape(len(rows), len(labels))
    return Answers(name, [labels[i] for i in chosen], nll=(-total[np.arange(len(rows)), right]).tolist(),
                   tokens=[len(endings[i]) for i in right])


def write_answers(name: str, model: ForestModel, rows: Sequence[Rendered], samples: Sequence[Sample],
                  tokenizer: ChatTokenizer, sampling: Sampling, *, token_budget: int, share: bool,
                  progress: Progress | None = None) -> Answers:
    """A generated answer to each prompt, and how likely the reference was."""
    completions = generate(model.model, tokenizer, [sample.prompt for sample in samples], sampling,
                           tools=[tools_of(sample) for sample in samples], progress=progress)
    last = [_last_answer_alone(row) for row in rows]
    scored = score(model, last, token_budget=token_budget, share=share)
    return Answers(name, [c.text for c in completions], nll=(-scored.total).tolist(),
                   tokens=[row.supervised for row in last], stopped=[c.stopped for c in completions])


def with_likelihood(answers: Answers, model: ForestModel, rows: Sequence[Rendered], *, token_budget: int,
                    share: bool) -> Answers:
    """The same with how likely the references were, just as training sees them."""
    last = [_last_answer_alone(row) for row in rows]
    scored = score(model, last, token_budget=token_budget, share=share)
    return replace(answers, nll=(-scored.total).tolist(), tokens=[row.supervised for row in last])


def choose_preferred(name: str, model: ForestModel, groups: Sequence[Group], pairs: Sequence[Preference], *,
                     by_reward: bool, token_budget: int, share: bool, progress: Progress | None = None) -> Answers:
    """The answer of each pair that the model prefers: the one that its scalar head rewards more, where it has one for
    that (`by_reward`); else the one that is likelier per token, so that length does not decide. Ties count as wrong.
    """
    samples = [branch for group in groups for branch in group.branches]
    of = [i for i, group in enumerate(groups) for _ in group.branches]
    options: dict[str, Any] = {"token_budget": token_budget, "share": share, "groups": of,
                               "progress": None if progress is None else lambda done: progress(done // 2)}
    if by_reward:
        better, worse = rewards(model, samples, **options).reshape(-1, 2).T
        return Answers(name, _preferred(pairs, better > worse))
    tokens = np.array([sample.supervised for sample in samples])
    total = score(model, samples, **options).total
    better, worse = (total / tokens).reshape(-1, 2).T
    return Answers(name, _preferred(pairs, better > worse), nll=(-total[::2]).tolist(), tokens=tokens[::2].tolist())


def _preferred(pairs: Sequence[Preference], right: Any) -> list[str]:
    return [pair.chosen if ok else pair.rejected for pair, ok in zip(pairs, right, strict=True)]


def _choice(prompt: Ints, ending: Ints) -> Rendered:
    weights = np.concatenate([np.zeros(len(prompt), np.float32), np.ones(len(ending), np.float32)])
    return Rendered(np.concatenate([prompt, ending]), weights)


def _label_ids(label: str, tokenizer: ChatTokenizer) -> Ints:
    """Tokens of an answer that is `label`, with its end of turn, as training sees them."""
    from tuneloop.types import Origin

    probe = Conversation((Message("user", "QUESTION"), Message("assistant", label)), Origin("", 0))
    rendered = render([probe], tokenizer)[0]
    if isinstance(rendered, RenderProblem):
        raise RuntimeError(f"the label {label!r} cannot be rendered: {rendered.message}")
    return rendered.last_answer


def _last_answer_alone(row: Rendered) -> Rendered:
    weights = np.zeros_like(row.weights)
    weights[len(row) - len(row.last_answer):] = 1
    return Rendered(row.ids, weights, row.origin)


def _nested(endings: Sequence[Any]) -> bool:
    """Whether one label's tokens, without the end of the turn, begin another's."""
    bare = [tuple(e[:-1].tolist()) for e in endings]
    return any(a != b and b[:len(a)] == a for a in bare for b in bare)
