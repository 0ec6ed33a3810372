"""Raw rows to samples: which row format each has, told by its columns, and what is wrong with which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.formats.base import Detector, DroppableError, Format, Given, Shape, Values, check_unicode
from tuneloop.data.formats.chats import chats
from tuneloop.data.formats.flat import evaluation, prompt_alone, prompt_and_answer, templates, text_alone
from tuneloop.data.formats.gemini import gemini
from tuneloop.data.formats.judged import LIKED, is_liked, openai_pairs, pairs, rated, rollouts
from tuneloop.data.formats.kinds import KINDS, Kind
from tuneloop.data.formats.media import check_media
from tuneloop.data.formats.ranked import ranked
from tuneloop.data.read import Row, Table
from tuneloop.data.template import Template, are_answers, suggest
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Origin, Preference, Ranked, Sample, Text

DETECTORS: tuple[Detector, ...] = (openai_pairs, pairs, rollouts, ranked, rated, chats, gemini, prompt_and_answer,
                                   evaluation)
"""Formats that columns tell for sure; the first that fits is it."""
ALONE: tuple[Detector, ...] = (prompt_alone, text_alone)
"""Formats of rows that have no other."""
MOST_SHAPES = 10_000        # remembered
SHOWN_COLUMNS = 8


@dataclass
class Part:
    """The rows of a file that have one format: how many, and where the first is."""

    format: Format
    first: Origin
    rows: int = 0


Parts = dict[str, Part]     # by the format's name
Formats = Callable[[Values], Format | None]


@dataclass(frozen=True)
class Made:
    """What rows have become: samples, each with the row it is, and those that are none, with what is wrong."""

    rows: list[tuple[Row, Sample]]
    dropped: list[tuple[Origin, RowError]]      # that nothing can be learnt from
    flaws: list[tuple[Origin, RowError]]


class Mapped:
    """How the rows of a file become samples. It is chosen by the first rows and applied to all, which it counts.

    `main` is the format of most of the first rows; `guessed` holds templates for prompt and answer where the columns
    tell nothing; `parts` counts the rows that were made.
    """

    def __init__(self, head: Table, formats: Formats, main: Format, kind: type[Any] | None, folder: Path | None,
                 guessed: tuple[str, str] | None = None) -> None:
        """`formats` tells the format of a row, `kind` is the kind of sample asked for."""
        self.file, self.columns = head.file, head.columns
        self.formats, self.main, self.kind, self.folder = _ByShape(formats), main, kind, folder
        self.guessed = guessed
        self.parts: Parts = {}

    def make(self, values: Values, origin: Origin) -> Sample:
        """The sample that a row is. Raises RowError where it is none."""
        found = self.formats(values)
        if found is None:
            raise RowError(f"no known row format in the columns {', '.join(values)[:80]}",
                           f"Most rows are {self.main.name};")
        _count(self.parts, found, origin)
        if not _takes(self.kind, found):
            raise RowError(f"the row is of another kind, {found.name}", f"Most rows are {self.main.name};")
        sample = found.make(values, origin)
        check_unicode(sample)
        check_media(sample.messages if isinstance(sample, Conversation) else sample.prompt, self.folder)
        return sample

    def make_all(self, rows: Iterable[Row], drop_empty: bool = False) -> Made:
        """The samples that rows are; with `drop_empty` those that nothing can be learnt from are no flaws."""
        made = Made([], [], [])
        for row in rows:
            origin = Origin(row.file or self.file, row.line, row.digest)
            try:
                made.rows.append((row, self.make(row.values, origin)))
            except RowError as error:
                drops = drop_empty and isinstance(error, DroppableError)
                (made.dropped if drops else made.flaws).append((origin, error))
        return made

    @property
    def sentence(self) -> str:
        """Which column is what; of several formats the rows of each, counted over what was made so far."""
        if len(self.parts) > 1:
            said = f"the rows have {len(self.parts)} formats: {_split(self.parts, self.file)}"
        else:
            said = next((part.format.how for part in self.parts.values()), self.main.how)
        return said + self._unused()

    def _unused(self) -> str:
        """What the model will not see: a question without its choices shows here."""
        used = {column for found in (self.main, *self.formats.known.values()) if found for column in found.columns}
        left = [column for column in self.columns if column not in used]
        more = ", …" if len(left) > SHOWN_COLUMNS else ""
        return f"; not used: {', '.join(left[:SHOWN_COLUMNS])}{more}" if left else ""


def choose(head: Table, kind: type[Any] | None = None, *, prompt: str | None = None, answer: str | None = None,
           system: str | None = None, folder: Path | None = None) -> Mapped:
    """How to read the rows that begin as `head` does: as samples of `kind`, or as whatever they are.

    `prompt` and `answer` are templates, `system` a message for rows without one. Files that rows name must lie in
    `folder`; None: they are not looked at. Raises UserError where no row can be read, or some are of another kind.
    """
    if not head.rows:
        raise UserError(f"{head.file} holds no rows.", wanted="at least one")
    given = Given(Template("data.prompt", prompt, head) if prompt else None, system, _liked(head))
    if answer:
        return Mapped(head, _always(found := _by_templates(head, given, answer, kind)), found, kind, folder)
    detected = _ByShape(lambda values: _detected(values, given))
    sure = _parts_of(head, detected)
    if 2 * sum(part.rows for part in sure.values()) < len(head.rows):
        main, others, guessed = _unsure(_rest(head, detected), given, kind)
    else:
        main, guessed = max(sure.values(), key=lambda part: part.rows).format, None
        others = _odd(given, main)
    if given.prompt and main.kind is Conversation:
        raise _lacking(head, "prompt", "answer")
    mapped = Mapped(head, lambda values: detected(values) or others(values), main, kind, folder, guessed)
    if kind is not None:
        _refuse_other_kinds(head, kind, _parts_of(head, mapped.formats))
    return mapped


# --- the format of a row ---------------------------------------------------------------------------------------------


class _ByShape:
    """Asks for the format of a row once for all rows with the same columns and types."""

    def __init__(self, formats: Formats) -> None:
        self.formats = formats
        self.known: dict[tuple[Any, ...], Format | None] = {}

    def __call__(self, values: Values) -> Format | None:
        key = (*values, *map(type, values.values()))
        if key in self.known:
            return self.known[key]
        found = self.formats(values)
        if len(self.known) < MOST_SHAPES:
            self.known[key] = found
        return found


def _always(found: Format) -> Formats:
    return lambda values: found


def _detected(values: Values, given: Given) -> Format | None:
    """The first format whose columns are there, and not all null, as they are where a table holds rows of several."""
    columns = tuple(values)
    while found := _first(DETECTORS, Shape(columns, values), given):
        if any(values.get(column) is not None for column in found.needs):
            return found
        columns = tuple(column for column in columns if column not in found.needs)
    return None


def _odd(given: Given, main: Format) -> Formats:
    """For rows whose columns tell no format for sure. One that lacks a column has that of most rows, which says so."""
    def format_of(values: Values) -> Format | None:
        held = tuple(column for column, value in values.items() if value is not None)
        if any(column in held for column in main.needs):
            return main
        return _first(ALONE, Shape(held, values), given) or (main if any(c in values for c in main.needs) else None)

    return format_of


def _first(detectors: Iterable[Detector], shape: Shape, given: Given) -> Format | None:
    return next((found for detector in detectors if (found := detector(shape, given))), None)


def _liked(head: Table) -> frozenset[str]:
    """Columns named like a judgement whose values mostly say yes or no, so that an odd one is told with its line."""
    liked = set()
    for column in head.columns:
        if column.lower() in LIKED:
            said = [is_liked(value) is not None for row in head.rows
                    if (value := row.values.get(column)) not in (None, "")]
            if 2 * sum(said) > len(said):
                liked.add(column)
    return frozenset(liked)


# --- the formats of a file -------------------------------------------------------------------------------------------


def _count(parts: Parts, found: Format, origin: Origin) -> None:
    part = parts.get(found.name)
    if part is None:
        part = parts[found.name] = Part(found, origin)
    elif len(found.columns) > len(part.format.columns):
        part.format = found         # the row with the most columns tells best how all are read
    part.rows += 1


def _parts_of(head: Table, formats: Formats) -> Parts:
    parts: Parts = {}
    for row in head.rows:
        if found := formats(row.values):
            _count(parts, found, Origin(row.file or head.file, row.line))
    return parts


def _split(parts: Parts, file: str) -> str:
    """`1,200 rows as chats (…); 300 rows, the first at line 17, as prompt and completion (…)`."""
    most, *others = sorted(parts.values(), key=lambda part: -part.rows)
    said = [f"{most.rows:,} {'row' if most.rows == 1 else 'rows'} as {most.format.name} ({most.format.how})"]
    for part in others:
        where = f"line {part.first.line}" if part.first.file == file else str(part.first)
        rows = f"1 row, at {where}," if part.rows == 1 else f"{part.rows:,} rows, the first at {where},"
        said.append(f"{rows} as {part.format.name} ({part.format.how})")
    return "; ".join(said)


def _takes(kind: type[Any] | None, found: Format) -> bool:
    return kind is None or found.kind is kind or (found.kind is Ranked and kind is Preference)


def _refuse_other_kinds(head: Table, kind: type[Any], parts: Parts) -> None:
    others = [part for part in parts.values() if not _takes(kind, part.format)]
    if not others:
        return
    if len(others) < len(parts):
        raise UserError(f"{head.file} mixes rows that this objective learns from with others: "
                        f"{_split(parts, head.file)}.", wanted=f"{KINDS[kind].what} alone",
                        fix="complete the others, or put them into a file of their own")
    found = KINDS[max(others, key=lambda part: part.rows).format.kind]
    if kind is Conversation:
        raise _nothing_to_learn(head, found)
    raise _no_rows_of(head, kind, found.what, found.objective)


def _nothing_to_learn(head: Table, found: Kind) -> UserError:
    instead = f"set objective={found.objective}, or " if found.objective else ""
    return UserError(f"{head.file} holds {found.what}, which this objective does not learn from.",
                     fix=f"{instead}give data.prompt and data.answer to take one column as the answer")


def _no_rows_of(head: Table, kind: type[Any], what: str = "", objective: str = "") -> UserError:
    return UserError(f"{head.file}: its rows are no {KINDS[kind].what}{f'; they are {what}' if what else ''} (columns: "
                     f"{', '.join(head.columns)}).", wanted=KINDS[kind].wanted,
                     fix=f"set objective={objective}" if objective else "rename the columns")


def _by_templates(head: Table, given: Given, answer: str, kind: type[Any] | None) -> Format:
    if kind not in (None, Conversation):
        raise UserError(f"data.answer is given, but this objective learns from {KINDS[kind].what}, whose columns have "
                        "fixed names.", wanted=KINDS[kind].wanted, fix="leave data.answer out")
    if given.prompt is None:
        raise _lacking(head, "answer", "prompt")
    return templates(given.prompt, Template("data.answer", answer, head), given)


def _lacking(head: Table, has: str, lacks: str) -> UserError:
    return UserError(f"data.{has} is given and data.{lacks} is not.", wanted="both templates, or neither",
                     fix=f"give data.{lacks} too; {head.file} has the columns: {', '.join(head.columns)}")


def _rest(head: Table, detected: Formats) -> Table:
    """The rows whose columns tell no format for sure."""
    rows = [row for row in head.rows if detected(row.values) is None]
    return Table(head.file, head.kind, rows, list(dict.fromkeys(c for row in rows for c in row.values)), [])


def _unsure(head: Table, given: Given, kind: type[Any] | None) -> tuple[Format, Formats, tuple[str, str] | None]:
    """For rows whose columns tell nothing for sure: a prompt or a text alone, or a guess at templates."""
    suggested = suggest(head)
    alone = _first(ALONE, Shape(tuple(head.columns), head.rows[0].values), given)
    if kind is None and suggested and not given.prompt and (alone is None or are_answers(head, suggested[1])):
        asked, answered = Template("data.prompt", suggested[0], head), Template("data.answer", suggested[1], head)
        found = templates(asked, answered, given, "a guess (data.prompt and data.answer correct it): ")
        return found, _always(found), suggested
    if given.prompt and kind is Conversation:
        raise _lacking(head, "prompt", "answer")
    if alone and _takes(kind, alone):
        return alone, lambda values: _first(ALONE, Shape(tuple(values), values), given), None
    if kind is Conversation and alone and alone.kind is Text and not suggested:
        raise _nothing_to_learn(head, KINDS[Text])
    if kind in (None, Conversation):
        raise _unrecognised(head, suggested)
    raise _no_rows_of(head, kind)


def _unrecognised(head: Table, suggested: tuple[str, str] | None) -> UserError:
    fix = ("say how a row becomes a question and its answer: " +
           " ".join(f"data.{key}='{text}'" for key, text in zip(("prompt", "answer"), suggested, strict=True))
           if suggested else "rename the columns: prompt for the question, completion for the answer")
    return UserError(f"{head.file}: no known row format in the columns {', '.join(head.columns)}.",
                     wanted=KINDS[Conversation].wanted, fix=fix)
