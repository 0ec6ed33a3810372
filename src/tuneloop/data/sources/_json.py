"""JSON: one object on each line, or a list of objects, of which no more than one is in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from tuneloop.data.decode import Text
from tuneloop.data.files import LONGEST_ROW
from tuneloop.data.flaws import and_more
from tuneloop.data.read import ONE_OBJECT_PER_ROW, Row
from tuneloop.data.sources._lines import Odd, lines, too_long
from tuneloop.errors import UserError

SHOWN_BROKEN_LINES = 10
MOST_LEVELS = 100
TOO_DEEP = f"nested more than {MOST_LEVELS} levels deep"
HELD_CHARACTERS = 2**20         # of rows that begin on one line, until they count as a list on one line
SHOWN_KEYS = 10
_DECODER = json.JSONDecoder()
_NO_SPACE = re.compile(r"[^ \t\n\r]")


Element = tuple[int, Any]       # the line on which it begins, and its value


class TooDeepError(ValueError):
    """A value inside a value inside …: made to break programs, not to be learnt from."""

    def __init__(self) -> None:
        super().__init__(TOO_DEEP)


def rows_of_lines(text: Text, shown: str) -> Iterator[Row]:
    """Every line that is an object, then UserError if some are not."""
    broken: list[str] = []
    broken_lines = 0
    others = Odd()
    for number, line in enumerate(lines(text.pieces(), shown), 1):
        if not line or line.isspace():
            continue
        try:
            value = parsed(line)
        except ValueError as error:
            broken_lines += 1
            if broken_lines <= SHOWN_BROKEN_LINES:
                column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                broken.append(f"{shown} line {number}: not valid JSON ({_reason(error)}{column}).")
            continue
        if isinstance(value, dict):
            yield Row(number, value)
        else:
            others.add(number, json.dumps(value)[:40])
    if broken:
        further = broken_lines - SHOWN_BROKEN_LINES
        rest = [f"… and {further} further lines."] if further > 0 else []
        raise UserError("\n".join(broken + rest), wanted="one JSON object on each line",
                        fix="mend these lines; a JSON list belongs into a .json file")
    _refuse_others(others, shown)


def parsed(text: str) -> Any:
    """A JSON value. Raises ValueError where there is none, or where it is nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise TooDeepError from None
    if text.count("[") + text.count("{") > MOST_LEVELS:
        _check_depth(value)
    return value


def rows_of_list(text: Text, shown: str, notes: list[str]) -> Iterator[Row]:
    """Every object of a list, or of the list under the key "data", then UserError if other values are among them.

    Lines are those of the file, unless several rows begin on the first one: then a row is known by its number.
    """
    window = _Window(text.pieces(), shown)
    others = Odd()
    for place, value in _placed(window, _elements(window), notes):
        if isinstance(value, dict):
            yield Row(place, value)
        else:
            others.add(place, json.dumps(value)[:40])
    _refuse_others(others, shown)


def _placed(window: _Window, elements: Iterator[Element], notes: list[str]) -> Iterator[Element]:
    """Elements at their lines, or at their numbers where the whole list is on one line as far as one can see."""
    held: list[Element] = []
    for line, value in elements:
        held.append((line, value))
        if line != held[0][0]:
            yield from chain(held, elements)
            return
        if len(held) > 1 and window.taken > HELD_CHARACTERS:
            break
    if len(held) < 2:
        yield from held
        return
    notes.append("the whole list is on one line: what is called a line below is the number of a row")
    yield from ((number, value) for number, (_, value) in enumerate(chain(held, elements), 1))


def _elements(window: _Window) -> Iterator[Element]:
    """The line on which it begins, and the value, of every element of the list that a text holds."""
    match window.next():
        case "[":
            yield from _list(window)
        case "{":
            yield from _list_in_object(window)
        case _:
            window.value()
            window.end()
            raise UserError(f"{window.shown} is a single JSON value.", wanted="a list of objects")
    window.end()


def _list(window: _Window) -> Iterator[Element]:
    window.skip()
    mark = "]" if window.next() == "]" else ","
    while mark == ",":
        line = window.line
        yield line, window.value()
        mark = window.next()
        if mark == ",":
            window.skip()
            window.next()
    if mark != "]":
        raise window.broken("Expecting ',' delimiter")
    window.skip()


