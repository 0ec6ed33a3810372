"""Documents for tests: a PDF with text on its pages, written by hand, and passages of what a file holds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from tuneloop.data.read import Row
from tuneloop.data.sources.documents import Source

LEADING = 14        # points from line to line


def pdf_of(pages: Sequence[Sequence[str]], title: str = "") -> bytes:
    """A PDF with these lines on its pages, in Latin-1, as a program with a text layer writes it."""
    count = len(pages)
    fonts = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >> >> >>"
    kids = b" ".join(b"%d 0 R" % (3 + 2 * page) for page in range(count))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count)]
    for page, lines in enumerate(pages):
        content = b"BT /F1 11 Tf %d TL 50 800 Td " % LEADING
        content += b"".join(b"(%b) Tj T* " % _escaped(line) for line in lines) + b"ET"
        objects += [b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources %b /Contents %d 0 R >>"
                    % (fonts, 4 + 2 * page), b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content)]
    objects.append(b"<< /Title (%b) >>" % _escaped(title))
    file = io.BytesIO()
    file.write(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(file.tell())
        file.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
    start = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    file.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    file.write(b"trailer << /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
               % (len(objects) + 1, len(objects), start))
    return file.getvalue()


def _escaped(line: str) -> bytes:
    return line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def read_document(folder: Path, data: bytes | str, name: str) -> tuple[list[Row], list[str]]:
    """The rows of a document with these bytes, and the notes."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_named(f"docs:{name}", folder)


def read_named(name: str, folder: Path) -> tuple[list[Row], list[str]]:
    source = Source(name, folder, name)
    return list(source.rows()), source.notes


def text_of(rows: Sequence[Row]) -> list[str]:
    return [row.values["text"] for row in rows]


def cited(rows: Sequence[Row]) -> list[str]:
    return [row.values["source"] for row in rows]
