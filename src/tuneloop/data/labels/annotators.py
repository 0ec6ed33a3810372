"""Where rows carry what several annotators said: a column for each, a list in one column, or a row for each of them."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuneloop.data.labels.agreement import Level
from tuneloop.data.template import LONGEST_LABEL, MOST_LABELS

Values = dict[str, Any]
Rating = tuple[str, str]        # who, and what they said

_PEOPLE = "annotations?|annotators?|raters?|coders?|judges?|workers?"
_COLUMN = re.compile(rf"(?P<stem>{_PEOPLE}|labels?|ratings?|votes?)(?:[ _.-]?\d+|[ _.-](?P<who>[^\W_]+))"
                     r"|(?P<person>[^\W_]+)[ _.-](?P<said>annotation|label|rating|vote)", re.IGNORECASE)
_NOBODY = re.compile(r"ids?|names?|texts?|counts?|type|list|final|gold|majority|true|chosen|rejected|confidence|score"
                     r"|gpt\d*|llm|model|auto", re.IGNORECASE)
_YES_OR_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?|true|false|yes|no", re.IGNORECASE)
_LISTS = ("annotations", "ratings", "votes", "labels", "annotator_labels", "annotator_annotations", "human_labels")
_NAMES = ("annotators", "annotator_ids", "anon_annotators", "raters", "rater_ids", "workers", "worker_ids")
_SAID = ("label", "annotation", "rating", "value", "vote")
_WHO = re.compile(r"(?:annotator|worker|rater|coder|judge|labell?er)(?:[ _-]?(?:id|name))?", re.IGNORECASE)
_ORDERED = re.compile(r"rating|score|stars|grade|likert", re.IGNORECASE)
OVERLAP = 0.5           # of the values of two columns, before they are taken for annotators of the same thing
FEWEST_RATED = 0.5      # share of rows with two ratings or more, in lists


@dataclass(frozen=True)
class Annotated:
    """How a table carries ratings: in `columns`, one for each annotator; as lists in one column; or each row is one
    rating of its prompt. `who` is the column that names the annotators of a list or of a row.
    """

    how: Literal["columns", "list", "rows"]
    columns: tuple[str, ...] = ()
    who: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the columns are named like a scale."""
        return any(map(_ORDERED.search, self.columns))

    def ratings(self, values: Values, answer: str) -> list[Rating]:
        """Those of one row; `answer` is what the row answers."""
        if self.how == "columns":
            return [(column, text) for column in self.columns if (text := _text(values.get(column)))]
        if self.how == "list":
            return _listed(values.get(self.columns[0]), values.get(self.who))
        name = _text(values.get(self.who))
        return [(name, answer.strip())] if name else []


def annotated(rows: Sequence[Values]) -> Annotated | None:
    """How these rows carry what several annotators said; None where they do not."""
    if not rows:
        return None
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return _in_columns(rows, columns) or _in_a_list(rows, columns) or _in_rows(rows, columns)


def level_of(found: Annotated, values: Sequence[str]) -> tuple[Level, dict[str, float]]:
    """How values are compared, and the number that stands for each: of a scale its own, else any."""
    different = sorted(set(values))
    try:
        numbers = {value: float(value) for value in different}
    except ValueError:
        numbers = {}
    if not (found.ordered and numbers and len(different) > 2):
        return "nominal", {value: float(code) for code, value in enumerate(different)}
    return ("ordinal" if all(number.is_integer() for number in numbers.values()) else "interval"), numbers


# --- a column for each -----------------------------------------------------------------------------------------------


def _in_columns(rows: Sequence[Values], columns: Sequence[str]) -> Annotated | None:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for column in columns:
        match = _COLUMN.fullmatch(column)
        if match and not _NOBODY.fullmatch(match["who"] or match["person"] or ""):
            alike[(match["stem"] or match["said"]).lower().rstrip("s")].append(column)
    for stem, named in alike.items():
        said = {column: _short_values(rows, column) for column in named}
        chosen = tuple(column for column in named if any(
            _overlap(said[column], said[other]) >= OVERLAP for other in named if other != column))
        if len(chosen) > 1 and not _are_aspects(stem, chosen, set[str]().union(*(said[column] for column in chosen))):
            return Annotated("columns", chosen)
    return None


def _are_aspects(stem: str, columns: Sequence[str], values: set[str]) -> bool:
    """Whether columns judge several things, such as `label_toxic` and `label_insult`, rather than one thing each."""
    return (not re.fullmatch(_PEOPLE, stem) and all(map(_YES_OR_NUMBER.fullmatch, values))
            and not all(re.search(r"\d$|[ _.-][a-z]$", column, re.IGNORECASE) for column in columns))


def _short_values(rows: Sequence[Values], column: str) -> set[str]:
    """The different values of a column of labels or numbers; none where it holds anything else."""
    found = {_text(row.get(column)) for row in rows} - {""}
    is_short = len(found) <= MOST_LABELS and all(len(value) <= LONGEST_LABEL and "\n" not in value for value in found)
    return found if is_short else set()


def _overlap(a: set[str], b: set[str]) -> float:
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


# --- a list in one column --------------------------------------------------------------------------------------------


def _in_a_list(rows: Sequence[Values], columns: Sequence[str]) -> Annotated | None:
    who = next((column for column in columns if column.lower() in _NAMES), "")
    for column in (column for column in columns if column.lower() in _LISTS):
        found = Annotated("list", (column,), who)
        ratings = [found.ratings(row, "") for row in rows]
        different = {value for row in ratings for _, value in row}
        if (sum(len(row) > 1 for row in ratings) >= FEWEST_RATED * len(rows) and len(different) <= MOST_LABELS
                and all(len(value) <= LONGEST_LABEL for value in different)):
            return found
    return None


def _listed(value: Any, names: Any) -> list[Rating]:
    """Ratings of a list, or of the text of one; without names of people by their place in the list."""
    value, names = _parsed(value), _parsed(names)
    if not isinstance(value, list):
        return []
    said = [_named(item) if isinstance(item, dict) else ("", _label(item)) for item in value]
    if isinstance(names, list) and len(names) == len(said):
        said = [(_text(name), label) for name, (_, label) in zip(names, said, strict=True)]
    return [(name or str(place), label) for place, (name, label) in enumerate(said, 1) if label]


def _named(item: dict[str, Any]) -> Rating:
    who = next((_text(value) for key, value in item.items() if _WHO.fullmatch(key)), "")
    return who, next((_label(item[key]) for key in _SAID if key in item), "")


def _label(item: Any) -> str:
    """A label, or several as one."""
    return " + ".join(sorted(map(_text, item))) if isinstance(item, list) else _text(item)


def _parsed(value: Any) -> Any:
    """The list that a text spells, in JSON or in Python; else the value as it is."""
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


# --- a row for each --------------------------------------------------------------------------------------------------


def _in_rows(rows: Sequence[Values], columns: Sequence[str]) -> Annotated | None:
    who = next((column for column in columns if _WHO.fullmatch(column)), None)
    if who is None or len({_text(row.get(who)) for row in rows} - {""}) < 2:
        return None
    return Annotated("rows", who=who)


def _text(value: Any) -> str:
    """A label as text; nothing for null and for what is no label."""
    if isinstance(value, str):
        return value.strip()
    return "" if value is None or isinstance(value, dict | list) else json.dumps(value)
