"""What people said, in one SQLite file beside the answers. Rows are only ever added, and the file refuses all else.

A row is known by its item, its annotator and the nonce of one showing: the same click, sent twice, is one row. What is
taken back stays, with a row that says so. A row is on the disk before `add` returns, so that a killed process loses
none. Several processes may write at once. The journal is SQLite's ordinary one, so that the file is whole whenever it
is copied.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from tuneloop.errors import UserError
from tuneloop.people.items import Ask, Item, Verdict, check_of

SUFFIX = ".judgements.sqlite"
APPLICATION_ID, SCHEMA_VERSION = 0x746C6A31, 1
WAIT_SECONDS = 30           # for another process that is writing
Kind = Literal["verdict", "edit", "undo"]
Source = Literal["person", "model"]

_SCHEMA = f"""
CREATE TABLE said (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    item TEXT NOT NULL, annotator TEXT NOT NULL, nonce TEXT NOT NULL,
    kind TEXT NOT NULL, ask TEXT NOT NULL, question TEXT NOT NULL, shown TEXT NOT NULL, value TEXT NOT NULL,
    comment TEXT NOT NULL, seconds REAL, source TEXT NOT NULL, time TEXT NOT NULL,
    UNIQUE (item, annotator, nonce)) STRICT;
CREATE TRIGGER no_update BEFORE UPDATE ON said BEGIN SELECT RAISE(ABORT, 'rows are only added'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON said BEGIN SELECT RAISE(ABORT, 'rows are only added'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_COLUMNS = ("item", "annotator", "nonce", "kind", "ask", "question", "shown", "value", "comment", "seconds", "source",
            "time")


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Said:
    """One row. `shown` are the ids of the answers in the order in which they were shown, from the left.

    `value` is a verdict; of an edit the `answer` and its new `text`; of an undo the nonce `of` what is taken back.
    """

    item: str
    annotator: str
    nonce: str
    ask: Ask
    question: str
    shown: tuple[str, ...]
    value: dict[str, Any]
    kind: Kind = "verdict"
    comment: str = ""
    seconds: float | None = None
    source: Source = "person"
    time: str = field(default_factory=now)

    @property
    def verdict(self) -> Verdict:
        return Verdict.from_json(self.value)

    @property
    def check(self) -> str:
        """What of attention it was a test of; nothing where it was none."""
        return check_of(self.item)

    @property
    def about(self) -> tuple[str, ...]:
        """What only the last word of an annotator counts about."""
        return (self.item, self.kind, self.value["answer"] if self.kind == "edit" else "")

    @property
    def as_item(self) -> Item:
        return Item(self.item, self.ask, self.question, self.shown)


class Judgements:
    """The rows of a file, and what of them counts. Everything that other processes write shows at the next look."""

    def __init__(self, path: Path) -> None:
        """Raises a UserError for a file that is something else."""
        self.path = path
        self._lock = RLock()
        self._read = 0
        self._history: defaultdict[str, list[Said]] = defaultdict(list)             # that stand, by annotator
        self._last: defaultdict[str, dict[tuple[str, ...], Said]] = defaultdict(dict)
        self._counts: Counter[tuple[str, Ask, bool]] = Counter()                    # verdicts: whose, tests or not
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path} holds no judgements of people, or cannot be opened: {error}.",
                            fix="move it away") from error

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = FULL")
        with self._writing():
            [[version]] = self._db.execute("PRAGMA user_version")
            [[owner]] = self._db.execute("PRAGMA application_id")
            [[tables]] = self._db.execute("SELECT count(*) FROM sqlite_master")
            if not tables:
                for statement in _statements(_SCHEMA):
                    self._db.execute(statement)
            elif owner != APPLICATION_ID:
                raise sqlite3.DatabaseError("it is a database of something else")
            elif version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"its schema is {version}, and this tuneloop knows {SCHEMA_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def add(self, said: Said) -> bool:
        """Keep a row for good; False where that showing was answered before. Raises a UserError where it cannot be."""
        row = [getattr(said, name) for name in _COLUMNS]
        row[_COLUMNS.index("shown")] = json.dumps(said.shown)
        row[_COLUMNS.index("value")] = json.dumps(said.value, ensure_ascii=False)
        marks = ", ".join("?" * len(row))
        try:
            with self._lock:
                done = self._db.execute(f"INSERT INTO said ({', '.join(_COLUMNS)}) VALUES ({marks}) "
                                        "ON CONFLICT DO NOTHING", row)
        except sqlite3.Error as error:
            raise UserError(f"{self.path} cannot be written: {error}.",
                            fix="free disk space; what was said before is kept") from error
        return done.rowcount == 1

    def all(self) -> list[Said]:
        """Every row ever, in order."""
        with self._lock:
            return [_said(row) for _, *row in self._rows(0)]

    def look(self) -> None:
        """Take in what was written since, by whomever."""
        with self._lock:
            for number, *row in self._rows(self._read):
                self._read = number
                self._take(_said(row))

    def _rows(self, after: int) -> list[Any]:
        return self._db.execute(f"SELECT number, {', '.join(_COLUMNS)} FROM said WHERE number > ? ORDER BY number",
                                [after]).fetchall()

    def _take(self, said: Said) -> None:
        history = self._history[said.annotator]
        if said.kind != "undo":
            history.append(said)
            self._let_stand(said.annotator, said.about, said)
            return
        gone = next((one for one in reversed(history) if (one.item, one.nonce) == (said.item, said.value["of"])), None)
        if gone is not None:
            history.remove(gone)
            before = next((one for one in reversed(history) if one.about == gone.about), None)
            self._let_stand(said.annotator, gone.about, before)

    def _let_stand(self, annotator: str, about: tuple[str, ...], said: Said | None) -> None:
        """The last word about something, or none any more."""
        before = self._last[annotator].pop(about, None)
        for one, by in ((before, -1), (said, 1)):
            if one is not None and one.kind == "verdict":
                self._counts[annotator, one.ask, bool(one.check)] += by
        if said is not None:
            self._last[annotator][about] = said

    def annotators(self, source: Source | None = None) -> list[str]:
        """Everybody whose word stands, in the order in which they began."""
        return [name for name, history in self._history.items()
                if history and source in (None, history[-1].source)]

    def history(self, annotator: str) -> Sequence[Said]:
        """What somebody said and did not take back, in order."""
        return self._history[annotator]

    def standing(self, annotator: str | None = None) -> list[Said]:
        """The last word of one or all on everything."""
        names = list(self._last) if annotator is None else [annotator]
        return [said for name in names for said in self._last[name].values()]

    def last(self, annotator: str, item: str, kind: Kind = "verdict", answer: str = "") -> Said | None:
        """The last word of somebody on something."""
        return self._last[annotator].get((item, kind, answer))

    def counts(self, annotator: str, ask: Ask) -> tuple[int, int]:
        """How many items somebody has judged, and how many tests of attention."""
        return self._counts[annotator, ask, False], self._counts[annotator, ask, True]

    def has_judged(self, annotator: str, item: str) -> bool:
        return (item, "verdict", "") in self._last[annotator]

    def undo(self, said: Said, nonce: str) -> bool:
        """Take a row back."""
        return self.add(Said(said.item, said.annotator, nonce, said.ask, said.question, said.shown,
                             {"of": said.nonce}, "undo", source=said.source))

    def close(self) -> None:
        self._db.close()


def _said(row: Sequence[Any]) -> Said:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Said(**values | {"shown": tuple(json.loads(values["shown"])), "value": json.loads(values["value"])})


def _statements(script: str) -> Iterator[str]:
    """One after the other: `executescript` would end the transaction."""
    held = ""
    for part in script.split(";"):
        held += part + ";"
        if sqlite3.complete_statement(held):
            if held.strip(" \n;"):
                yield held
            held = ""
