"""What is known of a version: its rows by the files that hold them, its parents, and the operations between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tuneloop.data.versions.chunks import Chunk
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.rows import SHOWN_DIGITS
from tuneloop.errors import UserError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """A version. Exactly one of `chunks` and `reference` says where the rows are, unless they were purged.

    `steps` are plain JSON values: what each fix was, what it did, and to how many rows.
    """

    id: str                                     # 64 hexadecimal digits
    rows: int
    created: str                                # ISO 8601, UTC
    names: tuple[str, ...] = ()
    source: str = ""                            # where the rows were read, as the user named it
    format: str = ""                            # the sentence that says how the rows are read
    parents: tuple[str, ...] = ()               # ids
    files: tuple[FileState, ...] = ()           # that the rows were read from, as they were then
    steps: Sequence[dict[str, Any]] = field(default_factory=tuple)
    chunks: tuple[Chunk, ...] = ()
    reference: FileState | None = None          # a file that holds the rows and is not copied
    purged_into: str = ""                       # the id of the version without a purged row, which took its place

    @property
    def short(self) -> str:
        """The id as it is shown."""
        return self.id[:SHOWN_DIGITS]

    @property
    def shown(self) -> str:
        """How messages name it, and a recipe may: `data:reviews`."""
        return f"data:{self.names[0] if self.names else self.short}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` makes it again."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Manifest:
        """Raises UserError for a manifest of another schema; AttributeError, KeyError or TypeError for what is none."""
        if value.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"The version {str(value.get('id'))[:SHOWN_DIGITS]} has the schema "
                            f"{value.get('schema_version')!r}.",
                            wanted=f"schema version {SCHEMA_VERSION}", fix="use the tuneloop that wrote it")
        given = {key: inner for key, inner in value.items() if key != "schema_version"}
        reference = given.pop("reference")
        return cls(**given | {
            "names": tuple(given["names"]), "parents": tuple(given["parents"]),
            "files": tuple(FileState(**f) for f in given["files"]),
            "steps": tuple(given["steps"]), "chunks": tuple(Chunk(**c) for c in given["chunks"]),
            "reference": FileState(**reference) if reference else None})

    def lines(self) -> list[str]:
        """For the terminal."""
        found = [f"{self.shown}  {self.rows:,} rows, {self.created[:10]}", f"  id       {self.id}"]
        found += [f"  also     data:{name}" for name in self.names[1:]]
        found += [f"  rows     {self.format}"] * bool(self.format)
        found += [f"  from     {self.source}"] * bool(self.source and not self.files)
        found += [f"  from     {file}" for file in self.files]
        found += [f"  parent   data:{parent[:SHOWN_DIGITS]}" for parent in self.parents]
        found += [f"  stays in {self.reference.path}"] if self.reference else []
        found += [f"  purged   a row was removed; what is left is data:{self.purged_into[:SHOWN_DIGITS]}"] * bool(
            self.purged_into)
        for step in self.steps:
            found.append(f"  {step['what']}: {step['rows_before']:,} rows → {step['rows_after']:,}")
            found += [f"    {change['what']} ({change['why']})" for change in step["log"]]
        return found
