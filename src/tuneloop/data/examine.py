"""Everything that can be said of rows before a model is trained on them: every check, over every file, in one pass.

Rows stream through in chunks, so that what does not fit into memory can be looked at too. Files are not changed.
"""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.catalog import Catalog
from tuneloop.data.checks._tally import rows_that
from tuneloop.data.checks.base import Check, Chunk
from tuneloop.data.files import folder_of
from tuneloop.data.findings import SEVERITIES, Finding, Places, Verdict, verdict
from tuneloop.data.fix import apply_all
from tuneloop.data.fixes.base import Again, Fix, Item, Tools, count_of
from tuneloop.data.flaws import RowError
from tuneloop.data.formats.kinds import KINDS
from tuneloop.data.read import Row, Table, from_anywhere, open_source, without_secrets
from tuneloop.data.recognise import Mapped, choose
from tuneloop.data.report import FileReport
from tuneloop.data.sources.base import Source
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin, Sample

CHECKS = Catalog("check", "tuneloop.data.checks", "Check")
READING = "reading"         # the check of findings that are errors
HEAD_ROWS = 5_000           # decide how rows are read, and are looked at first
CHUNK_ROWS = 2_000


@dataclass(frozen=True)
class Input:
    """A file, or another source of rows, and what its rows are for."""

    part: str               # train | validation | test | evaluation
    name: str
    shown: str = ""         # how people know it, where that is not `name`


@dataclass(frozen=True)
class Reading:
    """How rows become samples; the templates as in `DataSpec`."""

    root: Path = Path()
    kind: type[Any] | None = None       # of sample; None: whatever they are
    prompt: str | None = None
    answer: str | None = None
    system: str | None = None
    drop_empty: bool = False
    fixes: Sequence[Fix] = ()           # of the recipe: what is looked at are the rows that a run gets
    tools: Callable[[Again], Tools] = Tools     # for fixes


@dataclass(frozen=True)
class Examined:
    """What was found. `looked_for` says of every check what it looks for, found or not."""

    files: list[FileReport]
    findings: list[Finding]             # the worst first
    facts: dict[str, Any]
    looked_for: dict[str, str]
    seconds: float = field(default=0.0, compare=False)

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def but(self, finding: Finding) -> Examined:
        """The same with one more finding, before the others."""
        return replace(self, findings=[finding, *self.findings])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "rows": self.rows,
                "files": [vars(file) for file in self.files],
                "findings": [finding.to_json() for finding in self.findings],
                "facts": self.facts, "looked_for": self.looked_for, "seconds": round(self.seconds, 1)}


FirstLook = Callable[[int, list[Finding]], None]


def examine(inputs: Sequence[Input], reading: Reading, *, names: Sequence[str] | None = None,
            more: Callable[[], Mapping[str, Check]] = dict, first_look: FirstLook | None = None) -> Examined:
    """Look at the rows of all inputs with the checks called `names` (all there are), and with those that `more` makes.

    Sets to compare with come before the rows that are compared with them.
    `first_look` is called with the first rows' number and findings as soon as they are known, where there are more.
    Sources that cannot be read and rows that cannot be understood are findings like others.
    """
    began = time.perf_counter()
    names = CHECKS.names if names is None else names

    def made() -> dict[str, Check]:
        return {**more(), **{name: CHECKS.get(name)() for name in names}}

    checks, troubles = made(), _Troubles()
    files: list[FileReport] = []
    typed: dict[str, str] = {}          # file -> the source that it belongs to, as one types it
    first = next((given for given in inputs if given.part != "evaluation"), None)
    for given in inputs:
        read = _Read(given, reading, troubles)
        for chunk in read.chunks():
            if given.part != "evaluation":
                typed |= dict.fromkeys((origin.file for origin in chunk.origins), _typed(given.name, reading.root))
            if first_look is not None and given == first and read.is_head and read.has_more:
                early = {name: check for name, check in made().items() if not check.needs_all}
                first_look(read.rows, _found(early, [chunk], typed))
            for check in checks.values():
                check.see(chunk)
        files.append(read.report())
    found = [*troubles.findings(), *_found(checks, (), typed)]
    facts: dict[str, Any] = {}
    for check in checks.values():
        facts |= check.facts()
    return Examined(files, sorted(found, key=_rank), facts, {name: check.about for name, check in checks.items()},
                    time.perf_counter() - began)


def samples_of(name: str, reading: Reading, unread: Counter[str] | None = None) -> Iterator[Sample]:
    """Every sample of a source, in order.

    Rows that cannot be read are counted in `unread` by what is wrong with them. Without it they are a UserError after
    the last row.
    """
    troubles = _Troubles()
    for chunk in _Read(Input("train", name), reading, troubles).chunks():
        yield from chunk.samples
    if unread is None:
        raise_all([UserError(f"{finding}.", fix=finding.fix) for finding in troubles.findings()])
    else:
        raise_all([UserError(f"{finding}.", fix=finding.fix) for finding in troubles.unreadable])
        unread.update({what: len(places) for (what, _, _), places in troubles.flaws.items()})


def _found(checks: Mapping[str, Check], chunks: Iterable[Chunk], typed: Mapping[str, str]) -> list[Finding]:
    for chunk in chunks:
        for check in checks.values():
            check.see(chunk)
    return sorted((_with_source(finding, typed) for check in checks.values() for finding in check.findings()),
                  key=_rank)


def _with_source(finding: Finding, typed: Mapping[str, str]) -> Finding:
    """A fix that can be typed: with the source of its rows for the word FILE."""
    source = next((typed[file] for file in (*finding.places.files, *typed) if file in typed), "FILE")
    return replace(finding, fix=finding.fix.replace(" FILE ", f" {source} "))


