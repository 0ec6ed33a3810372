"""Excel workbooks: the first sheet, or the one that is named: `reviews.xlsx#March`."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from tuneloop.data.files import located, opened, refuse_bomb
from tuneloop.data.flaws import and_more
from tuneloop.data.read import Row
from tuneloop.data.sources import base
from tuneloop.data.sources._delimited import columns_of
from tuneloop.data.sources._lines import Odd
from tuneloop.data.sources._plain import foreign
from tuneloop.errors import UserError, missing_extra

ZIP, OLD = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
KIND = "a zip archive or an Excel workbook"


class Source(base.Source):
    """One sheet; its first row that is not empty holds the names of the columns. Values become text as Excel shows it.

    What is called a line is the number of the row in Excel. Of formulas the value counts that Excel has stored.
    """

    suffixes = (".xlsx", ".xlsm")
    starts = (ZIP, OLD)
    in_folders = True
    kind = "Excel"

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        self.path, self.sheet = located(name, root)

    def rows(self) -> Iterator[Row]:
        self._refuse_others()
        try:
            from openpyxl import load_workbook
        except ImportError:
            raise missing_extra("openpyxl", "data", "Reading Excel workbooks") from None
        with foreign(self.shown, KIND):
            book = load_workbook(self.path, read_only=True, data_only=True)
            try:
                yield from self._rows(self._chosen(book))
            finally:
                book.close()

    def _refuse_others(self) -> None:
        """What begins like a workbook and is none, or unpacks to far more than it is."""
        with opened(self.path, self.shown) as file, foreign(self.shown, KIND):
            if file.read(len(OLD)) == OLD:
                raise UserError(f"{self.shown} is an old Excel workbook.", wanted="an .xlsx file",
                                fix="open it and save it as .xlsx or .csv")
            with ZipFile(file) as archive:
                refuse_bomb(sum(entry.file_size for entry in archive.infolist()), self.path.stat().st_size, self.shown)
                if "[Content_Types].xml" not in archive.namelist():
                    raise UserError(f"{self.shown} is a zip archive.", wanted="a file of rows",
                                    fix="unpack it and name the file or folder")

    def _chosen(self, book: Any) -> Any:
        names = [sheet.title for sheet in book.worksheets]
        if not names or (self.sheet and self.sheet not in names):
            raise UserError(f"{self.shown} has {len(names)} sheets, and none is called {self.sheet}.",
                            wanted=f"one of: {', '.join(names)}")
        name = self.sheet or names[0]
        if len(names) > 1:
            others = ", ".join(other for other in names if other != name)
            self.notes.append(f"the sheet {name} was read; there are also: {others}")
        return book[name]

    def _rows(self, sheet: Any) -> Iterator[Row]:
        sheet.reset_dimensions()            # programs write wrong ones
        records = ((line, [_text(cell) for cell in cells]) for line, cells in enumerate(sheet.iter_rows(), 1))
        records = ((line, _without_end(fields)) for line, fields in records if any(fields))
        line, header = next(records, (0, []))
        columns = columns_of(header, self.shown, line)
        wide = Odd()
        number = 0
        for number, fields in records:
            if len(fields) > len(columns):
                wide.add(number, f"{len(fields)} cells, but the header has {len(columns)}")
            else:
                padded = fields + [""] * (len(columns) - len(fields))
                yield Row(number, dict(zip(columns, padded, strict=True)))
        if wide.lines:
            raise UserError(f"{self.shown} row {wide.lines[0]}: {wide.first}{and_more(wide.lines)}.",
                            wanted=f"one table on the sheet, with the columns {', '.join(columns)}",
                            fix="name the further columns in the first row, or clear those cells")
        if not number:
            raise UserError(f"{self.shown} has a header and no rows." if header else f"{self.shown} is an empty sheet.",
                            wanted="at least 10 rows below the header")


def _without_end(fields: list[str]) -> list[str]:
    """Without the empty cells at the right, of which sheets have any number."""
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _text(cell: Any) -> str:
    """The value as a person expects to see it."""
    match cell.value:
        case None:
            return ""
        case bool() as truth:
            return str(truth).upper()
        case float() as number:
            return str(int(number)) if number.is_integer() else repr(number)
        case datetime.datetime() as moment:
            has_time = moment.time() != datetime.time() or "h" in cell.number_format.lower()
            return moment.isoformat(" ") if has_time else moment.date().isoformat()
        case datetime.date() | datetime.time() as moment:
            return moment.isoformat()
        case value:
            return str(value).replace("\r\n", "\n")
