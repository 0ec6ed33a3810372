"""What `tuneloop data …` does, as plain functions: they return what there is to show, and print nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.data.examine import HEAD_ROWS
from tuneloop.data.files import located
from tuneloop.data.findings import Places
from tuneloop.data.fix import Step, apply_all
from tuneloop.data.fixes.base import Again, Change, Fix, Tools, count_of
from tuneloop.data.fixes.drop import UNREADABLE
from tuneloop.data.fixes.drop import Fix as Drop
from tuneloop.data.flaws import flaw_errors
from tuneloop.data.load import items_of
from tuneloop.data.read import Row, Table, open_source
from tuneloop.data.recognise import Mapped, choose
from tuneloop.data.sources import version as version_source
from tuneloop.data.sources.base import Source
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.rows import VersionRow, row_hash
from tuneloop.data.versions.store import Provenance, Store
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin

LARGE_BYTES = 2**30             # a file that is larger stays where it is


@dataclass(frozen=True)
class Fixed:
    """What fixes have made of a version."""

    before: Manifest
    after: Manifest
    steps: list[Step]
    left_out: list[Change]      # rows that cannot be read

    def lines(self) -> list[str]:
        """For the terminal."""
        found = [str(change) for change in self.left_out]
        found += [line for step in self.steps for line in step.lines()]
        if self.after.id == self.before.id:
            return [*found, f"Nothing had to be changed: it stays {self.before.shown}."]
        name = self.after.shown
        return [*found, f"{name} has {self.after.rows:,} rows; the {self.before.rows:,} rows before are "
                        f"{self.before.shown}.",
                f"`tuneloop data export {name} FILE.jsonl` writes it; a recipe may name it: train: {name}"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"before": self.before.id, "after": self.after.id, "rows_before": self.before.rows,
                "rows_after": self.after.rows, "left_out": [change.to_json() for change in self.left_out],
                "steps": [step.to_json() for step in self.steps]}


def add(source_name: str, root: Path, store: Store, *, name: str = "") -> Manifest:
    """The rows of a source as a version."""
    source = open_source(source_name, root)
    return _kept(source, source.rows(), root, store, Provenance(name=name, source=source.shown))


def fix(source_name: str, fixes: Sequence[Fix], root: Path, store: Store, *, name: str = "",
        prompt: str | None = None, answer: str | None = None, system: str | None = None,
        tools: Callable[[Again], Tools] = Tools) -> Fixed:
    """A new version from the rows of a source; the source stays as it is, and becomes a version too.

    `prompt`, `answer` and `system` are as in a recipe. Raises UserError with every row that cannot be read, unless a
    fix drops those.
    """
    source = open_source(source_name, root)
    rows = list(source.rows())
    mapped = _chosen(source, rows, prompt, answer, system)
    made = mapped.make_all(rows)
    items, flaws = items_of(made), made.flaws
    if flaws and not any(isinstance(one, Drop) and UNREADABLE in one.checks for one in fixes):
        raise_all([*flaw_errors(flaws), UserError(
            f"{count_of(flaws)} of {source.shown} cannot be read, so that nothing was fixed.",
            fix=f"mend them, or leave them out with drop checks={UNREADABLE}")])
    left_out = [Change(f"{count_of(flaws)} left out", "they cannot be read",
                       Places(origin for origin, _ in flaws))] if flaws else []
    fixed, steps = apply_all(items, fixes, tools(mapped.make))
    before = _kept(source, iter(rows), root, store, Provenance(source=source.shown, format=mapped.sentence))
    after = store.add((VersionRow(item.values, item.origin, item.made_by) for item in fixed), Provenance(
        name=name, format=mapped.sentence, parents=[before.id], steps=_logged(left_out, before, steps)))
    return Fixed(before, after, steps, left_out)


def describe(store: Store, which: str) -> list[str]:
    """A version and all that it was made from, for the terminal."""
    version = store.find(which)
    return [line for one in [version, *store.ancestors(version)] for line in one.lines()]


def _logged(left_out: Sequence[Change], before: Manifest, steps: Sequence[Step]) -> list[dict[str, Any]]:
    told = [{"what": f"drop checks={UNREADABLE}", "fix": {"kind": "drop"}, "rows_before": before.rows,
             "rows_after": before.rows - len(change.places), "log": [change.to_json()]} for change in left_out]
    return [*told, *(step.to_json() for step in steps)]


def _chosen(source: Source, rows: Sequence[Row], prompt: str | None, answer: str | None,
            system: str | None) -> Mapped:
    head = list(islice(rows, HEAD_ROWS))
    return choose(Table.of(source.shown, source.kind, head, source.notes), prompt=prompt, answer=answer, system=system)


def _kept(source: Source, rows: Iterator[Row], root: Path, store: Store, made: Provenance) -> Manifest:
    """The rows of a source as a version: copied, or by reference where the file is large."""
    if isinstance(source, version_source.Source):
        return store.name(source.version, made.name) if made.name else source.version
    path, part = located(source.name, root)
    state = FileState.of(path, source.shown) if path.is_file() else None
    if state is not None and not part and state.bytes > LARGE_BYTES:
        return store.add_reference(state, (row_hash(row.values) for row in rows), made)
    kept = (VersionRow(row.values, Origin(row.file or source.shown, row.line)) for row in rows)
    return store.add(kept, Provenance(made.name, made.source, made.format, files=[state] if state else []))
