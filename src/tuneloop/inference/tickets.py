"""Requests in the engine: what has come of each, what they have in common, and which are computed together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.inference.sampling import Choice, Chooser
from tuneloop.inference.text import TextSoFar
from tuneloop.types import Completion, Sampling

PREFILL_TOKENS = 2048   # of one forward, padding included
WORTH_COPYING = 8       # tokens; a shorter common beginning is computed again


@dataclass(eq=False)
class Ticket:
    """One request in the engine, and what has come of it."""

    ids: list[int]                          # the prompt's tokens, and the answer's as they come
    sampling: Sampling
    adapter: str | None
    chooser: Chooser
    text: TextSoFar
    prompt_tokens: int
    began: float
    row: int = -1                           # of the cache that all share; none where it has a cache of its own
    computed: int = 0                       # tokens whose keys and values are in either
    choices: list[Choice] = field(default_factory=list)
    done: Completion | None = None
    cancelled: bool = False
    cache: Any = None                       # its own


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two sequences have in common at the start."""
    end = min(len(one), len(other))
    if one[:end] == other[:end]:
        return end
    return bisect_left(range(end), True, key=lambda i: one[:i + 1] != other[:i + 1])


def alike(tickets: Sequence[Ticket]) -> list[list[Ticket]]:
    """Neighbours of a sorted list whose prompts begin alike, by enough to be worth a copy; never a whole prompt."""
    found: list[list[Ticket]] = []
    for ticket in tickets:
        first = found[-1][0] if found else None
        if (first is not None and first.adapter == ticket.adapter
                and min(common(first.ids, ticket.ids), len(first.ids) - 1, len(ticket.ids) - 1) >= WORTH_COPYING):
            found[-1].append(ticket)
        else:
            found.append([ticket])
    return found


def pieces(wanted: Sequence[tuple[Ticket, int]]) -> list[list[tuple[Ticket, int]]]:
    """Runs of neighbouring rows whose padded tokens stay below the limit, a quarter of them padding at most."""
    found: list[list[tuple[Ticket, int]]] = []
    for ticket, end in wanted:
        last = found[-1] if found else []
        each = [e - t.computed for t, e in (*last, (ticket, end))]
        padded = max(each) * len(each)
        if last and ticket.row == last[-1][0].row + 1 and padded <= PREFILL_TOKENS and sum(each) >= padded * 3 / 4:
            last.append((ticket, end))
        else:
            found.append([(ticket, end)])
    return found
