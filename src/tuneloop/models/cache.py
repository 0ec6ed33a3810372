"""The cache folder: converted bases and demo data, each built once and published whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneloop.errors import UserError


def root() -> Path:
    """`TUNELOOP_CACHE`, or the user's cache folder of this platform."""
    if given := os.environ.get("TUNELOOP_CACHE"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("tuneloop", appauthor=False)


def base_folder(name: str) -> Path:
    """Where the base called `name` is kept once it is converted."""
    return root() / "bases" / name


@contextmanager
def database_errors(what: str, path: Path) -> Iterator[None]:
    """Within it, trouble with the SQLite file `path`, a cache of `what`, is a UserError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UserError(f"The cache of {what} {path} cannot be used: {error}.",
                        fix="free disk space, delete the file, or set TUNELOOP_CACHE to another folder") from error


def publish(target: Path, build: Callable[[Path], None]) -> Path:
    """Return the folder `target`; if there is none, let `build` fill one that appears under this name only when whole.

    Of several processes that want the same folder one builds, and the others wait for it.
    """
    if target.is_dir():
        return target
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _build(target, build)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The cache folder {target} cannot be written: {error}.",
                        fix="free disk space, or set TUNELOOP_CACHE to another folder") from error
    return target


def _build(target: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{target.name}.partial-"
    for left in target.parent.glob(f"{prefix}*"):       # by a process that was killed: we hold the lock, it is nobody's
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))      # same disk: rename works
    try:
        build(partial)
        partial.chmod(0o755)        # mkdtemp makes it private; the cache may be shared
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
