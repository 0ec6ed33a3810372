"""Everything that has seen a row: named, and removed where that can be done.

Nothing takes a row out of weights: an adapter that was trained on it is named, and stays.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneloop.data import answer_cache, token_cache
from tuneloop.data.answer_cache import AnswerCache
from tuneloop.data.flaws import listed
from tuneloop.data.token_cache import TokenCache
from tuneloop.data.versions import purge_runs
from tuneloop.data.versions.rows import VersionRow, row_hash
from tuneloop.data.versions.store import Provenance, Store, without_examples
from tuneloop.data.versions.target import Family, family, find_row
from tuneloop.data.versions.trace import Trace
from tuneloop.errors import UserError
from tuneloop.models.cache import database_errors

COLUMNS = "columns.db"      # in the cache folder: what models say of rows
WIDTH = 100


@dataclass(frozen=True)
class Purge:
    """Who has seen a row. `done`: what could be removed has been."""

    asked: str
    row: VersionRow
    forms: int                  # of the row: as it came, and as fixes left it
    traces: list[Trace]
    done: bool

    def lines(self) -> list[str]:
        """For the terminal."""
        text = json.dumps(self.row.values, ensure_ascii=False)
        found = [f"{self.asked} is {text if len(text) <= WIDTH else text[:WIDTH - 1] + '…'}"]
        found += [f"fixes have made {self.forms - 1} more of it"] * (self.forms > 1)
        verbs = {True: "removed" if self.done else "can go", False: "stays"}
        found += [f"  {verbs[trace.removable]:<7}  {trace.where}: {trace.what}" for trace in self.traces]
        if not self.traces:
            found.append("nothing here has seen it")
        elif not self.done and any(trace.removable for trace in self.traces):
            found.append("Nothing has been removed yet; --yes does it, for good.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"asked": self.asked, "row": self.row.hash.hex(), "forms": self.forms, "done": self.done,
                "traces": [asdict(trace) for trace in self.traces]}


@dataclass(frozen=True)
class Places:
    """Where to look beside the store: relative names of files count from `root`; `caches` is the cache folder."""

    root: Path
    runs: Path
    caches: Path


def purge(asked: str, store: Store, places: Places, rewrite: Callable[[Path], object], *, yes: bool = False) -> Purge:
    """Name everything that has seen the row `asked`; with `yes` remove what can be removed.

    `rewrite` makes the pages of a run's folder anew, where its texts were changed. Raises UserError where no row, or
    more than one, is meant, and while a run that has read the row is going on.
    """
    row = find_row(asked, store, places.root)
    found = family(store, row)
    traces = [*_in_store(found), *_in_files(found, row, places.root), *_in_caches(found, places.caches)]
    for run in purge_runs.readers(places.runs, found):
        traces += purge_runs.traces(run)
        if yes:
            purge_runs.remove(run, rewrite)
    if yes:
        _remove_from_caches(found, places.caches)
        _remove_from_store(found, store)
    return Purge(asked, row, len(found.hashes), traces, done=yes)


# --- the store -------------------------------------------------------------------------------------------------------


def _in_store(found: Family) -> list[Trace]:
    ends = {False: "a version without the row takes its place",
            True: "its rows stay in a file; once that has changed, the version is gone"}
    traces = [Trace("version", version.shown, ends[version.reference is not None], removable=not version.reference)
              for version in found.holders]
    return traces + [Trace("version", "the store", f"not everything could be looked at: {why}", removable=False)
                     for why in found.unknown]


def _remove_from_store(found: Family, store: Store) -> None:
    """A new version in place of each that holds the row."""
    instead: dict[str, str] = {}
    for version in found.holders:
        if version.reference:
            continue
        left = [row for row in store.rows(version) if row.hash not in found.hashes]
        step = {"what": "purge", "fix": {"kind": "purge"}, "rows_before": version.rows, "rows_after": len(left),
                "log": []}
        made = store.add(left, Provenance(
            format=version.format, parents=[instead.get(parent, parent) for parent in version.parents],
            files=version.files, steps=[*without_examples(version.steps), step]))
        instead[version.id] = made.id
    store.supersede(instead)


# --- files and caches ------------------------------------------------------------------------------------------------


def _in_files(found: Family, row: VersionRow, root: Path) -> list[Trace]:
    """Data files that versions were read from, and the one that was named: they are the user's own, and stay."""
    paths = {file.path: file.shown for version in found.holders
             for file in [*version.files, *([version.reference] if version.reference else [])]}
    named = (root / row.origin.file).expanduser()
    if named.is_file():
        paths[str(named.resolve())] = row.origin.file
    return [trace for path, shown in paths.items() if (trace := _in_file(Path(path), shown, found))]


def _in_file(path: Path, shown: str, found: Family) -> Trace | None:
    from tuneloop.data.read import open_source

    if not path.is_file():
        return None
    try:
        rows = open_source(str(path), Path(), shown).rows()
        lines = [row.line for row in rows if row_hash(row.values) in found.hashes]
    except UserError as error:
        return Trace("file", shown, f"cannot be looked at: {error.found}", removable=False)
    if not lines:
        return None
    return Trace("file", shown, f"holds it on line {listed(lines)}; remove it there", removable=False)


def _in_caches(found: Family, caches: Path) -> list[Trace]:
    traces = []
    tokens, columns, answers = (caches / name for name in (token_cache.FILE, COLUMNS, answer_cache.FILE))
    if tokens.is_file():
        with closing(TokenCache(tokens)) as cache:
            if count := cache.count(found.digests):
                traces.append(Trace("cache", str(tokens), f"its tokens, {count} times", removable=True))
    if columns.is_file() and (count := _scored(columns)):
        traces.append(Trace("cache", str(columns), f"log-probs of {count:,} rows, of which nobody can tell whose they "
                            "are; all go, and are computed again when they are needed", removable=True))
    if answers.is_file():
        with closing(AnswerCache(answers)) as kept:
            known, unknown = kept.count(found.is_in)
        if known:
            traces.append(Trace("cache", str(answers), f"what models answered to its texts, {known:,} times",
                                removable=True))
        if unknown:
            traces.append(Trace("cache", str(answers), f"{unknown:,} answers to questions of which nobody can tell "
                                "whose texts they hold; all go, and are asked again when they are needed",
                                removable=True))
    return traces


def _remove_from_caches(found: Family, caches: Path) -> None:
    if (caches / token_cache.FILE).is_file():
        with closing(TokenCache(caches / token_cache.FILE)) as cache:
            cache.forget(found.digests)
    if (caches / answer_cache.FILE).is_file():
        with closing(AnswerCache(caches / answer_cache.FILE)) as answers:
            answers.forget(found.is_in)
    if (caches / COLUMNS).is_file():
        with _columns(caches / COLUMNS) as database, database:
            database.execute("PRAGMA secure_delete = ON")
            database.execute("DELETE FROM columns")


def _scored(path: Path) -> int:
    with _columns(path) as database:
        return int(database.execute("SELECT count(*) FROM columns").fetchone()[0])


@contextmanager
def _columns(path: Path) -> Iterator[sqlite3.Connection]:
    with database_errors("log-probs", path), closing(sqlite3.connect(path, timeout=60)) as database:
        yield database
