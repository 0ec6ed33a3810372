"""The store of versions: a folder with a manifest for each version and the files of rows that they share.

    versions/<id>.json      what is known of a version, written last
    rows/ab/<sha256>.arrow  neighbouring rows, once for all versions that have them
    .lock                   held by whoever writes

A version is there when its manifest is. Whatever is cut off before that leaves files that no manifest names, which the
next purge removes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from tuneloop.data.versions import chunks
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.rows import SHOWN_DIGITS, Identity, VersionRow
from tuneloop.errors import UserError
from tuneloop.record import read_json
from tuneloop.types import Origin

T = TypeVar("T")
FEWEST_DIGITS = 4           # of an id that stands for a version
NAME = r"[A-Za-z][\w.-]*"


def default_root() -> Path:
    """`TUNELOOP_DATA`, or the user's data folder of this platform."""
    if given := os.environ.get("TUNELOOP_DATA"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("tuneloop", appauthor=False) / "data"


@dataclass(frozen=True)
class Provenance:
    """What a version is made from, and how: the part of a manifest that its rows do not say."""

    name: str = ""
    source: str = ""
    format: str = ""
    parents: Sequence[str] = ()
    files: Sequence[FileState] = ()
    steps: Sequence[dict[str, Any]] = ()


class Store:
    """Versions of data, each added once and never changed. Several processes may use it at once."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()
        self.rows_folder = self.root / "rows"

    def add(self, rows: Iterable[VersionRow], made: Provenance = Provenance()) -> Manifest:
        """Keep rows as a version. Rows that are one already stay it: what is new of `made` is put to what is known."""
        identity = Identity()

        def counted() -> Iterator[VersionRow]:
            for row in rows:
                identity.add(row.hash)
                yield row

        with self.writing():
            parts = [chunks.write(self.rows_folder, held) for held in chunks.cut(counted())]
            return self._publish(Manifest(identity.id, len(identity), _now(), chunks=tuple(parts)), made)

    def add_reference(self, file: FileState, hashes: Iterable[bytes], made: Provenance = Provenance()) -> Manifest:
        """A version whose rows stay in their file; `hashes` are those of its rows."""
        identity = Identity(hashes)
        with self.writing():
            return self._publish(Manifest(identity.id, len(identity), _now(), reference=file), made)

    def versions(self) -> list[Manifest]:
        """All versions, the newest first."""
        found = [self._read(path) for path in (self.root / "versions").glob("*.json")]
        return sorted(found, key=lambda manifest: (manifest.created, manifest.id), reverse=True)

    def find(self, which: str) -> Manifest:
        """The version by its name, its id or the beginning of that; `data:` before it is allowed."""
        asked = which.removeprefix("data:")
        everything = self.versions()
        named = [m for m in everything if asked in m.names]
        found = [m for m in named if not m.purged_into] or named[:1] or [
            m for m in everything if len(asked) >= FEWEST_DIGITS and m.id.startswith(asked.lower())]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{len(found)} versions begin with '{asked}'.", wanted="more digits of the id")
        raise UserError(f"There is no version '{asked}'.",
                        wanted=f"a name, or {FEWEST_DIGITS} digits or more of an id",
                        fix="`tuneloop data list` shows the versions")

    def rows(self, manifest: Manifest) -> Iterator[VersionRow]:
        """The rows of a version, in their order. Raises UserError where they are not what they were."""
        if manifest.purged_into:
            raise UserError(f"A row of data:{manifest.short} was purged, so that version is no more.",
                            fix=f"take what is left: data:{manifest.purged_into[:SHOWN_DIGITS]}")
        if manifest.reference:
            yield from _referenced(manifest, manifest.reference)
        for chunk in manifest.chunks:
            yield from chunks.read(self.rows_folder, chunk)

    def name(self, manifest: Manifest, name: str) -> Manifest:
        """The version under one more name."""
        with self.writing():
            return self._publish(manifest, Provenance(name=name))

    def supersede(self, instead: Mapping[str, str]) -> None:
        """Let other versions take the place of some, by id; rows that no version holds then are removed from disk.

        What is left of a version is its manifest, without excerpts of rows in its log.
        """
        with self.writing():
            for old, new in instead.items():
                gone, left = self._read(self._path(old)), self._read(self._path(new))
                self.write(replace(gone, chunks=(), reference=None, purged_into=new))
                self.write(replace(left, names=_together(left.names, gone.names)))
            for version in self.versions():
                if instead.keys() & {version.id, *version.parents}:
                    self.write(replace(version, parents=tuple(instead.get(p, p) for p in version.parents),
                                       steps=without_examples(version.steps)))
            held = {chunk.path(self.rows_folder) for version in self.versions() for chunk in version.chunks}
            for path in self.rows_folder.rglob(f"*{chunks.SUFFIX}"):
                if path not in held:
                    path.unlink()

    def ancestors(self, manifest: Manifest) -> list[Manifest]:
        """The versions that this one was made from, the nearest first."""
        known = {version.id: version for version in self.versions()}
        found: dict[str, Manifest] = {}
        waiting = list(manifest.parents)
        while waiting:
            one = waiting.pop(0)
            if one in known and one not in found:
                found[one] = known[one]
                waiting += known[one].parents
        return list(found.values())

    def verify(self) -> list[str]:
        """Everything that is wrong with what is kept, a sentence each; all files are read."""
        flaw = cache(partial(chunks.flaw, self.rows_folder))
        problems = []
        for manifest in self.versions():
            flaws = list(filter(None, map(flaw, manifest.chunks)))
            hashes = (h for chunk in manifest.chunks for h in chunks.read_hashes(self.rows_folder, chunk))
            if manifest.chunks and not flaws and Identity(hashes).id != manifest.id:
                flaws = ["its rows are not those that its id names"]
            if manifest.reference and (change := manifest.reference.change()):
                flaws = [change]
            problems += [f"{manifest.shown}: {flaw}" for flaw in flaws]
        return problems

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for this process; others wait."""
        from filelock import FileLock

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):
                for left in self.root.rglob(".*.partial"):      # by a process that was killed: we hold the lock
                    left.unlink(missing_ok=True)
                yield
        except OSError as error:
            raise UserError(f"The store of data versions {self.root} cannot be written: {error.strerror or error}.",
                            fix="free disk space, or set TUNELOOP_DATA to another folder") from error

    def write(self, manifest: Manifest) -> None:
        """Replace the manifest of a version; only while `writing`."""
        text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False) + "\n"
        chunks.write_bytes(self._path(manifest.id), text.encode("utf-8", "replace"))

    def _publish(self, fresh: Manifest, made: Provenance) -> Manifest:
        path = self._path(fresh.id)
        if path.exists():
            known = self._read(path)
            if known.purged_into or (known.reference and fresh.chunks):
                known = replace(known, chunks=fresh.chunks, reference=fresh.reference, purged_into="")
        else:
            known = replace(fresh, source=made.source, format=made.format, parents=tuple(made.parents),
                            steps=tuple(made.steps))
        taken = [m for m in self.versions() if made.name in m.names and m.id != fresh.id and not m.purged_into]
        if taken:
            raise UserError(f"data:{made.name} is the version {taken[0].short} already.", fix="choose another name")
        if made.name and not re.fullmatch(NAME, made.name):
            raise UserError(f"'{made.name}' cannot be the name of a version.",
                            wanted="a letter, then letters, digits, dots, dashes and underscores")
        whole = replace(known, names=_together(known.names, [made.name] if made.name else []),
                        files=_together(known.files, made.files))
        self.write(whole)
        return whole

    def _path(self, version: str) -> Path:
        return self.root / "versions" / f"{version}.json"

    @staticmethod
    def _read(path: Path) -> Manifest:
        try:
            return Manifest.from_json(read_json(path))
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{path} is no manifest of a version.", fix="remove it, and add those rows again") from None


def without_examples(steps: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Logs without excerpts of rows."""
    return tuple(step | {"log": [change | {"examples": []} for change in step["log"]]} for step in steps)


def _referenced(manifest: Manifest, file: FileState) -> Iterator[VersionRow]:
    from tuneloop.data.read import open_source

    if change := file.change():
        raise UserError(f"{manifest.shown} stays in its file, and {change}.",
                        fix="put the old file back, or add the new one as a version of its own")
    for row in open_source(file.path, Path(), file.shown).rows():
        yield VersionRow(row.values, Origin(row.file or file.shown, row.line, row.digest))


def _together(some: Sequence[T], others: Sequence[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys([*some, *others]))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
