"""Before the first step the longest batch is tried: forward, backward and update, and nothing has changed after it.

So a run that will not fit ends in its first minute, with the plan's advice, and not at step 400. Gradients are zero and
the rate is zero in the update, whose state is then forgotten: AdamW adds a zero to every parameter. What is drawn at
random is drawn apart. So training goes on bit for bit as without the trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import torch

from tuneloop.errors import TrainingFailed
from tuneloop.training.memory import FEWEST_TOKENS, ran_out
from tuneloop.training.peak import memory_bytes, release, resident_bytes
from tuneloop.training.step import Trainer, accumulate, step_stats, tokens_of
from tuneloop.types import Group, Piece

GIB = 2**30
RISKY = 0.8         # a plan that fills so much of the limit is tried with less first
ROOM = 0.97         # of what is free; beyond it a system without swap ends the process without a word


def try_longest(trainer: Trainer, groups: Sequence[Group]) -> None:
    """Try the step with the longest groups, with smaller and smaller token budgets until it keeps to the limit.

    Raises TrainingFailed where not even the longest group alone does.
    """
    if str(getattr(trainer.accelerator.distributed_type, "value", "")) == "DEEPSPEED":
        return      # its engine takes the step within the backward
    governor, share = trainer.governor, trainer.settings.share
    lengths = {id(group): tokens_of(group, share) for group in groups}
    longest = sorted(groups, key=lambda group: -lengths[id(group)])[:trainer.settings.batch_size]
    most = lengths[id(longest[0])]
    if _is_risky(trainer) and trainer.accelerator.num_processes == 1:
        _look_ahead(trainer, longest, min(groups, key=lambda group: lengths[id(group)]), most)
    while True:
        try:
            budget = governor.token_budget
            peak = _try(trainer, longest)
        except Exception as error:
            if trainer.accelerator.num_processes > 1 or not ran_out(error):
                raise
            peak = None
            governor.halve(0, most, error)
        if peak is not None and peak <= governor.memory_bytes:
            return
        if peak is not None and (budget <= max(most, FEWEST_TOKENS) or governor.token_budget == budget):
            raise _too_large(trainer, most, peak)
        release()


def _try(trainer: Trainer, chosen: Sequence[Group]) -> int:
    """The peak, in bytes, of the largest piece of a step over these groups and of an update."""
    pieces = _pieces(trainer, chosen)
    several = sum(bool(piece.samples) for piece in pieces) > 1
    largest = max(range(len(pieces)), key=lambda i: pieces[i].computed_tokens + pieces[i].given)
    mine = _with_its_trunks(pieces, largest)
    tried = [chosen[g] for g in sorted({int(g) for piece in mine for g in piece.forest.group_of})]
    governor, high = trainer.governor, trainer.governor.high
    trainer.model.train()
    with torch.random.fork_rng(), _put_back(trainer):
        if several:         # what earlier pieces of a step have left
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        high.mark()
        before = memory_bytes()
        accumulate(trainer, mine, step_stats(trainer, tried))
        computed = high.mark().in_use_bytes
        _update_by_nothing(trainer)
        updated = high.mark().in_use_bytes
    governor.learn(0, max(piece.forest.unique_tokens for piece in mine), before, computed)
    return max(computed, updated)


def _pieces(trainer: Trainer, chosen: Sequence[Group]) -> list[Piece]:
    return trainer.pieces([r for group in chosen for r in group.branches],
                          [g for g, group in enumerate(chosen) for _ in group.branches])


def _with_its_trunks(pieces: Sequence[Piece], last: int) -> list[Piece]:
    """The piece, behind the trunks that it starts from."""
    chain = [last]
    while pieces[chain[0]].parent >= 0:
        chain.insert(0, pieces[chain[0]].parent)
    return [replace(pieces[i], parent=at - 1) for at, i in enumerate(chain)]


@contextmanager
def _put_back(trainer: Trainer) -> Iterator[None]:
    """Whatever happens, no gradient and no state of the optimizer is left, and rates are as they were."""
    inner: Any = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    before = [(group["lr"], group["weight_decay"]) for group in inner.param_groups]
    try:
        yield
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
        inner.state.clear()
        for group, (rate, decay) in zip(inner.param_groups, before, strict=True):
            group["lr"], group["weight_decay"] = rate, decay


def _update_by_nothing(trainer: Trainer) -> None:
    for group in trainer.optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.0, 0.0
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()
    trainer.optimizer.step()


# ── before it is too late ────────────────────────────────────────────────────────────────────────────────────────────

def _is_risky(trainer: Trainer) -> bool:
    """Whether the plan comes near the limit, on a CPU: there the system may end a process that takes too much."""
    expects, limit = trainer.settings.expects, trainer.governor.memory_bytes
    return expects is not None and not torch.cuda.is_available() \
        and expects(trainer.governor.token_budget) > RISKY * limit


def _look_ahead(trainer: Trainer, longest: Sequence[Group], shortest: Group, most: int) -> None:
    """Try the shortest group alone, and put the plan right by it; lower the budget, or stop, where that is too much."""
    expects = trainer.settings.expects
    assert expects is not None
    tokens = tokens_of(shortest, trainer.settings.share)
    off = _try(trainer, [shortest]) - expects(tokens)
    release()
    free = int(ROOM * (psutil.virtual_memory().available + resident_bytes()))
    limit = min(trainer.governor.memory_bytes, free)
    needed = expects(most) + off
    if tokens < most and needed > limit:
        raise _too_large(trainer, most, needed, measured=False)
    while trainer.governor.token_budget > max(most, FEWEST_TOKENS) \
            and expects(_largest(trainer, longest)) + off > limit:
        trainer.governor.lower(0, max(most, trainer.governor.token_budget // 2),
                               f"about {(expects(_largest(trainer, longest)) + off) / GIB:.2f} GiB would be needed")


def _largest(trainer: Trainer, chosen: Sequence[Group]) -> int:
    return max(piece.forest.unique_tokens for piece in _pieces(trainer, chosen))


def _too_large(trainer: Trainer, tokens: int, needed: int, *, measured: bool = True) -> TrainingFailed:
    governor = trainer.governor
    took = f"takes {needed / GIB:.2f} GiB, as measured" if measured else \
        f"would take about {needed / GIB:.2f} GiB, by the plan and a shorter one that was measured"
    return TrainingFailed(
        f"This run does not fit: its longest row, or the answers to one prompt, of {tokens:,} tokens {took}, and "
        f"training may use {governor.memory_bytes / GIB:.2f} GiB. No step was taken.", fix=governor.advice())
