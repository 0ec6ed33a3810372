"""CSV and TSV: fields with any of four delimiters. Line ends inside quoted fields become `\\n`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from tuneloop.data.decode import Text
from tuneloop.data.files import LONGEST_ROW
from tuneloop.data.flaws import and_more
from tuneloop.data.read import Row
from tuneloop.data.sources._lines import Odd, lines, too_long
from tuneloop.errors import UserError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
SNIFFED_RECORDS = 50
CUT = "unexpected end of data"      # how the csv module says that a quoted field is open at the end


def rows(text: Text, delimiter: str, shown: str, notes: list[str]) -> Iterator[Row]:
    """Every row that has as many fields as the header, then UserError if some have not."""
    found = records(lines(text.pieces(), shown), delimiter, shown)
    header, first = next(found, None), next(found, None)
    if header is None or first is None:
        raise UserError(f"{shown} has a header and no rows.", wanted="at least 10 rows below the header")
    columns = columns_of(header[1], shown, header[0])
    if delimiter in ";|":
        notes.append(f"fields are separated by {DELIMITERS[delimiter]}")
    ragged, taken = Odd(), dict.fromkeys(columns, False)
    for line, fields in chain([first], found):
        if len(fields) != len(columns):
            ragged.add(line, f"{len(fields)} fields, but the header has {len(columns)}")
            continue
        values = dict(zip(columns, fields, strict=True))
        for column, field in values.items():
            if field.strip() == column:
                taken[column] = True
        yield Row(line, values)
    if ragged.lines:
        name = DELIMITERS[delimiter]
        raise UserError(f"{shown} line {ragged.lines[0]}: {ragged.first}{and_more(ragged.lines)}.",
                        wanted=f"{len(columns)} fields separated by {name}: {', '.join(columns)}",
                        fix=f'put quotes around a text that holds a {name}, as in "yes, please"')
    if any(taken.values()):
        names = ", ".join(repr(column) for column in columns if taken[column])
        notes.append(f"the first line was read as names of columns, and {names} also occurs below it: if the file has "
                     "no header, put one above")


def delimiter_of(text: Text) -> str:
    """The one that cuts the first records most evenly, then into most columns, then the most usual one."""
    def fitness(delimiter: str) -> tuple[float, int]:
        widths: list[int] = []
        try:
            for _, fields in islice(records(lines([text.head], ""), delimiter, ""), SNIFFED_RECORDS):
                widths.append(len(fields))
        except UserError as error:
            if str(error.__cause__) != CUT:
                return 0.0, 0
        return (widths.count(widths[0]) / len(widths), widths[0]) if max(widths[:1], default=1) > 1 else (0.0, 0)
    return max(DELIMITERS, key=fitness)


def columns_of(header: Sequence[str], shown: str, line: int = 1) -> list[str]:
    """The names of the columns; UserError where one has none or two have the same."""
    columns = [name.strip() for name in header]
    nameless = [str(i) for i, name in enumerate(columns, 1) if not name]
    if nameless:
        raise UserError(f"{shown} line {line}: column {', '.join(nameless)} of the header has no name.",
                        wanted="a name for each column",
                        fix="name it; an index that pandas wrote goes away with to_csv(…, index=False)")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UserError(f"{shown} line {line}: two columns are called {', '.join(twice)}.", wanted="different names")
    return columns


def records(text_lines: Iterable[str], delimiter: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, fields) of every record that is not blank."""
    line, size = 1, 0

    def fed() -> Iterator[str]:
        nonlocal size
        for text in text_lines:
            size += len(text)
            if size > LONGEST_ROW:
                raise too_long(shown, line)
            yield text + "\n"

    reader = csv.reader(fed(), delimiter=delimiter, strict=True)
    try:
        while (fields := _next(reader)) is not None:
            if any(fields):
                yield line, fields
            line, size = reader.line_num + 1, 0
    except csv.Error as error:
        raise UserError(f"{shown} line {line}: a quoted field does not end as it should ({error}).",
                        wanted='a text with quotes, commas or line ends in quotes, its own quotes doubled: '
                               '"He said ""yes"""', fix=f"mend the quotes of line {line}") from error


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next record. The limit of the csv module is one for the whole process, so it is put back each time."""
    limit = csv.field_size_limit(LONGEST_ROW)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)
