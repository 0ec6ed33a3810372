"""What to change so that the longest row fits, by the arithmetic of the plan."""

from __future__ import annotations

from dataclasses import replace

from tuneloop.errors import UserError
from tuneloop.plan.auto import method_named
from tuneloop.plan.make import GIB, Peak

SMALLER = ("lora", "qlora")         # methods that take less, the first before the second
SHORTEST = 64                       # rows below so many tokens are no advice


def advice(peak: Peak, longest: int, limit_bytes: int) -> str:
    """Ways that fit, each with what it would take; what else there is where none does."""
    ways: list[str] = []

    def offer(words: str, changed: Peak) -> bool:
        needed = changed.at(longest)
        if needed.high <= limit_bytes:
            ways.append(f"{words} (about {needed.total_bytes / GIB:.1f} GiB)")
        return needed.high <= limit_bytes

    again = replace(peak, checkpointing=True, fit=None)
    if not peak.checkpointing:
        offer("training.checkpointing=true", again)
    for kind in SMALLER:
        if _takes(peak, kind) and (offer(f"method={kind}", _by(peak, kind)) or
                                   offer(f"method={kind} training.checkpointing=true", _by(again, kind))):
            break
    rows = _longest_that_fits(replace(peak, fit=None), longest, limit_bytes)
    if rows >= SHORTEST:
        ways.append(f"data.max_length_tokens={rows}")
    ways.append("a smaller base (`tuneloop models`)")
    return "set " + ", or ".join(ways[:-1]) + f", or take {ways[-1]}" if len(ways) > 1 else \
        "take a smaller base (`tuneloop models`), or another machine (`tuneloop plan --on`)"


def _by(peak: Peak, kind: str) -> Peak:
    return replace(peak, method=method_named(kind), fit=None)


def _takes(peak: Peak, kind: str) -> bool:
    """Whether the method is another one that takes less, and this base can have it."""
    method = method_named(kind)
    now, then = (m.memory(peak.shape) for m in (peak.method, method))
    if (then.base_bytes + 16 * then.trainable_parameters) >= (now.base_bytes + 16 * now.trainable_parameters):
        return False
    try:
        method.check(peak.shape)
    except UserError:
        return False
    return True


def _longest_that_fits(peak: Peak, longest: int, limit_bytes: int) -> int:
    """Tokens of a row, in steps of 64; 0 where none fits."""
    rows = longest // SHORTEST * SHORTEST
    while rows and peak.at(rows).high > limit_bytes:
        rows -= SHORTEST
    return rows
