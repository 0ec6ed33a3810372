"""Which rows a model has been trained with, as hashes in a file beside its weights: whoever tests it later, or trains
it further, is told of test rows that it knows.

The hashes are those of `Origin.row`, of what a row holds in its file. A row cannot be read from its hash, but whoever
has the row can tell that it was there. A row that is written otherwise (other columns, other spaces) is another row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tuneloop.data.versions.rows import SHOWN_DIGITS
from tuneloop.data.versions.seen import read_seen
from tuneloop.errors import UserError
from tuneloop.models.resolve import LEARNT
from tuneloop.record import write_atomic

LEARNS = ("train", "validation")
"""Parts that a model is made by: validation rows decide when to stop."""

_HEAD = "# tuneloop: hashes of the rows that this model was trained with, so that nobody tests it on them unawares\n"


def write_learnt(folder: Path, rows: Iterable[str]) -> None:
    """Note beside a model which rows it knows, each by its `Origin.row`. Nothing is written where there is none."""
    hashes = sorted({one for row in rows for one in _single(row)})
    if hashes:
        write_atomic(folder / LEARNT, _HEAD + "".join(f"{one}\n" for one in hashes))


def read_learnt(folder: Path) -> frozenset[str]:
    """What is noted beside a model; nothing for a model of others. Raises a UserError for a broken file."""
    path = folder / LEARNT
    if not path.is_file():
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    rows = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for row in rows:
        if not re.fullmatch(f"[0-9a-f]{{{SHOWN_DIGITS}}}", row):
            raise UserError(f"{path} is broken: {row[:40]} is no hash of a row.", fix="export the model again")
    return frozenset(rows)


def learnt_by(folder: Path) -> frozenset[str]:
    """Rows that a run, or the model in a folder, has been trained with; of a model of others nobody knows."""
    seen = {one for part, origin in read_seen(folder) or () if part in LEARNS for one in _single(origin.row)}
    return frozenset(seen).union(*(read_learnt(folder / inner) for inner in ("", "adapter", "model")))


def knows(learnt: frozenset[str], row: str) -> bool:
    """Whether the row with this `Origin.row`, or one of those that were put together in it, is among them."""
    return any(one in learnt for one in _single(row))


def _single(row: str) -> Iterator[str]:
    """The hashes of rows that were put together, one by one."""
    return (row[at:at + SHOWN_DIGITS] for at in range(0, len(row), SHOWN_DIGITS))
