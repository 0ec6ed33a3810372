"""HTML to blocks: headings, paragraphs, lists and tables as text, without what stands around them on every page."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.data.decode import BYTE_ORDER_MARKS
from tuneloop.data.documents.cutting import PROSE
from tuneloop.data.documents.passages import Block, Document, Outline, cut_blocks
from tuneloop.data.documents.reading import bytes_of, text_of
from tuneloop.errors import UserError, missing_extra

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import Tag

SUFFIXES = (".html", ".htm", ".xhtml")
DROPPED = frozenset(("script", "style", "nav", "footer", "title", "noscript", "template", "svg", "iframe", "button"))
HEADINGS = {f"h{level}": level for level in range(1, 7)}
OWN_LINES = frozenset((
    "html", "body", "address", "article", "aside", "blockquote", "caption", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "form", "header", "hr", "li", "main", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", *HEADINGS))
CELLS = ("td", "th")
LAYOUT = ("table", "ul", "ol", *HEADINGS)       # in a row, they say that the table is no table of data
UNENDED = 100           # tags or comments without an end; a few are sloppy, many keep the parser busy for hours

_SPACE = re.compile(r"[ \t\n\f]+")              # a no-break space is a character like others
_BREAK = "\x00"                                 # <br>, until white space has been put in order
_EMPTY = _BREAK + " \t\n\f|"
_DECLARED = re.compile(rb"""<(?:meta[^>]{0,500}?charset|\?xml[^>]{0,100}?encoding)\s*=\s*["']?\s*([\w:.-]{1,40})""",
                       re.IGNORECASE)
_DECLARED_WITHIN = 4096                         # bytes
_CHARSETS = ("ascii", "big5", "cp", "euc", "gb", "hz", "iso", "johab", "koi8", "mac", "shift_jis", "tis", "utf")


def read(path: Path, shown: str) -> Document:
    """The blocks of a page, its text decoded as it declares. Lines are those of the tags."""
    try:
        from bs4 import BeautifulSoup
        from bs4.exceptions import ParserRejectedMarkup
    except ImportError:
        raise missing_extra("beautifulsoup4", "data", "Reading HTML") from None
    text, notes = _decoded(path, shown)
    _refuse_unended(text, shown)
    try:
        soup = BeautifulSoup(text, "html.parser")
    except ParserRejectedMarkup as error:
        raise UserError(f"{shown} cannot be read as HTML: {error}.", fix="open it in a browser and save it again, or "
                        "leave it out") from error
    blocks = [part for block in _blocks(_stretches(soup)) for part in cut_blocks(block, PROSE, counted=False)]
    title = soup.title.get_text() if soup.title else next((b.headings[-1] for b in blocks if b.is_heading), "")
    return Document(" ".join(title.split()) or path.stem, blocks, notes=notes)


def _decoded(path: Path, shown: str) -> tuple[str, list[str]]:
    """By the page's own declaration; a byte order mark, or no declaration, leaves it to the bytes."""
    data = bytes_of(path, shown)
    declared = _DECLARED.search(data, 0, _DECLARED_WITHIN)
    if declared is None or data.startswith(tuple(BYTE_ORDER_MARKS)):
        return text_of(path, shown)
    name = declared[1].decode("ascii", "replace").lower()
    encoding = _charset(name, shown)
    if encoding.startswith("utf"):          # a declaration that could be read is in no UTF-16; browsers see it so too
        return text_of(path, shown)
    if encoding in ("iso8859-1", "ascii"):
        encoding = "cp1252"                 # as browsers do
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n"), []
    except ValueError as error:
        raise UserError(f"{shown} declares the encoding {name}, but cannot be decoded so: {error}.",
                        fix="mend the declaration, or save it as UTF-8") from None


def _charset(name: str, shown: str) -> str:
    """Python's name of an encoding. Some of Python's codecs are no character sets."""
    try:
        found = codecs.lookup(name).name
    except LookupError:
        found = ""
    if not found.startswith(_CHARSETS):
        raise UserError(f"{shown} declares the encoding {name}, which is none that is known here.",
                        fix='save it as UTF-8, with <meta charset="utf-8">')
    return found


def _refuse_unended(text: str, shown: str) -> None:
    for what, opening, closing in (("comment", "<!--", "-->"), ("tag", "<", ">")):
        ended = text.rfind(closing) + 1
        if text.count(opening, ended) > UNENDED:
            line = text.count("\n", 0, text.find(opening, ended)) + 1
            raise UserError(f"{shown} line {line}: a {what} begins and does not end, nor do {UNENDED} after it.",
                            wanted="a whole HTML page", fix="copy or download it again")


