"""Runs that have read a row: what they keep of it, and taking that out of their folders.

A run's notes of its rows stay, places and hashes without a text: they are what names its adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.data.versions.seen import UNUSED, read_seen
from tuneloop.data.versions.target import Family
from tuneloop.data.versions.trace import Trace
from tuneloop.record import RunFolder, find_runs, read_json, write_json

LOGS = (("evaluation", "predictions.jsonl"), ("samples.jsonl",))        # a line for each row, which names its origin
WEIGHTS = ("adapter", "model", "checkpoints")
PAGE = "report.html"


@dataclass(frozen=True)
class Reader:
    """A run that has read the row: `parts` it was in; empty where the run did not note that."""

    folder: RunFolder
    parts: frozenset[str]
    found: Family

    @property
    def may_have_learnt(self) -> bool:
        return not self.parts or "train" in self.parts


def readers(parent: Path, found: Family) -> list[Reader]:
    """Every run below `parent` that has read the row."""
    runs = []
    for folder in find_runs(parent):
        seen = read_seen(folder.path)
        if seen is None:
            if _shares_files(folder, found) or _tested(folder, found):
                runs.append(Reader(folder, frozenset(), found))
        elif parts := frozenset(part for part, origin in seen if found.is_in(origin.row)):
            runs.append(Reader(folder, parts, found))
    return runs


def _shares_files(folder: RunFolder, found: Family) -> bool:
    """Whether the run read a version, or a file of the same content as one, that holds the row."""
    data = folder.read("record.json").get("data", {}) if folder.has("record.json") else {}
    known = {file.sha256 for version in found.holders for file in version.files} | {v.id for v in found.holders}
    return bool(known & {*data.get("versions", {}).values(), *(file["sha256"] for file in data.get("files", []))})


def _tested(folder: RunFolder, found: Family) -> bool:
    return any(_is_of(line, found) for line in folder.lines(*LOGS[0]))


def traces(run: Reader) -> list[Trace]:
    """What the run has of the row."""
    folder, parts = run.folder, ", ".join(sorted(run.parts - {UNUSED}))
    read = f"read it for {parts}" if parts else "read it and left it out" if run.parts else \
        "read rows it is among, and did not note what for"
    found = [Trace("run", str(folder.path), read, removable=False)]
    if run.may_have_learnt:
        was = "was" if run.parts else "may have been"
        found += [Trace("adapter", str(folder.file(name)), f"{was} trained on it; nothing takes a row out of weights: "
                        "train again without it, then delete this", removable=False)
                  for name in WEIGHTS if folder.has(name)]
    for name in LOGS:
        lines = folder.lines(*name)
        if mine := sum(_is_of(line, run.found) for line in lines):
            found.append(Trace("log", str(folder.file(*name)), f"{mine} lines with its texts, and answers to them",
                               removable=True))
        if any("origin" not in line for line in lines) and (not run.parts or "validation" in run.parts):
            found.append(Trace("log", str(folder.file(*name)), "does not say whose rows it shows; look yourself",
                               removable=False))
    found += [Trace("log", str(path), "excerpts of rows", removable=True) for path in [*_reports(run), *_pages(run)]]
    return found


def remove(run: Reader, rewrite: Callable[[Path], object]) -> None:
    """Take the row's texts out of the run's files. Raises UserError while the run is going on."""
    folder = run.folder
    with folder.locked():
        reports = _reports(run)
        for path in _pages(run):
            path.unlink()
        for path in reports:
            write_json(path, _without_examples(read_json(path), run.found))
        numbers = [line["row"] for line in folder.lines(*LOGS[0]) if _is_of(line, run.found)]
        for path in folder.file("evaluation").glob("*.json") if numbers else ():
            _blank_answers(path, numbers)
        changed = bool(reports)
        for name in LOGS:
            lines = folder.lines(*name)
            left = [line for line in lines if not _is_of(line, run.found)]
            if len(left) < len(lines):
                folder.write_lines(left, *name)
                changed = True
        if changed and folder.has(PAGE):
            rewrite(folder.path)


def _is_of(line: dict[str, Any], found: Family) -> bool:
    return found.is_in(line.get("origin", {}).get("row", ""))


def _blank_answers(path: Path, numbers: list[int]) -> None:
    """What models answered to the row; the answers of other rows keep their numbers."""
    answers = read_json(path)
    if isinstance(answers, dict) and isinstance(answers.get("texts"), list):
        texts = ["" if i in numbers else text for i, text in enumerate(answers["texts"])]
        write_json(path, answers | {"texts": texts})


def _reports(run: Reader) -> list[Path]:
    """Reports on data with excerpts that may be of the row."""
    paths = sorted(run.folder.file("data").glob("*.json"))
    return [path for path in paths if _without_examples(report := read_json(path), run.found) != report]


def _pages(run: Reader) -> list[Path]:
    """The pages of such reports; `tuneloop check --html` makes them again."""
    return [page for path in _reports(run) if (page := path.with_suffix(".html")).is_file()]


def _without_examples(value: Any, found: Family) -> Any:
    """A report in which findings that name a place of the row show no examples."""
    if isinstance(value, list):
        return [_without_examples(inner, found) for inner in value]
    if not isinstance(value, dict):
        return value
    hidden: dict[str, Any] = {}
    if value.get("examples") and "places" in value:
        named = {(place["file"], line) for place in value["places"] for line in place["lines"]}
        if named & found.places or value.get("rows", 0) > len(named):       # long lists of places are cut
            hidden = {"examples": []}
    return {key: _without_examples(inner, found) for key, inner in value.items()} | hidden
