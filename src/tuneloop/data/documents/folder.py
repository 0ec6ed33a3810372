"""Which files of a folder are documents, and how a document of each kind is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneloop.data.documents import code, html, pdf, prose
from tuneloop.data.documents.passages import Document
from tuneloop.data.files import suffix_of

Reader = Callable[[Path, str], Document]

READERS: dict[str, tuple[str, Reader]] = {
    **dict.fromkeys(pdf.SUFFIXES, ("PDF", pdf.read)),
    **dict.fromkeys(html.SUFFIXES, ("HTML", html.read)),
    **dict.fromkeys(prose.MARKDOWN, ("Markdown", prose.read)),
    **dict.fromkeys(prose.RST, ("reStructuredText", prose.read)),
    **dict.fromkeys(prose.PLAIN, ("plain text", prose.read)),
    **dict.fromkeys(code.SUFFIXES, ("source code", code.read)),
}
"""By suffix: what it is called, and its reader."""
SKIPPED = frozenset((
    "node_modules", "bower_components", "vendor", "__pycache__", "site-packages", "venv", "env", "build", "dist",
    "target", "out", "bin", "obj", "coverage", "htmlcov"))
"""Folders of what was built or comes from elsewhere; those whose names begin with a dot are left out too."""
HUGE_BYTES = 2**20      # of a text in a folder: nobody writes longer ones by hand
SHOWN = 5


def kind_of(path: Path) -> tuple[str, Reader] | None:
    """What a document is called and its reader, by its name; None for what is no document."""
    return READERS.get(".sh" if path.name in code.NAMES else suffix_of(path))


def documents(folder: Path, notes: list[str]) -> Iterator[Path]:
    """The documents in a folder and those below it, in the order of their names; `notes` gets what is left out."""
    others: Counter[str] = Counter()
    left_out: dict[str, list[str]] = {}

    def leave_out(path: str | Path, why: str) -> None:
        left_out.setdefault(why, []).append(Path(path).relative_to(folder).as_posix())

    for place, folders, files in os.walk(folder, onerror=lambda e: leave_out(e.filename, "folders that are closed")):
        for name in sorted(folders):
            if name in SKIPPED or name.startswith("."):
                folders.remove(name)
                leave_out(Path(place, name), "folders of what was built or comes from elsewhere")
        folders.sort()
        for path in sorted(Path(place, name) for name in files):
            if kind_of(path) is None:
                others[path.suffix.lower() or path.name] += 1
            elif why := _unfit(path):
                leave_out(path, why)
            else:
                yield path
    notes += [f"left out, {why}: {_some(names)}" for why, names in left_out.items()]
    if others:
        notes.append("not read, for they are no documents: "
                     + _some([f"{count} {suffix}" for suffix, count in others.most_common()]))


def _unfit(path: Path) -> str:
    """Why a file is left out, or nothing."""
    if path.is_symlink():
        return "links"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8192)
    except OSError:
        return ""       # its reader will say what is wrong
    if not size:
        return "empty files"
    if suffix_of(path) in pdf.SUFFIXES:
        return ""
    if size > HUGE_BYTES:
        return f"texts of more than {HUGE_BYTES // 2**20} MB"
    return "binary files" if _is_binary(start) else ""


def _is_binary(start: bytes) -> bool:
    """A zero byte; texts in UTF-16 have them too, and begin with a mark."""
    return b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
