"""What a data file was when it was read, and whether it has changed since."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError


@dataclass(frozen=True)
class FileState:
    """A file as it was: `shown` is how the user named it, `path` is absolute."""

    shown: str
    path: str
    bytes: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, shown: str) -> FileState:
        """Of a file as it is now; raises UserError where it cannot be read."""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            stat = path.stat()
        except OSError as error:
            raise UserError(f"{shown} cannot be read: {error.strerror}.") from error
        return cls(shown, str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest)

    def __str__(self) -> str:
        return f"{self.shown} ({self.bytes:,} bytes, sha256 {self.sha256[:16]})"

    def change(self) -> str:
        """What has happened to the file since, in words; nothing where it holds the same bytes."""
        path = Path(self.path)
        try:
            stat = path.stat()
            if (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.modified_ns):
                return ""
            if stat.st_size == self.bytes and FileState.of(path, self.shown).sha256 == self.sha256:
                return ""
        except (OSError, UserError):
            return f"{self.shown} is not there any more ({self.path})"
        size = "as many" if stat.st_size == self.bytes else f"{stat.st_size:,}"
        return f"{self.shown} has changed: it had {self.bytes:,} bytes, and has {size}"


def states_of(record: dict[str, Any]) -> list[FileState]:
    """The data files of a run as they were when it read them, by its record."""
    return [FileState(**state) for state in record.get("data", {}).get("files", [])]


def changed_since(record: dict[str, Any]) -> list[str]:
    """What has happened to the data files of a run since it read them: a sentence for each that changed."""
    return [change for state in states_of(record) if (change := state.change())]