def _typed(name: str, root: Path) -> str:
    """A source as a command line here names it: a recipe's paths count from the recipe's own folder."""
    here = Path.cwd()
    if root.resolve() != here:
        name = from_anywhere(name, root).removeprefix(f"{here}{os.sep}")
    return shlex.quote(without_secrets(name))


def _rank(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.severity), -len(finding.places)


def refused(error: UserError) -> Finding:
    """An error as a finding: nothing can be trained from what it speaks of."""
    wanted = f"Wanted: {error.wanted}. " if error.wanted else ""
    found = error.found.rstrip(".") or error.text
    return Finding(READING, "blocks", found, (wanted + error.fix).rstrip())


class _Troubles:
    """Rows that are no samples and sources that do not open, as findings."""

    def __init__(self) -> None:
        self.flaws: dict[tuple[str, str, bool], Places] = {}
        self.unlearnt: dict[type[Any], Places] = {}
        self.unreadable: list[Finding] = []

    def row(self, origin: Origin, error: RowError, dropped: bool) -> None:
        self.flaws.setdefault((error.what, error.rule, dropped), Places()).add(origin)

    def source(self, error: UserError) -> None:
        self.unreadable.append(refused(error))

    def kinds(self, chunk: Chunk) -> None:
        """Rows may be whatever they are: tell of those that no objective learns from."""
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            if not KINDS[type(sample)].objective:
                self.unlearnt.setdefault(type(sample), Places()).add(origin)

    def findings(self) -> list[Finding]:
        unlearnt = [Finding("rows", "note", rows_that(places, f"hold {KINDS[kind].what}, from which no objective "
                                                              "learns"), "", places, kind="unlearnt")
                    for kind, places in self.unlearnt.items()]
        return [*self.unreadable, *(self._of_rows(*key, places) for key, places in self.flaws.items()), *unlearnt]

    @staticmethod
    def _of_rows(what: str, rule: str, dropped: bool, places: Places) -> Finding:
        count = count_of(places)
        if dropped:
            return Finding("rows", "note", f"{count} left out: {what}", "", places)
        return Finding("rows", "blocks", f"{count} cannot be read: {what}",
                       f"{rule} mend line {next(iter(places)).line}", places)


class _Read:
    """One input as chunks, and afterwards its part of the report."""

    def __init__(self, given: Input, reading: Reading, troubles: _Troubles) -> None:
        self.given, self.reading, self.troubles = given, reading, troubles
        self.shown = given.shown or None
        self.source: Source | None = None
        self.mapped: Mapped | None = None
        self.rows, self.has_more, self.is_head = 0, False, True
        self.plain = given.part == "evaluation"     # a set to compare with: its rows are whatever they are
        self.mended: list[str] = []

    def chunks(self) -> Iterator[Chunk]:
        """Chunks of samples; the first holds the whole head."""
        try:
            self.source = open_source(self.given.name, self.reading.root, self.shown)
            chunks = self._chunks(self.source.rows())
            yield from self._mended(chunks) if self.reading.fixes and not self.plain else chunks
        except UserError as error:
            self.troubles.source(error)

    def _chunks(self, rows: Iterator[Row]) -> Iterator[Chunk]:
        head = list(islice(rows, HEAD_ROWS))
        following = list(islice(rows, CHUNK_ROWS))
        self.has_more = bool(following)
        self.mapped = self._choose(head)
        yield self._chunk(head)
        self.is_head = False
        while following:
            yield self._chunk(following)
            following = list(islice(rows, CHUNK_ROWS))

    def _mended(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The rows after the fixes, which need all of them at once."""
        items = [Item(*row) for chunk in chunks
                 for row in zip(chunk.values, chunk.origins, chunk.samples, strict=True)]
        assert self.mapped is not None
        items, steps = apply_all(items, self.reading.fixes, self.reading.tools(self.mapped.make))
        self.mended = [f"data.fix {step.lines()[0]}" for step in steps]
        for start in range(0, len(items), CHUNK_ROWS):
            part = items[start:start + CHUNK_ROWS]
            yield Chunk(self.given.part, [item.origin for item in part], [item.sample for item in part],
                        [item.values for item in part])

    def _choose(self, head: list[Row]) -> Mapped:
        assert self.source is not None
        reading, plain = self.reading, self.plain
        table = Table.of(self.source.shown, self.source.kind, head, self.source.notes)
        return choose(table, None if plain else reading.kind, prompt=None if plain else reading.prompt,
                      answer=None if plain else reading.answer, system=None if plain else reading.system,
                      folder=folder_of(self.given.name, reading.root))

    def _chunk(self, rows: list[Row]) -> Chunk:
        assert self.source is not None
        assert self.mapped is not None
        self.rows += len(rows)
        made = self.mapped.make_all(rows, self.reading.drop_empty)
        for troubled in (made.dropped, made.flaws):
            for origin, error in troubled:
                self.troubles.row(origin, error, dropped=troubled is made.dropped)
        samples = [sample for _, sample in made.rows]
        chunk = Chunk(self.given.part, [sample.origin for sample in samples], samples,
                      [row.values for row, _ in made.rows])
        if self.reading.kind is None and not self.plain:
            self.troubles.kinds(chunk)
        return chunk

    def report(self) -> FileReport:
        source, mapped = self.source, self.mapped
        if source is None:
            return FileReport(self.given.part, self.given.shown or self.given.name, "unreadable", 0, "", [])
        return FileReport(self.given.part, source.shown, source.kind, self.rows, mapped.sentence if mapped else "",
                          [*source.notes, *self.mended])
