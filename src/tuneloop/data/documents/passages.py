"""From the blocks of a document to passages: begun at headings where possible, long enough, each citing its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

from tuneloop.data.documents.cutting import Cutter, cut_to

SIZE = 2_000            # characters of a passage, about 500 tokens of English
LEAST = SIZE // 4       # a passage shorter than this goes on over the next heading
LONGEST_HEADING = 200   # characters of a heading that are cited


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a list item, a heading …: what a passage holds whole. Blocks put together are the document's text.

    `first` and `last` are lines or pages. `headings` are those above it, a heading's own included.
    """

    text: str
    first: int
    last: int
    headings: tuple[str, ...] = ()
    is_heading: bool = False
    opens: bool = False             # a good place for a passage to begin


@dataclass(frozen=True)
class Document:
    """A document in blocks of at most SIZE characters. `notes` says what was left out."""

    title: str
    blocks: Sequence[Block]
    unit: Literal["line", "page"] = "line"
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Passage:
    """A few paragraphs. `source` cites them: `handbook.md, Refunds > Deadlines, lines 40-58`; `at` is the first."""

    text: str
    title: str
    source: str
    at: int


def passages(document: Document, shown: str) -> Iterator[Passage]:
    """Passages of at most SIZE characters, headings aside; `shown` is the file's name in what they cite."""
    for run in _packed(document.blocks):
        yield Passage("".join(block.text for block in run).strip("\n"), document.title,
                      _cited(run, shown, document), run[0].first)


def cut_blocks(block: Block, cutters: Sequence[Cutter], *, counted: bool) -> Iterator[Block]:
    """The block in blocks of at most SIZE characters. `counted`: each line of its text is a line of the file."""
    line, opens = block.first, block.opens
    for part in cut_to(block.text, SIZE, cutters):
        last = line + part.rstrip("\n").count("\n")
        yield replace(block, text=part, opens=opens, first=line if counted else block.first,
                      last=last if counted else block.last)
        line, opens = line + part.count("\n"), False


class Outline:
    """The headings above the current line, as they come and go."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """A heading of this level, 1 the highest: it ends those of its own level and below."""
        self._open = [*takewhile(lambda heading: heading[0] < level, self._open), (level, title[:LONGEST_HEADING])]
        return self.path

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._open)


def _packed(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Neighbouring blocks together until a passage is full. A heading ends one only where nothing else is in it."""
    run: list[Block] = []
    length = 0
    for block in blocks:
        if length + len(block.text.rstrip()) > SIZE or (block.opens and length >= LEAST):
            whole = _without_last_headings(run) or run
            if any(b.text.strip() for b in whole):
                yield whole
            run = run[len(whole):]
            length = sum(len(b.text) for b in run)
        run.append(block)
        length += len(block.text)
    if any(block.text.strip() for block in run):
        yield run


def _without_last_headings(run: list[Block]) -> list[Block]:
    return run[:max((i for i, block in enumerate(run, 1) if not block.is_heading), default=0)]


def _cited(run: Sequence[Block], shown: str, document: Document) -> str:
    first, last = run[0].first, max(block.last for block in run)
    unit = document.unit
    place = f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"
    headings = _common([block.headings for block in run if not block.is_heading] or [run[0].headings])
    if headings[:1] == (document.title,):
        headings = headings[1:]
    return f"{shown}, {' > '.join(headings)}, {place}" if headings else f"{shown} {place}"


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The beginning that all paths share."""
    return tuple(names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))
