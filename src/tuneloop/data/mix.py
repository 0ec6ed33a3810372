"""Rows of other sources among the training rows: general rows against forgetting, safety rows.

Weights are shares of the training rows that come out, the recipe's own included: with own rows n and weights w, the
source i gives w_i n / (1 - sum of w) rows. Mixed rows only train; they are never held out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, zip_longest
from pathlib import Path

from tuneloop.data.fixes.base import count_of
from tuneloop.data.read import Row, open_source
from tuneloop.data.sample import sample_rows
from tuneloop.data.spec import MixedSource
from tuneloop.errors import UserError, raise_all


@dataclass(frozen=True)
class Mixed:
    """What one source gives. A row says in `file` where it is from, and may be there more than once."""

    given: MixedSource
    shown: str              # the source, for people
    rows: list[Row]
    asked: int              # rows that its weight asks for
    different: int          # rows that it could give of those
    how: str                # they were drawn

    def __str__(self) -> str:
        """For the terminal."""
        said = f"{self.shown}: {count_of(self.rows)} mixed in"
        if self.different == self.asked:
            return f"{said}, {100 * self.given.weight:g} % of the training rows; {self.how}"
        times = self.asked / self.different
        taken = f"{times:.1f} times on average" if self.given.when_short == "repeat" else "once"
        return f"{said}; it has {self.different:,}, and its weight asks for {self.asked:,}: each is taken {taken}"


def mix(sources: Sequence[MixedSource], own_rows: int, root: Path, seed: int,
        shown: Sequence[str] = ()) -> list[Mixed]:
    """Draw from every source its share beside `own_rows` training rows; the same seed draws the same rows.

    `shown` has other names of the sources, for people. Sources are not read whole where their kind allows that. Raises
    UserError with every source that cannot be read or has no rows.
    """
    found, problems = [], []
    counts = shares([s.weight for s in sources], own_rows)
    for source, count, name in zip_longest(sources, counts, shown):
        try:
            found.append(_drawn(source, count, root, seed, name))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    return found


def shares(weights: Iterable[float], own_rows: int) -> list[int]:
    """Rows of each source, so that of all rows it has its weight; one at least."""
    weights = list(weights)
    total = own_rows / (1 - sum(weights))
    return [max(1, round(weight * total)) for weight in weights]


def _drawn(given: MixedSource, count: int, root: Path, seed: int, shown: str | None) -> Mixed:
    source = open_source(given.source, root, shown)
    rows, how = sample_rows(source, count, _seed(given, seed))
    if not rows:
        raise UserError(f"{source.shown} (data.mix) holds no rows.", fix="name another source, or leave it out")
    rows = [replace(row, file=row.file or source.shown) for row in rows]
    taken = list(islice(cycle(rows), count)) if given.when_short == "repeat" else rows
    return Mixed(given, source.shown, taken, count, len(rows), how)


def _seed(given: MixedSource, seed: int) -> int:
    """A source draws the same rows whatever stands beside it, and wherever its file lies: a run goes on from another
    folder.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {Path(given.source).name}".encode()).digest()[:4])
