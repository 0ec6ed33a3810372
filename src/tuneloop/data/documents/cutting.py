"""Where a text may be cut: between paragraphs before sentences, between sentences before lines, lines before words.

A cutter takes a text and gives its parts; the parts put together are the text again, to the character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

Cutter = Callable[[str], list[str]]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]|\|)")
_STOP = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？][”』」）]*\s*")
_ABBREVIATION = re.compile(
    r"(?:\b[^\W\d_]|\b(?:Dr|Mr|Mrs|Ms|Prof|St|Sr|Jr|No|Nr|Fig|Eq|Sec|Ch|Vol|pp|vs|cf|al|approx|ca|bzw|usw|Abs|Art))\.$")
_LONGEST_ABBREVIATION = 8
_CLOSERS = ")]}"


def cut_to(text: str, size: int, cutters: Sequence[Cutter]) -> Iterator[str]:
    """Parts of at most `size` characters, by the first cutter where it can, else by the next; at last anywhere."""
    left = [(text, 0)]
    while left:
        part, level = left.pop()
        if len(part) <= size:
            yield part
        elif level == len(cutters):
            yield from (part[start:start + size] for start in range(0, len(part), size))
        else:
            parts = cutters[level](part)
            left += [(p, level) for p in reversed(parts)] if len(parts) > 1 else [(part, level + 1)]


def paragraphs(text: str) -> list[str]:
    """Cut at blank lines."""
    return _cut_at(text, [at for at, _ in _after_blank(text)])


def items(text: str) -> list[str]:
    """Cut before the items of a list and the rows of a table."""
    return _cut_at(text, [match.end() for match in _ITEM.finditer(text)])


def sentences(text: str) -> list[str]:
    """Cut after full stops, question and exclamation marks, but not after abbreviations or before small letters."""
    return _cut_at(text, [match.end() for match in _STOP.finditer(text)
                          if not text[match.end():match.end() + 1].islower()
                          and not _ABBREVIATION.search(text[max(0, match.start() - _LONGEST_ABBREVIATION)
                                                            :match.start() + 1])])


def lines(text: str) -> list[str]:
    """Cut at line ends."""
    return _LINE.findall(text)


def words(text: str) -> list[str]:
    """Cut before words."""
    return re.findall(r"\S+\s*|\s+", text)


def outermost(text: str) -> list[str]:
    """Cut code before the least indented of the lines that follow a blank line: functions, then what is in them."""
    starts = [(at, _indent(line)) for at, line in _after_blank(text) if line.lstrip()[0] not in _CLOSERS]
    least = min((indent for _, indent in starts), default=0)
    return _cut_at(text, [at for at, indent in starts if indent == least])


PROSE: tuple[Cutter, ...] = (paragraphs, items, sentences, lines, words)
CODE: tuple[Cutter, ...] = (outermost, lines)


def _after_blank(text: str) -> Iterator[tuple[int, str]]:
    """(offset, line) of every line that follows a blank one and is none itself."""
    at, blank = 0, False
    for line in lines(text):
        if blank and line.strip():
            yield at, line
        blank = not line.strip()
        at += len(line)


def _indent(line: str) -> int:
    expanded = line.expandtabs()
    return len(expanded) - len(expanded.lstrip())


def _cut_at(text: str, places: Sequence[int]) -> list[str]:
    bounds = [0, *places, len(text)]
    return [text[start:end] for start, end in pairwise(bounds) if start < end]
