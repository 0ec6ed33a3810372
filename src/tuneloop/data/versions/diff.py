"""What two versions do not have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tuneloop.data.versions import chunks
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.rows import VersionRow
from tuneloop.data.versions.store import Store

SHOWN = 5
WIDTH = 100         # of a row that is shown
Place = tuple[str, int]
Rows = Callable[[], Iterator[VersionRow]]


@dataclass(frozen=True)
class Changed:
    """What became of one place in a file: usually one row of each; several where a row was cut."""

    before: list[VersionRow]
    after: list[VersionRow]


@dataclass(frozen=True)
class Diff:
    """From one version to another. A row is changed where both have rows of its place in its file, and other ones."""

    before: Manifest
    after: Manifest
    added: list[VersionRow]
    removed: list[VersionRow]
    changed: list[Changed]

    def lines(self) -> list[str]:
        """For the terminal: counts, and a few rows of each kind."""
        same = self.before.rows - len(self.removed) - sum(len(c.before) for c in self.changed)
        found = [f"data:{self.before.short} → data:{self.after.short}: {len(self.added):,} added, "
                 f"{len(self.removed):,} removed, {len(self.changed):,} changed, {same:,} the same"]
        found += _few([f"  + {row.origin}: {_short(row)}" for row in self.added])
        found += _few([f"  - {row.origin}: {_short(row)}" for row in self.removed])
        for changed in self.changed[:SHOWN]:
            found += [f"  ~ {row.origin}: {_short(row, beside)}" for row, beside in _beside(changed)]
        return found + _more(self.changed)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with every row."""
        return {"before": self.before.id, "after": self.after.id, "added": _json(self.added),
                "removed": _json(self.removed),
                "changed": [{"before": _json(c.before), "after": _json(c.after)} for c in self.changed]}


def diff(store: Store, before: Manifest, after: Manifest) -> Diff:
    """Compare the rows of two versions. Files of rows that both share are not read."""
    shared = Counter(before.chunks) & Counter(after.chunks)
    old, new = (partial(_rows, store, version, shared) for version in (before, after))
    was, now = (Counter(row.hash for row in rows()) for rows in (old, new))
    removed, added = _surplus(old, new, was - now), _surplus(new, old, now - was)
    gone, come = _by_place(removed), _by_place(added)
    both = [place for place in gone if place in come]
    return Diff(before, after, [row for row in added if _place(row) not in gone],
                [row for row in removed if _place(row) not in come],
                [Changed(gone[place], come[place]) for place in both])


def _rows(store: Store, version: Manifest, shared: Counter[chunks.Chunk]) -> Iterator[VersionRow]:
    if not version.chunks:
        yield from store.rows(version)
    left = shared.copy()
    for chunk in version.chunks:
        if left[chunk]:
            left[chunk] -= 1
        else:
            yield from chunks.read(store.rows_folder, chunk)


def _surplus(mine: Rows, others: Rows, surplus: Counter[bytes]) -> list[VersionRow]:
    """As many of my rows as `surplus` says of each hash; of equal ones rather those whose place the others have not."""
    candidates = [row for row in mine() if surplus[row.hash]]
    there = {(row.hash, _place(row)) for row in others() if surplus[row.hash]}
    taken = []
    for number, row in sorted(enumerate(candidates), key=lambda entry: (entry[1].hash, _place(entry[1])) in there):
        if surplus[row.hash]:
            surplus[row.hash] -= 1
            taken.append(number)
    return [candidates[number] for number in sorted(taken)]


def _place(row: VersionRow) -> Place:
    return row.origin.file, row.origin.line


def _by_place(rows: Sequence[VersionRow]) -> dict[Place, list[VersionRow]]:
    found: dict[Place, list[VersionRow]] = {}
    for row in rows:
        found.setdefault(_place(row), []).append(row)
    return found


def _beside(changed: Changed) -> list[tuple[VersionRow, VersionRow | None]]:
    """Every row of both, with the one it is told apart from."""
    single = len(changed.before) == len(changed.after) == 1
    return [*((row, changed.after[0] if single else None) for row in changed.before),
            *((row, changed.before[0] if single else None) for row in changed.after)]


def _short(row: VersionRow, beside: VersionRow | None = None) -> str:
    """The row on one line, cut; of a row beside another only the columns in which they differ."""
    values = {key: value for key, value in row.values.items() if beside is None or beside.values.get(key) != value}
    text = json.dumps(values, ensure_ascii=False)
    return text if len(text) <= WIDTH else text[:WIDTH - 1] + "…"


def _few(lines: list[str]) -> list[str]:
    return lines[:SHOWN] + _more(lines)


def _more(found: Sequence[object]) -> list[str]:
    return [f"    and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []


def _json(rows: Sequence[VersionRow]) -> list[dict[str, Any]]:
    return [{"file": row.origin.file, "line": row.origin.line, "values": row.values} for row in rows]