def _list_in_object(window: _Window) -> Iterator[Element]:
    """The elements of the list under the key "data"; whatever stands beside it is passed over."""
    keys: list[str] = []
    found = False
    window.skip()
    mark = "}" if window.next() == "}" else ","
    while mark == ",":
        if window.next() != '"':
            raise window.broken("Expecting property name enclosed in double quotes")
        keys.append(window.value())
        if window.next() != ":":
            raise window.broken("Expecting ':' delimiter")
        window.skip()
        if window.next() == "[" and keys[-1] == "data":
            if found:
                raise UserError(f'{window.shown} line {window.line}: a second list is called "data".',
                                wanted="one list of rows", fix="put all rows into one of them")
            found = True
            yield from _list(window)
        else:
            window.value()
        mark = window.next()
        if mark == ",":
            window.skip()
    if mark != "}":
        raise window.broken("Expecting ',' delimiter")
    window.skip()
    if not found:
        window.end()
        said = f"one JSON object with the keys {', '.join(keys[:SHOWN_KEYS])}" if keys else "an empty JSON object"
        raise UserError(f"{window.shown} is {said}.",
                        wanted='a list of objects, or {"data": [ … ]}')


class _Window:
    """The part of a long text that is in memory. `line` is that of the next character."""

    def __init__(self, pieces: Iterator[str], shown: str) -> None:
        self.shown, self.line, self.taken = shown, 1, 0
        self._pieces = pieces
        self._text, self._at = "", 0
        self._column = 0            # characters before the window that are on its first line

    def next(self) -> str:
        """The next character that is no white space, which is not taken; "" at the end."""
        while not (found := _NO_SPACE.search(self._text, self._at)):
            self._take(len(self._text))
            if not self._grow(1):
                return ""
        self._take(found.start())
        return found.group()

    def skip(self) -> None:
        """Take one character that `next` has shown."""
        self._take(self._at + 1)

    def value(self) -> Any:
        """Take the JSON value that begins here. Raises UserError where there is none that can be trusted."""
        while True:
            waiting = len(self._text) - self._at
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = self._may_be_cut(error)
                if cut and waiting > LONGEST_ROW:
                    raise too_long(self.shown, self.line) from None
                if cut and self._grow(min(waiting, LONGEST_ROW)):
                    continue
                raise self.broken(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.broken(_reason(error)) from None
            if end >= len(self._text) - 2 and self._grow(1):
                continue                # a number may go on: `1.`, `1e+`
            if end - self._at > LONGEST_ROW:
                raise too_long(self.shown, self.line)
            if self._text.count("[", self._at, end) + self._text.count("{", self._at, end) > MOST_LEVELS:
                self._check_depth(value)
            self._take(end)
            return value

    def end(self) -> None:
        """UserError unless nothing follows."""
        if self.next():
            raise self.broken("Extra data")

    def broken(self, reason: str, at: int | None = None) -> UserError:
        """The error for what stands at `at`, or here."""
        at = self._at if at is None else at
        line = self.line + self._text.count("\n", self._at, at)
        start = self._text.rfind("\n", 0, at)
        column = at - start if start >= 0 else self._column + at + 1
        return UserError(f"{self.shown} line {line}, column {column}: not valid JSON ({reason}).",
                         fix="mend it there")

    def _check_depth(self, value: Any) -> None:
        try:
            _check_depth(value)
        except TooDeepError as error:
            raise self.broken(str(error)) from None

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the end of the window explains the error; the longest escape is `\\ud83d\\ude00`."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 16

    def _take(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self.taken += to - self._at
        self._at = to

    def _grow(self, characters: int) -> bool:
        """Read on by so many characters at least; False where nothing is left to read."""
        parts: list[str] = []
        for piece in self._pieces:
            parts.append(piece)
            characters -= len(piece)
            if characters <= 0:
                break
        if not parts:
            return False
        start = self._text.rfind("\n", 0, self._at)
        self._column = self._at - start - 1 if start >= 0 else self._column + self._at
        self._text, self._at = "".join([self._text[self._at:], *parts]), 0
        return True


def _check_depth(value: Any) -> None:
    """Raise TooDeepError beyond MOST_LEVELS."""
    level = [value]
    for _ in range(MOST_LEVELS):
        if not level:
            return
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)]
    if any(isinstance(inner, dict | list) for inner in level):
        raise TooDeepError


def _refuse_others(others: Odd, shown: str) -> None:
    if others.lines:
        raise UserError(f"{shown} line {others.lines[0]}: {others.first} is no JSON object{and_more(others.lines)}.",
                        wanted=ONE_OBJECT_PER_ROW)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
