"""From a file's bytes to text: compression, encodings, and what is no text at all."""

from __future__ import annotations

import codecs
import difflib
import gzip
import re
import zlib
from pathlib import Path

from charset_normalizer import from_bytes

from tuneloop.errors import UserError

GIT_LFS = b"version https://git-lfs.github.com/spec/"
GZIP = b"\x1f\x8b"
NOT_TEXT = {
    b"PK\x03\x04": "a zip archive or an Excel workbook", b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file",
    b"BZh": "compressed with bzip2", b"\xfd7zXZ": "compressed with xz", b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF", b"SQLite format 3": "an SQLite database",
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
DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".gz"}
WANTED = "a text file: .csv .tsv .json .jsonl, also .gz"
SAMPLE_BYTES = 200_000
FOREIGN_SCRIPT = 0.25           # share of bytes outside ASCII above which a text is not in Latin letters


def text_of(path: Path, shown: str) -> tuple[str, list[str]]:
    """The text of a file, with line ends as `\\n`, and notes on how it was decoded. `shown` names it in errors."""
    data = _bytes(path, shown)
    notes: list[str] = []
    if data.startswith(GZIP):
        data = _uncompressed(data, shown)
    elif path.suffix == ".gz" and not data.startswith(GIT_LFS):
        notes.append("not compressed in spite of its name")
    _refuse_other_content(data, shown)
    text, note = _decoded(data, shown)
    if note:
        notes.append(note)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        found = f"{shown} is empty: " + (f"{len(data)} bytes of white space." if data else "0 bytes.")
        raise UserError(found, wanted="at least 10 rows")
    return text, notes


def _bytes(path: Path, shown: str) -> bytes:
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix in DATA_SUFFIXES)[:5]
            raise UserError(f"{shown} is a folder.", wanted=WANTED,
                            fix=f"name a file in it: {', '.join(inside)}" if inside else "")
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(path, shown) from None
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror or error}.") from error


def _missing(path: Path, shown: str) -> UserError:
    if not path.parent.is_dir():
        return UserError(f"{shown} does not exist, nor does its folder.", wanted=WANTED,
                         fix="paths in a recipe count from the folder of the recipe")
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return UserError(f"{shown} does not exist.", wanted=WANTED,
                     fix=f"did you mean {' or '.join(near)}?" if near else "")


def _uncompressed(data: bytes, shown: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{shown} is a damaged or cut-off gzip file: {error}.",
                        fix="copy or download it again") from error


def _refuse_other_content(data: bytes, shown: str) -> None:
    if data.startswith(GIT_LFS):
        raise UserError(f"{shown} is a Git-LFS pointer: a note of {len(data)} bytes that stands for the data, "
                        "not the data.", fix=f"run `git lfs pull` in its repository, or download {shown} itself")
    for start, kind in NOT_TEXT.items():
        if data.startswith(start):
            raise UserError(f"{shown} is {kind}, not text.", wanted=WANTED,
                            fix="unpack or convert it, for example to JSONL")


def _decoded(data: bytes, shown: str) -> tuple[str, str]:
    """Text, and a note unless it is plain UTF-8."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return _strictly(data[len(mark):], encoding, shown), "" if encoding == "utf-8" else f"decoded as {encoding}"
    if encoding := _unmarked_utf16(data):
        return _strictly(data, encoding, shown), f"decoded as {encoding}"
    _refuse_binary(data, shown)
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        _refuse_damaged_utf8(data, error, shown)
    encoding = _guessed(data, shown)
    return _strictly(data, encoding, shown), f"not UTF-8; decoded as {encoding}, guessed from its bytes"


def _strictly(data: bytes, encoding: str, shown: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(data, error, encoding, shown) from None


def _undecodable(data: bytes, error: UnicodeDecodeError, encoding: str, shown: str) -> UserError:
    line = data.count(b"\n", 0, error.start) + 1
    return UserError(f"{shown} line {line}: the byte 0x{data[error.start]:02x} cannot be decoded as {encoding}.",
                     wanted="text in UTF-8", fix=f"save the file as UTF-8, or mend line {line}")


def _unmarked_utf16(data: bytes) -> str:
    """UTF-16 without its mark shows by zeros in every second byte."""
    half = len(data) / 2
    even, odd = data[::2].count(0), data[1::2].count(0)
    if odd > 0.3 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.3 * half and odd < 0.05 * half else ""


def _refuse_binary(data: bytes, shown: str) -> None:
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise UserError(f"{shown} line {line}: holds a NUL byte, so this is no text.", wanted=WANTED)
    control = len(re.findall(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f]", data))
    if control > 0.01 * len(data):
        raise UserError(f"{shown} is no text: {control} of its {len(data)} bytes are control characters.",
                        wanted=WANTED)


def _refuse_damaged_utf8(data: bytes, error: UnicodeDecodeError, shown: str) -> None:
    """A UTF-8 file with a few bad bytes must not be taken for another encoding: that would spoil every accent in it."""
    text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd")
    good = sum(not c.isascii() for c in text) - bad
    if good >= bad:
        raise _undecodable(data, error, f"UTF-8, as the rest of the file is ({bad} such bytes in all)", shown) from None


def _guessed(data: bytes, shown: str) -> str:
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
        except UnicodeDecodeError as error:
            if best is None:
                raise _undecodable(data, error, "UTF-8 or any encoding that is known here", shown) from None
    assert best is not None
    return best.encoding
