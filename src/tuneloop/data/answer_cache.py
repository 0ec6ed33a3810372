"""Answers of models by key, on disk, and whose rows' texts each question holds, so that a row can be purged.

The questions themselves are not kept, so nobody can tell whose an answer is where none was noted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tuneloop.models.cache import database_errors

FILE = "answers.db"         # in the cache folder
IsMeant = Callable[[str], bool]     # of an `Origin.row`
_UNKNOWN = "FROM answers WHERE key NOT IN (SELECT key FROM asked)"


class AnswerCache:
    """A SQLite file of answers by key. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with database_errors("answers", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            with self._database:
                self._database.execute("PRAGMA secure_delete = ON")     # a purged answer's bytes are overwritten
                self._database.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, value TEXT)")
                self._database.execute("CREATE TABLE IF NOT EXISTS asked (row TEXT, key BLOB, "
                                       "PRIMARY KEY (row, key)) WITHOUT ROWID")
                self._database.execute("CREATE INDEX IF NOT EXISTS by_key ON asked (key)")

    def get(self, key: bytes) -> dict[str, Any] | None:
        with database_errors("answers", self._path):
            found = self._database.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def put(self, entries: Iterable[tuple[bytes, dict[str, Any]]]) -> None:
        """Keep all entries or none; from then on they survive a killed process."""
        with database_errors("answers", self._path), self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)",
                                       ((key, json.dumps(value)) for key, value in entries))

    def note(self, asked: Iterable[tuple[str, bytes]]) -> None:
        """That the questions of these keys hold texts of rows, each known by its `Origin.row`."""
        with database_errors("answers", self._path), self._database:
            self._database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?)", (pair for pair in asked if pair[0]))

    def count(self, is_meant: IsMeant) -> tuple[int, int]:
        """How many answers are to questions with texts of such rows, and how many to questions of which nobody knows.
        """
        with database_errors("answers", self._path):
            known = sum(self._database.execute("SELECT count(*) FROM answers WHERE key = ?", (key,)).fetchone()[0]
                        for key in self._keys(is_meant))
            return known, int(self._database.execute(f"SELECT count(*) {_UNKNOWN}").fetchone()[0])

    def forget(self, is_meant: IsMeant) -> None:
        """Remove all of those, for good."""
        with database_errors("answers", self._path), self._database:
            keys = [(key,) for key in self._keys(is_meant)]
            self._database.execute(f"DELETE {_UNKNOWN}")
            self._database.executemany("DELETE FROM answers WHERE key = ?", keys)
            self._database.executemany("DELETE FROM asked WHERE key = ?", keys)

    def close(self) -> None:
        self._database.close()

    def _keys(self, is_meant: IsMeant) -> set[bytes]:
        rows = [row for (row,) in self._database.execute("SELECT DISTINCT row FROM asked") if is_meant(row)]
        return {key for row in rows for (key,) in self._database.execute("SELECT key FROM asked WHERE row = ?", (row,))}

