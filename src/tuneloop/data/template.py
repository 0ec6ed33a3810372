"""Templates over the columns of a file, such as "Is this review positive?\\n\\n{text}", and a guess at them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

from tuneloop.data.flaws import RowError
from tuneloop.data.read import Table
from tuneloop.errors import UserError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
ANSWER_NAMES = ("label", "labels", "category", "class", "sentiment", "intent", "target", "answer", "output", "response",
                "completion", "reply", "summary", "final_decision")
PROMPT_NAMES = ("prompt", "question", "instruction", "text", "sentence", "review", "message", "document", "input")
METADATA = ("source", "url", "domain", "lang", "language", "title", "date", "timestamp", "split", "dump", "license",
            "licence", "file", "path", "repo")
LISTED_LABELS = 20
_IDENTIFIER = re.compile(r"^(id|key|index|idx|uid|uuid)$|_id$|ID$", re.ASCII)
MOST_LABELS = 100
LONGEST_LABEL = 80      # characters
ROWS_PER_LABEL = 5      # fewer rows per distinct answer than this on average, and answers are no labels


def as_text(row: dict[str, Any], column: str, *, optional: bool = False) -> str:
    """A cell as text: numbers and booleans as the file writes them, null as nothing. Raises RowError for the rest."""
    if column not in row:
        if optional:
            return ""
        raise RowError(f'"{column}" is missing', "Every row needs it;")
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise RowError(f'"{column}" holds {"an object" if isinstance(value, dict) else "a list"} and not a text',
                       "A column of a template is a text or a number;")
    return value if isinstance(value, str) else json.dumps(value)


def named(columns: Sequence[str]) -> str:
    """For a sentence: `the columns "text" and "title"`."""
    names = list(dict.fromkeys(f'"{column}"' for column in columns))
    return f"the column{'s' if len(names) > 1 else ''} {' and '.join(names)}"


class Template:
    """A text with `{column}` placeholders; `{{` and `}}` stand for braces. `name` is its key in the recipe."""

    def __init__(self, name: str, text: str, table: Table) -> None:
        self.pieces: list[tuple[str, str | None]] = []      # text before, column
        cursor, literal = 0, ""
        for token in _TOKEN.finditer(text):
            literal += text[cursor:token.start()]
            cursor = token.end()
            if token[0] in ("{{", "}}"):
                literal += token[0][0]
            elif token[1] is None:
                raise UserError(f"{name}: a lone '{token[0]}' at character {token.start() + 1} of {text!r}.",
                                wanted="{column}", fix=f"write {token[0] * 2} for the brace itself")
            else:
                self.pieces.append((literal, _column(name, token[1], table)))
                literal = ""
        self.pieces.append((literal + text[cursor:], None))
        if not self.columns:
            raise UserError(f"{name}: the template {text!r} names no column, so that it is the same for every row.",
                            wanted=f"{{column}} with one of: {', '.join(table.columns)}")

    @property
    def columns(self) -> list[str]:
        return [column for _, column in self.pieces if column is not None]

    def fill(self, row: dict[str, Any], *, needed: bool = False) -> str:
        """The text for one row. `needed`: a row in which every column of the template is empty is a RowError."""
        cells = [as_text(row, column) for column in self.columns]
        if needed and not any(cell.strip() for cell in cells):
            raise RowError(f"nothing is in {named(self.columns)}", "Every row needs something to answer;")
        return "".join(before + cell for (before, _), cell in zip(self.pieces, [*cells, ""], strict=True))


def _column(name: str, column: str, table: Table) -> str:
    if column in table.columns:
        return column
    near = difflib.get_close_matches(column, table.columns, n=1)
    raise UserError(f'{name} names the column "{column}", which {table.file} does not have.',
                    wanted=f"one of: {', '.join(table.columns)}",
                    fix=f'did you mean "{near[0]}"?' if near else "write {{ and }} for braces that are no placeholder")


def suggest(table: Table) -> tuple[str, str] | None:
    """Prompt and answer templates for a file of plain columns, or None if it has not two usable ones.

    The answer is a column named like one, else the one with the fewest different short values, else the second longest;
    the prompt is one named like it, else the longest. Few labels are listed in it, for a model cannot guess them.
    """
    usable = [c for c in table.columns if not re.search(r"[{}]", c) and not _IDENTIFIER.search(c)
              and not any(isinstance(row.values.get(c), dict | list) for row in table.rows)]
    cells = {column: [as_text(row.values, column, optional=True) for row in table.rows] for column in usable}
    longest = sorted((c for c in usable if any(cells[c])), key=lambda c: sum(map(len, cells[c])), reverse=True)
    if len(longest) < 2:
        return None
    answer = _answer_column(cells, longest)
    longest.remove(answer)
    text = (_by_name(PROMPT_NAMES, longest) + longest)[0]
    labels = sorted({cell.strip() for cell in cells[answer]} - {""})
    if not (are_labels(cells[answer]) and len(labels) <= LISTED_LABELS):
        return f"{{{text}}}", f"{{{answer}}}"
    choices = ", ".join(labels).replace("{", "{{").replace("}", "}}")
    return f"{{{text}}}\n\nAnswer with one of: {choices}.", f"{{{answer}}}"


def are_answers(table: Table, suggested: str) -> bool:
    """Whether the column of a suggested answer template is named like an answer, or holds labels."""
    column = suggested[1:-1]
    named = column.lower()
    return named in ANSWER_NAMES or (named not in METADATA and are_labels(
        [as_text(row.values, column, optional=True) for row in table.rows]))


def _answer_column(cells: dict[str, list[str]], longest: Sequence[str]) -> str:
    few = sorted((c for c in longest[1:] if are_labels(cells[c])), key=lambda c: len(set(cells[c])))
    rest = [c for c in longest if c not in _by_name(PROMPT_NAMES, longest)[:1]]
    return (_by_name(ANSWER_NAMES, longest) + few + rest[1:] + rest)[0]


def _by_name(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [column for name in names for column in columns if column.lower() == name]


def are_labels(answers: Sequence[str]) -> bool:
    """Whether answers look like labels: few different ones, short, each used several times on average."""
    distinct = {answer.strip() for answer in answers}
    return (1 < len(distinct) <= MOST_LABELS and len(answers) >= ROWS_PER_LABEL * len(distinct)
            and all(len(answer) <= LONGEST_LABEL and "\n" not in answer for answer in distinct))
