"""What a search may spend, and what it keeps back for the runs at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneloop.search_study import DEFAULTS, DRAWN, Trial


@dataclass(frozen=True)
class Purse:
    """A budget, and what of it was spent in sessions before this one."""

    bounds: Mapping[str, float]         # minutes, tokens, usd
    seeds: int                          # runs of the best recipe, and as many of the defaults, that come at the end
    began: float                        # time.time() of this session
    before_seconds: float = 0.0
    usd_per_hour: float = 0.0

    def spent(self, trials: Sequence[Trial]) -> dict[str, float]:
        """By the names of the bounds."""
        minutes = (self.before_seconds + time.time() - self.began) / 60
        return {"minutes": minutes, "tokens": sum(one.tokens for one in trials),
                "usd": minutes / 60 * self.usd_per_hour}

    def kept_back(self, trials: Sequence[Trial]) -> dict[str, float]:
        """What the runs at the end will take, if each takes what the trial of the defaults took; 0 before that."""
        first = next((one for one in trials if one.kind == DEFAULTS and one.value is not None), None)
        return {} if first is None else _cost(2 * self.seeds * first.seconds, 2 * self.seeds * first.tokens,
                                              self.usd_per_hour)

    def is_over(self, trials: Sequence[Trial], *, another: bool = False) -> str:
        """The name of a bound that is reached; with `another`, that one more trial as the others would pass."""
        spent, kept = self.spent(trials), self.kept_back(trials)
        ended = [one for one in trials if one.kind in (DEFAULTS, DRAWN) and one.state in ("finished", "stopped")]
        more = _cost(sum(one.seconds for one in ended) / len(ended), sum(one.tokens for one in ended) / len(ended),
                     self.usd_per_hour) if another and ended else {}
        return next((name for name, bound in self.bounds.items()
                     if spent[name] + kept.get(name, 0) + more.get(name, 0) > bound), "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _cost(seconds: float, tokens: float, usd_per_hour: float) -> dict[str, float]:
    return {"minutes": seconds / 60, "tokens": tokens, "usd": seconds / 3600 * usd_per_hour}


def seconds_of(trials: Sequence[Trial], workers: int) -> float:
    """About how long the clock ran for these trials."""
    return sum(one.seconds for one in trials) / workers
