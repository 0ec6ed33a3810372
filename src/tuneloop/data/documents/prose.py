"""Markdown, reStructuredText and plain text to blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tuneloop.data.documents.cutting import PROSE
from tuneloop.data.documents.passages import LONGEST_HEADING, Block, Document, Outline, cut_blocks
from tuneloop.data.documents.reading import text_of
from tuneloop.data.files import suffix_of

MARKDOWN = (".md", ".markdown")
RST = (".rst",)
PLAIN = (".txt", ".text")

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ADORNED = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_MARKUP = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)|[*`]+|<[^>\n]*>")


def read(path: Path, shown: str) -> Document:
    """The blocks of a text file; its headings are those of Markdown or of reStructuredText, by its suffix."""
    text, notes = text_of(path, shown)
    rows = text.split("\n")
    suffix = suffix_of(path)
    start, title = _front_matter(rows) if suffix in MARKDOWN else (0, "")
    found = _markdown_headings(rows, start) if suffix in MARKDOWN else _rst_headings(rows) if suffix in RST else {}
    blocks = list(_blocks(rows, start, found))
    title = title or next((title for _, level, title in found.values() if level == 1), path.stem)
    return Document(title, blocks, notes=notes)


Headings = dict[int, tuple[int, int, str]]      # by number of its first row from 0: rows, level, title


def _blocks(rows: list[str], start: int, headings: Headings) -> Iterator[Block]:
    outline, row = Outline(), start
    while row < len(rows):
        begin, is_heading = row, row in headings
        if is_heading:
            height, level, title = headings[row]
            outline.enter(level, title)
            row += height
        else:
            row = _paragraph_end(rows, row, headings)
        while row < len(rows) and not rows[row].strip():
            row += 1
        text = "\n".join(rows[begin:row]) + ("\n" if row < len(rows) else "")
        if text.strip():
            block = Block(text, begin + 1, row, outline.path, is_heading, opens=is_heading)
            yield from cut_blocks(block, PROSE, counted=True)


def _paragraph_end(rows: list[str], row: int, headings: Headings) -> int:
    """The row after a paragraph that begins at `row`. A fenced listing is a paragraph."""
    if fence := _FENCE.match(rows[row]):
        return _fence_end(rows, row, fence[1])
    while row < len(rows) and rows[row].strip() and row not in headings and not _FENCE.match(rows[row]):
        row += 1
    return row


def _fence_end(rows: list[str], row: int, fence: str) -> int:
    closing = re.compile(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    return next((end + 1 for end in range(row + 1, len(rows)) if closing.match(rows[end])), len(rows))


# --- headings --------------------------------------------------------------------------------------------------------


def _markdown_headings(rows: list[str], start: int) -> Headings:
    found: Headings = {}
    row = start
    while row < len(rows):
        if fence := _FENCE.match(rows[row]):
            row = _fence_end(rows, row, fence[1])
            continue
        if atx := _ATX.match(rows[row]):
            found[row] = 1, len(atx[1]), _plain(atx[2].rstrip("# \t"))
        elif _stands_alone(rows, row) and (under := _SETEXT.match(rows[row + 1])):
            found[row] = 2, 1 if under[1][0] == "=" else 2, _plain(rows[row])
            row += 1
        row += 1
    return found


def _rst_headings(rows: list[str]) -> Headings:
    """Levels are numbered in the order in which their adornments first occur."""
    found: Headings = {}
    levels: dict[tuple[str, bool], int] = {}
    for row in range(len(rows) - 1):
        under = _ADORNED.match(rows[row + 1])
        title = rows[row].strip()
        if not (under and title and not _ADORNED.match(rows[row]) and len(rows[row + 1].rstrip()) >= len(title)):
            continue
        over = row > 0 and rows[row - 1].rstrip() == rows[row + 1].rstrip()
        if over or _stands_alone(rows, row):
            level = levels.setdefault((under[1], over), len(levels) + 1)
            found[row - over] = 2 + over, level, _plain(title)
    return found


def _stands_alone(rows: list[str], row: int) -> bool:
    """Whether a line of text follows a blank one and is followed by another line."""
    return bool(rows[row].strip()) and row + 1 < len(rows) and (row == 0 or not rows[row - 1].strip())


def _plain(heading: str) -> str:
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", heading[:LONGEST_HEADING]).split())


def _front_matter(rows: list[str]) -> tuple[int, str]:
    """The number of the row after a YAML header, and the title in it."""
    if rows[0].rstrip() != "---":
        return 0, ""
    end = next((row for row in range(1, len(rows)) if rows[row].rstrip() in ("---", "...")), None)
    if end is None:
        return 0, ""
    titles = [row.removeprefix("title:").strip(" \t\"'") for row in rows[1:end] if row.startswith("title:")]
    return end + 1, titles[0] if titles else ""
