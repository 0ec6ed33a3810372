"""The run folder: what a run leaves behind, written so that a cut-off run loses nothing that was finished."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import TrainingFailed, UserError

SCHEMA_VERSION = 1


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` with `text`: readers see the old or the new file, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> TrainingFailed:
    return TrainingFailed(f"{path} could not be written: {error.strerror}.",
                          fix="free disk space, then continue with `tuneloop run --resume RUN`")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


@dataclass(frozen=True)
class Value:
    """A resolved setting and where it came from."""

    value: Any
    origin: str         # given | planned | default | inherited
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "origin": self.origin} | ({"why": self.why} if self.why else {})


class RunFolder:
    """`runs/<date>-<name>-<id>/`. Every stage writes its result here and can be resumed from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str, parent: Path) -> RunFolder:
        """A new folder under `parent`; never one that exists."""
        stamp = time.strftime("%Y-%m-%d")
        path = parent / f"{stamp}-{name}-{secrets.token_hex(3)}"
        return cls.create_at(path)

    @classmethod
    def create_at(cls, path: Path) -> RunFolder:
        """A new folder at exactly `path`, or a UserError if something is there."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not (path / "recipe.yaml").is_file():
                raise UserError(f"{path} exists already, and is no run.", fix="choose another --folder") from None
            raise UserError(f"The run folder {path} exists already; a run never overwrites another.",
                            fix=f"continue it with `tuneloop run --resume {path}`, or choose another --folder"
                            ) from None
        except OSError as error:
            raise UserError(f"The run folder {path} cannot be created: {error.strerror}.",
                            fix="choose another place with --folder") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run."""
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path} is not a run folder: it has no recipe.yaml.",
                            fix="`tuneloop runs` lists the runs")
        return cls(path)

    def discard_if_nothing_was_done(self) -> None:
        """Remove a folder that holds its recipe alone: the input was refused, and the next try needs the name."""
        import shutil

        if {p.name for p in self.path.iterdir()} <= {"recipe.yaml", ".lock"}:
            shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a second run in it is refused."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise UserError(f"Another tuneloop is running in {self.path}.",
                            fix="wait for it, or stop it; two runs never share a folder") from None

    def file(self, *parts: str) -> Path:
        """A path inside the folder."""
        return self.path.joinpath(*parts)

    def has(self, *parts: str) -> bool:
        return self.file(*parts).exists()

    def read(self, *parts: str) -> Any:
        return read_json(self.file(*parts))

    def write(self, value: Any, *parts: str) -> None:
        write_json(self.file(*parts), value)

    def append(self, value: dict[str, Any], *parts: str) -> None:
        """One more line of JSONL."""
        try:
            with open(self.file(*parts), "a", encoding="utf-8") as file:
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
        except OSError as error:
            raise _not_written(self.file(*parts), error) from error

    def write_lines(self, values: list[dict[str, Any]], *parts: str) -> None:
        """A whole JSONL file, atomically."""
        write_atomic(self.file(*parts), "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values))

    def lines(self, *parts: str) -> list[dict[str, Any]]:
        """All lines of a JSONL file; a last line that was cut off is left out."""
        path = self.file(*parts)
        found = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").split("\n"):     # texts may hold other line breaks
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found

    def update_record(self, **entries: Any) -> dict[str, Any]:
        """Merge `entries` into record.json and return the whole record."""
        record: dict[str, Any] = self.read("record.json") if self.has("record.json") else {
            "schema_version": SCHEMA_VERSION, "run": self.path.name}
        record |= entries
        self.write(record, "record.json")
        return record


def environment() -> dict[str, Any]:
    """What is needed to run this again elsewhere: code and package versions, and the hardware."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import psutil

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ["tuneloop", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "safetensors"]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in packages},
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def find_runs(parent: Path) -> list[RunFolder]:
    """Every run folder under `parent`, newest first."""
    folders = [p.parent for p in parent.glob("*/recipe.yaml")] if parent.is_dir() else []
    return [RunFolder(p) for p in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True)]