# --- elements --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where on the page an element is."""

    owner: Tag | None               # the nearest element with lines of its own; None in what is left out
    item: Tag | None = None         # the list item around it
    marker: str = ""                # of that item
    depth: int = 0                  # how many lists are around it

    def inside(self, node: Tag, is_data_row: bool, number: int) -> _Place:
        """The place of what is in `node`, an element here; `number` counts the items of its list from 1."""
        if self.owner is None or node.name in DROPPED or node.get("role") == "navigation" or node.has_attr("hidden"):
            return _Place(None)
        owns = node.name in OWN_LINES if node.name != "tr" else is_data_row
        if self.owner.name == "tr" and node.name != "tr":
            owns = False            # all of a row of data is on one line
        place = replace(self, owner=node) if owns else self
        if node.name in ("ul", "ol"):
            return replace(place, depth=self.depth + 1)
        if node.name == "li":
            sign = f"{number}." if node.parent is not None and node.parent.name == "ol" else "-"
            return replace(place, item=node, marker="  " * (self.depth - 1) + sign + " ")
        return place


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Text that an element puts on lines of its own; an element that holds others may have several."""

    place: _Place
    owner: Tag
    raw: str
    line: int

    @property
    def text(self) -> str:
        if self.owner.name == "pre":
            return self.raw.replace(_BREAK, "\n").strip("\n")
        return "\n".join(_SPACE.sub(" ", line).strip() for line in self.raw.split(_BREAK)).strip("\n")

    def is_near(self, other: _Stretch) -> bool:
        """Whether the other one follows without a blank line: rows of a table, items of a list."""
        return self.owner.name == other.owner.name == "tr" or None not in (self.place.item, other.place.item)


def _stretches(soup: BeautifulSoup) -> Iterator[_Stretch]:
    from bs4.element import CData, NavigableString, Tag

    data_rows, places = _data_rows(soup), {id(soup): _Place(soup)}
    numbers: Counter[int] = Counter()
    current, parts = places[id(soup)], list[str]()
    line = seen_line = 1
    for node in soup.descendants:
        parent = node.parent
        assert parent is not None
        place = places[id(parent)]
        if isinstance(node, Tag):
            seen_line = node.sourceline or seen_line
            numbers[id(parent)] += node.name == "li"
            place = places[id(node)] = place.inside(node, id(node) in data_rows, numbers[id(parent)])
        if place.owner is None:
            continue
        if place.owner is not current.owner:
            yield from _stretch(current, parts, line)
            current, parts, line = place, [], seen_line
        if isinstance(node, Tag):
            parts += [_BREAK] if node.name == "br" else [" | " if parts else ""] if node.name in CELLS else []
        elif type(node) in (NavigableString, CData) and parent.name != "tr":
            parts.append(str(node))
    yield from _stretch(current, parts, line)


def _stretch(place: _Place, parts: list[str], line: int) -> Iterator[_Stretch]:
    raw = "".join(parts)
    if place.owner is not None and raw.strip(_EMPTY):
        yield _Stretch(place, place.owner, raw, line)


def _data_rows(soup: BeautifulSoup) -> set[int]:
    """The rows of tables that hold data; in those of a layout, cells hold tables, lists or headings."""
    from bs4.element import Tag

    row_of: dict[int, int] = {}
    rows: set[int] = set()
    for node in soup.find_all(True):
        assert isinstance(node, Tag)
        row = row_of.get(id(node.parent), 0)
        if node.name == "tr":
            rows.add(row := id(node))
        elif node.name in LAYOUT:
            rows.discard(row)
        row_of[id(node)] = row
    return rows


def _blocks(stretches: Iterable[_Stretch]) -> Iterator[Block]:
    outline = Outline()
    marked: set[int] = set()
    pending: tuple[Block, _Stretch] | None = None
    for stretch in stretches:
        if pending is not None:
            yield _spaced(*pending, stretch)
        level = HEADINGS.get(stretch.owner.name, 0)
        text, last = stretch.text, stretch.line + stretch.raw.rstrip().count("\n")
        if level:
            outline.enter(level, " ".join(text.split()))
            text = "#" * level + " " + " ".join(text.split())
        elif stretch.place.item is not None and id(stretch.place.item) not in marked:
            marked.add(id(stretch.place.item))
            text = stretch.place.marker + text
        pending = Block(text, stretch.line, last, outline.path, bool(level), opens=bool(level)), stretch
    if pending is not None:
        yield pending[0]


def _spaced(block: Block, stretch: _Stretch, following: _Stretch) -> Block:
    return replace(block, text=block.text + ("\n" if stretch.is_near(following) else "\n\n"))
