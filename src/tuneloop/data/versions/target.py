"""The row that somebody means, and what fixes have made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import islice
from pathlib import Path

from tuneloop.data.versions import chunks
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.rows import SHOWN_DIGITS, VersionRow
from tuneloop.data.versions.store import Store
from tuneloop.errors import UserError
from tuneloop.types import Origin

Place = tuple[str, int]
WANTED = "FILE:LINE, VERSION:NUMBER, or 8 digits or more of a row's hash"


@dataclass(frozen=True)
class Family:
    """A row in every form it has taken, and the versions that hold one of them, parents first."""

    hashes: frozenset[bytes]
    places: frozenset[Place]    # in the very first files
    holders: list[Manifest]
    unknown: list[str]          # why a version could not be looked at

    @cached_property
    def digests(self) -> frozenset[str]:
        """The hashes as `Origin.row` has them."""
        return frozenset(one.hex()[:SHOWN_DIGITS] for one in self.hashes)

    def is_in(self, origin_row: str) -> bool:
        """Whether an `Origin.row` is that of the row, or of several put together with it among them."""
        return any(origin_row[at:at + SHOWN_DIGITS] in self.digests for at in range(0, len(origin_row), SHOWN_DIGITS))


def find_row(asked: str, store: Store, root: Path) -> VersionRow:
    """The row that is named by a file and line, by a version and its number from 1, or by its hash.

    Raises UserError where there is none, or more than one.
    """
    where, _, number = asked.rpartition(":")
    if where and number.isdecimal():
        if not where.startswith("data:") and (root / where).expanduser().is_file():
            return _in_file(where, int(number), root)
        try:
            version = store.find(where)
        except UserError:
            if where.startswith("data:"):
                raise
            return _in_store(asked, store, lambda row: row.origin == Origin(where, int(number)))
        found = next(islice(store.rows(version), int(number) - 1, None), None) if int(number) else None
        if found is None:
            raise UserError(f"{where} has no row {number}.", wanted=f"a number from 1 to {version.rows}")
        return found
    if re.fullmatch("[0-9a-f]{8,64}", asked.lower()):
        return _in_store(asked, store, lambda row: row.hash.hex().startswith(asked.lower()))
    raise UserError(f"'{asked}' names no row.", wanted=WANTED)


def _in_file(name: str, line: int, root: Path) -> VersionRow:
    from tuneloop.data.read import open_source

    for row in open_source(name, root).rows():
        if row.line == line:
            return VersionRow(row.values, Origin(row.file or name, line))
    raise UserError(f"No row of {name} begins on line {line}.", fix="take the line on which the row begins")


def _in_store(asked: str, store: Store, meant: Callable[[VersionRow], bool]) -> VersionRow:
    found = {row.hash: row for version in store.versions() if version.chunks
             for row in store.rows(version) if meant(row)}
    if not found:
        raise UserError(f"No version has the row {asked}, and there is no such file.", wanted=WANTED)
    if len(found) > 1:
        raise UserError(f"{asked} means {len(found)} different rows.", wanted="the hash of one: " + ", ".join(
            digest.hex()[:SHOWN_DIGITS] for digest in found))
    return next(iter(found.values()))


def family(store: Store, row: VersionRow) -> Family:
    """Every form that a row has taken in the store.

    A row belongs to it that holds the same, or that came from the same place as one that does in a parent.
    """
    known = {version.id: version for version in store.versions()}
    graph = {version.id: [parent for parent in version.parents if parent in known] for version in known.values()}
    order = [known[one] for one in TopologicalSorter(graph).static_order()]
    hashes, places = {row.hash}, dict[str, set[Place]]()        # by version
    unknown: list[str] = []
    before = 0
    while len(hashes) > before:
        before, unknown = len(hashes), []
        for version in order:
            inherited = set[Place]().union(*(places.get(parent, set()) for parent in version.parents))
            try:
                found = [(h, place) for h, place in _places(store, version) if h in hashes or place in inherited]
            except UserError as error:
                unknown.append(error.found)
                found = []
            hashes.update(h for h, _ in found)
            places[version.id] = {place for _, place in found}
    everywhere = {(row.origin.file, row.origin.line)}.union(*places.values())
    return Family(frozenset(hashes), frozenset(everywhere), [v for v in order if places[v.id]], unknown)


def _places(store: Store, version: Manifest) -> Iterator[tuple[bytes, Place]]:
    if version.reference:
        yield from ((row.hash, (row.origin.file, row.origin.line)) for row in store.rows(version))
    for chunk in version.chunks:
        yield from chunks.read_places(store.rows_folder, chunk)
