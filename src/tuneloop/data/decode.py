"""From a file's bytes to text, piece by piece: encodings, line ends, and what is no text at all.

Which encoding it is is decided once, on the first bytes that are not ASCII; from there on every byte must fit.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from charset_normalizer import from_bytes

from tuneloop.data.files import WANTED
from tuneloop.errors import UserError

GIT_LFS = b"version https://git-lfs.github.com/spec/"
NOT_TEXT = {
    b"PK\x03\x04": "a zip archive or an Excel workbook", b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "compressed twice", b"%PDF": "a PDF", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file",
    b"SQLite format 3": "an SQLite database",
}
BYTE_ORDER_MARKS = {                    # the marks of UTF-32 begin with those of UTF-16, so they come first
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}
UNMARKED = ["utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be", "utf_7"]      # would show by zeros
USUAL = {"cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "koi8_r",
         "cp932", "cp949", "gb18030", "big5"}
"""What most programs that do not write UTF-8 do write. A rarer one must suit a text in Latin letters clearly better."""
CLEARLY = 0.2                   # of the difference between coherence and chaos, each between 0 and 1
DECIDING_BYTES = 2**20          # on which the encoding is decided
SAMPLE_BYTES = 200_000
FOREIGN_SCRIPT = 0.25           # share of bytes outside ASCII above which a text is not in Latin letters
NONE_FITS = "ascii"             # decodes up to the first byte that says otherwise


class Text:
    """A text on its way: `head` is its beginning, which can be looked at before the pieces are taken.

    Line ends come as `\\n`. `notes` say how it was decoded; they are complete after the last piece.
    """

    def __init__(self, blocks: Iterable[bytes], shown: str, notes: list[str]) -> None:
        self._coming = _pieces(iter(blocks), shown, notes)
        self.head = next(self._coming, "")

    def grow(self) -> bool:
        """A longer head; False when it is already the whole text."""
        piece = next(self._coming, None)
        self.head += piece or ""
        return piece is not None

    def pieces(self) -> Iterator[str]:
        """All of it, once."""
        yield self.head
        self.head = ""
        yield from self._coming


def _pieces(blocks: Iterator[bytes], shown: str, notes: list[str]) -> Iterator[str]:
    head, ended = _gathered(blocks)
    _refuse_other_content(head, shown)
    encoding = ""
    line_ends = io.IncrementalNewlineDecoder(None, translate=True)
    line, empty = 1, True
    for block, encoding_now in _with_encoding(head, blocks, shown, notes):
        if encoding_now != encoding:
            encoding = encoding_now
            decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = line_ends.decode(decoder.decode(block, final=not block), final=not block)
        except UnicodeDecodeError as error:
            raise _undecodable(error, encoding, blocks, line, shown) from None
        if (at := text.find("\0")) >= 0:
            line += text.count("\n", 0, at)
            raise UserError(f"{shown} line {line}: holds a NUL byte, so this is no text.", wanted=WANTED)
        line += text.count("\n")
        empty = empty and not text.strip()
        if text:
            yield text
    if empty:
        size = f"{'' if ended else 'more than '}{len(head)} bytes"
        raise UserError(f"{shown} is empty: {size}{' of white space' if head else ''}.", wanted="at least 10 rows")


def _gathered(blocks: Iterable[bytes]) -> tuple[bytes, bool]:
    """Blocks put together until they are enough to decide on, and whether that was everything."""
    parts: list[bytes] = []
    for block in blocks:
        parts.append(block)
        if sum(map(len, parts)) >= DECIDING_BYTES:
            return b"".join(parts), False
    return b"".join(parts), True


def _with_encoding(head: bytes, blocks: Iterator[bytes], shown: str, notes: list[str]) -> Iterator[tuple[bytes, str]]:
    """Blocks and how each is encoded, then an empty one. ASCII, which is in nearly all encodings, counts as UTF-8."""
    mark, encoding = next(((mark, encoding) for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)),
                          (b"", _unmarked_utf16(head)))
    head = head[len(mark):]
    if not encoding:
        _refuse_binary(head, shown)
        coming = chain([head], blocks)
        for block in coming:
            if not block.isascii():
                break
            yield block, "utf-8"
        else:
            yield b"", "utf-8"
            return
        head, ended = _gathered(chain([block], coming))
        whole_lines = head[:head.rfind(b"\n") + 1]
        encoding = _decided(head if ended or whole_lines.isascii() else whole_lines)
        if encoding not in ("utf-8", NONE_FITS):
            notes.append(f"not UTF-8; decoded as {encoding}, guessed from its bytes")
    elif encoding != "utf-8":
        notes.append(f"decoded as {encoding}")
    yield from ((block, encoding) for block in chain([head], blocks) if block)
    yield b"", encoding


def _undecodable(error: UnicodeDecodeError, encoding: str, rest: Iterator[bytes], line: int, shown: str) -> UserError:
    bad = error.object[error.start:]
    before = error.object[:error.start].decode(encoding, "ignore")
    line += len(re.findall("\r\n?|\n", before))
    if encoding == "utf-8":
        count = sum(text.count("\ufffd") for text in codecs.iterdecode(chain([bad], rest), encoding, "replace"))
        encoding = f"UTF-8, as the rest of the file is ({count} such bytes in all)"
    elif encoding == NONE_FITS:
        encoding = "UTF-8 or any encoding that is known here"
    return UserError(f"{shown} line {line}: the byte 0x{bad[0]:02x} cannot be decoded as {encoding}.",
                     wanted="text in UTF-8", fix=f"save the file as UTF-8, or mend line {line}")


def _unmarked_utf16(data: bytes) -> str:
    """UTF-16 without its mark shows by zeros in every second byte."""
    half = len(data) / 2
    even, odd = data[::2].count(0), data[1::2].count(0)
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.3 * half and odd < 0.05 * half else ""


def _refuse_other_content(data: bytes, shown: str) -> None:
    if data.startswith(GIT_LFS):
        raise UserError(f"{shown} is a Git-LFS pointer: a note of {len(data)} bytes that stands for the data, "
                        "not the data.", fix=f"run `git lfs pull` in its repository, or download {shown} itself")
    for start, kind in NOT_TEXT.items():
        if data.startswith(start):
            fix = f'name the rows, as in "sqlite:///{shown}#SELECT text, label FROM rows"' if "SQLite" in kind else (
                "unpack or convert it, for example to JSONL")
            raise UserError(f"{shown} is {kind}, not text.", wanted=WANTED, fix=fix)


def _refuse_binary(data: bytes, shown: str) -> None:
    control = len(re.findall(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", data))
    if control > 0.01 * len(data) and b"\0" not in data:
        raise UserError(f"{shown} is no text: {control} of its first {len(data)} bytes are control characters.",
                        wanted=WANTED)


def _decided(data: bytes) -> str:
    """The encoding of bytes that are not ASCII.

    UTF-8 with a few bad bytes must not be taken for another encoding: that would spoil every accent in it.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)        # the last character may be cut
        return "utf-8"
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd")
    good = sum(not c.isascii() for c in text) - bad
    return "utf-8" if good >= bad else _guessed(data)


def _guessed(data: bytes) -> str:
    """The likely 8-bit or East Asian encoding. Few accents say little, and then cp1252 is by far the likeliest."""
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())[:SAMPLE_BYTES]
    outside = sum(byte > 127 for byte in telling) / len(telling)
    matches = from_bytes(telling, cp_exclusion=UNMARKED)
    best = matches.best()
    if outside < FOREIGN_SCRIPT and best is not None and best.encoding not in USUAL:
        usual = max((match for match in matches if match.encoding in USUAL), default=None, key=lambda match: (
            round(match.coherence - match.chaos, 1), "cp1252" in match.could_be_from_charset))
        if usual is not None and best.coherence - best.chaos < usual.coherence - usual.chaos + CLEARLY:
            best = usual
    unsure = best is None or "cp1252" in best.could_be_from_charset or (not best.coherence and outside < FOREIGN_SCRIPT)
    if unsure:
        try:
            data.decode("cp1252")
            return "cp1252"
        except UnicodeDecodeError:
            if best is None:
                return NONE_FITS
    assert best is not None
    return best.encoding
