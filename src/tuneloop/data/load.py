"""A source of rows into memory: read, recognised as samples of one kind, and mended as the recipe asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneloop.data.augment.apart import apart
from tuneloop.data.files import folder_of, located
from tuneloop.data.fix import Step, apply_all
from tuneloop.data.fixes.base import Again, Fix, Item, Tools
from tuneloop.data.flaws import flaw_errors
from tuneloop.data.formats.ranked import pairs_of
from tuneloop.data.read import Table, read_table
from tuneloop.data.recognise import Made, choose
from tuneloop.data.sources.version import KeptRow
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.rows import Identity, row_hash
from tuneloop.errors import raise_all
from tuneloop.types import Origin, Preference, Ranked


@dataclass(frozen=True)
class Wanted:
    """What the rows of a source are to become; the rest as in `DataSpec`."""

    kind: type[Any]
    prompt: str | None = None
    answer: str | None = None
    system: str | None = None
    drop_empty: bool = False
    tools: Callable[[Again], Tools] = Tools     # for fixes


@dataclass(frozen=True)
class Loaded:
    """The rows of one source. A ranked list has become a pair of its best answer with each other."""

    table: Table
    sentence: str               # how its rows were read
    items: list[Item]
    made_up: list[Item]         # rows that somebody made from others of these: they may only train
    dropped: list[Origin]       # rows without an answer
    steps: list[Step]           # what was mended
    tools: Tools                # for fixes to come
    read: list[Origin]          # every row, whatever became of it
    files: list[FileState]      # that they were read from; none for what is no file of this machine

    @property
    def samples(self) -> list[Any]:
        """All of the kind that was wanted."""
        return [item.sample for item in self.items]

    @property
    def identity(self) -> str:
        """The id of the rows as they were read: the same on every machine, in any order."""
        return Identity(row_hash(row.values) for row in self.table.rows).id


def load(name: str, root: Path, shown: str, wanted: Wanted, fixes: Sequence[Fix] = ()) -> Loaded:
    """Everything that a source holds. Raises UserError with every problem of it at once."""
    table = read_table(name, root, shown)
    path, _ = located(name, root)
    return replace(made_of(table, wanted, fixes, folder_of(name, root)),
                   files=[FileState.of(path, table.file)] if path.is_file() else [])


def made_of(table: Table, wanted: Wanted, fixes: Sequence[Fix] = (), folder: Path | None = None) -> Loaded:
    """The same of rows in memory."""
    mapped = choose(table, wanted.kind, prompt=wanted.prompt, answer=wanted.answer, system=wanted.system,
                    folder=folder)
    made = mapped.make_all(table.rows, wanted.drop_empty)
    raise_all(flaw_errors(made.flaws))
    items = items_of(made)
    sentence, tools = mapped.sentence, wanted.tools(mapped.make)
    items, steps = apply_all(items, fixes, tools)
    if wanted.kind is Preference and any(isinstance(item.sample, Ranked) for item in items):
        items, sentence = _paired(items), f"{sentence}; the best answer is paired with each other"
    items, made_up = apart(items)
    read = [Origin(row.file or table.file, row.line, row.digest) for row in table.rows]
    return Loaded(table, sentence, items, made_up, [origin for origin, _ in made.dropped], steps, tools, read, [])


def items_of(made: Made) -> list[Item]:
    """Rows as fixes take them."""
    return [Item(row.values, sample.origin, sample, row.made_by if isinstance(row, KeptRow) else "")
            for row, sample in made.rows]


def _paired(items: Sequence[Item]) -> list[Item]:
    return [replace(item, sample=pair) for item in items
            for pair in (pairs_of(item.sample) if isinstance(item.sample, Ranked) else [item.sample])]
