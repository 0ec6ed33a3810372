"""PDF to blocks: the paragraphs of each page, without the lines that stand at the top or foot of most pages."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.data.documents.cutting import PROSE
from tuneloop.data.documents.passages import Block, Document, cut_blocks
from tuneloop.data.documents.reading import bytes_of
from tuneloop.errors import UserError, missing_extra

if TYPE_CHECKING:
    from pypdf import PdfReader

SUFFIXES = (".pdf",)
EDGE_LINES = 2          # at the top and at the foot, where headers and footers are looked for
FEWEST_REPEATS = 3
REPEATS = 0.4           # of the pages; headers of left and of right pages may differ
SHORT_LINE = 0.75       # of the page's long lines: a paragraph ends with such a line
LONG_LINE = 0.9         # the quantile of the lengths of lines that counts as long
SHOWN = 10
LONGEST_WORD = 100      # characters
LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})

_QUIET = logging.NullHandler()
_SENTENCE_END = re.compile(r"[.!?…:。！？][\"'”’»)\]]*$")
_BULLET = re.compile(r"(?:[-–•*▪◦]|\(?\d{1,3}[.)]|\(?[a-z]\))\s")
_WORD_CUT = re.compile(r"(\w+)[-‐\u00ad]$")
_WORD = re.compile(r"\w+(?:-\w+)*")

Pages = list[list[str]]         # the lines of each page


def read(path: Path, shown: str) -> Document:
    """The paragraphs of every page. Raises UserError for what is damaged or needs a password."""
    pages, title = _read(path, shown)
    scanned = [number for number, lines in enumerate(pages, 1) if not any(line.strip() for line in lines)]
    if len(scanned) == len(pages):
        raise UserError(f"{shown} holds no text on any of its {len(pages)} pages, so they are probably scans.",
                        fix="put it through text recognition (OCR) first, for example with ocrmypdf")
    notes = []
    if scanned:
        notes.append(f"no text, and so nothing read, on {_pages(scanned)}: a scan or an empty page")
    if repeated := _repeated(pages):
        notes.append("left out at the top or foot of pages: " + "; ".join(sorted(repeated)[:SHOWN]))
        pages = [_without_edges(lines, repeated) for lines in pages]
    return Document(title or path.stem, list(_blocks(pages)), "page", notes)


def _read(path: Path, shown: str) -> tuple[Pages, str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import DependencyError
    except ImportError:
        raise missing_extra("pypdf", "data", "Reading PDF") from None
    logging.getLogger("pypdf").addHandler(_QUIET)       # it warns of every flaw that it can read over
    data = BytesIO(bytes_of(path, shown))
    try:
        reader = PdfReader(data)
        if not reader.is_encrypted or reader.decrypt(""):
            return [_lines(page.extract_text()) for page in reader.pages], _title(reader)
    except DependencyError as error:
        raise UserError(f"{shown} is encrypted: {error}.", fix="pip install cryptography") from error
    except Exception as error:          # whatever a damaged file makes of pypdf
        raise UserError(f"{shown} is no PDF, or a damaged one: {error or type(error).__name__}.",
                        fix="open it in a viewer and save or print it as a new PDF, or leave it out") from error
    raise UserError(f"{shown} is encrypted and needs a password.", wanted="a PDF that opens without one",
                    fix="save it without a password, or leave it out")


def _title(reader: PdfReader) -> str:
    return " ".join(str(reader.metadata.title or "").split()) if reader.metadata else ""


def _lines(text: str) -> list[str]:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")       # halves of pairs occur
    return [" ".join(line.split()) for line in whole.translate(LIGATURES).replace("\0", "").split("\n")]


def _pages(numbers: Sequence[int]) -> str:
    more = ", …" if len(numbers) > SHOWN else ""
    return f"page{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:SHOWN]))}{more}"


# --- headers and footers ---------------------------------------------------------------------------------------------


def _repeated(pages: Pages) -> set[str]:
    """The lines at the top or foot of many pages, numbers in them written as #."""
    count = Counter(line for lines in pages for line in {_pattern(lines[i]) for i in _edges(lines)})
    fewest = max(FEWEST_REPEATS, REPEATS * len(pages))
    return {line for line, times in count.items() if times >= fewest}


def _without_edges(lines: list[str], repeated: set[str]) -> list[str]:
    gone = {i for i in _edges(lines) if _pattern(lines[i]) in repeated}
    return [line for i, line in enumerate(lines) if i not in gone]


def _edges(lines: Sequence[str]) -> list[int]:
    filled = [i for i, line in enumerate(lines) if line]
    return sorted({*filled[:EDGE_LINES], *filled[-EDGE_LINES:]})


def _pattern(line: str) -> str:
    return re.sub(r"\d+", "#", line)


# --- paragraphs ------------------------------------------------------------------------------------------------------


def _blocks(pages: Pages) -> Iterator[Block]:
    """Paragraphs in blocks. One that goes on over a page break is in a block for each page, put together again."""
    known = {word.lower() for lines in pages for line in lines for word in _WORD.findall(line)}
    found = [(number, text) for number, lines in enumerate(pages, 1) for text in _paragraphs(lines, known)]
    opens = False
    for (page, text), (next_page, following) in pairwise([*found, (0, "")]):
        goes_on = page != next_page and following[:1].islower() and not _SENTENCE_END.search(text)
        text = _joined(text, following, known).removesuffix(following) if goes_on else text + "\n\n"
        yield from cut_blocks(Block(text, page, page, opens=opens), PROSE, counted=False)
        opens = page != next_page and not goes_on


def _paragraphs(lines: Sequence[str], known: set[str]) -> Iterator[str]:
    """Lines put together: a paragraph ends at a blank line, before a list item, and after a short line."""
    lengths = sorted(len(line) for line in lines if line)
    long = lengths[int(LONG_LINE * (len(lengths) - 1))] if lengths else 0
    text, ended = "", True
    for line in lines:
        if text and (ended or not line or _BULLET.match(line)):
            yield text
            text = ""
        text = _joined(text, line, known)
        ended = len(line) < SHORT_LINE * long and not _word_cut(line)
    if text:
        yield text


def _joined(text: str, line: str, known: set[str]) -> str:
    """A word that was cut at the line end is put together, unless it is written with its hyphen elsewhere."""
    cut, rest = _word_cut(text), _WORD.match(line)
    if not cut or not rest or not line[0].islower():
        return f"{text} {line}".strip()
    hyphenated, whole = f"{cut}-{rest[0]}".lower(), f"{cut}{rest[0]}".lower()
    keep = text[-1] != "\u00ad" and hyphenated in known and whole not in known
    return (text if keep else text[:-1]) + line


def _word_cut(text: str) -> str:
    """The part of a word before the hyphen with which a text ends; nothing where it ends otherwise."""
    found = _WORD_CUT.search(text[-LONGEST_WORD:])
    return found[1] if found else ""
