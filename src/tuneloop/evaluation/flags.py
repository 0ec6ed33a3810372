"""Rows that the user says are out of distribution, by a column of their file."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Sample

YES = ("1", "true", "yes", "ood")
NO = ("0", "false", "no", "")
RULE = (f"evaluation.out_of_distribution wants {', '.join(YES[:-1])} or {YES[-1]} for test rows out of distribution, "
        f"and {', '.join(NO[:-1])} or nothing for the others;")


def flags_of(rows: Sequence[Sample], values: Sequence[object], column: str) -> list[bool]:
    """Whether each row is flagged; case, and the spaces around a word, do not matter.

    Raises a UserError that names every row with another word.
    """
    said = [_word(value) for value in values]
    raise_all(flaw_errors([(row.origin, RowError(f"the {column} is {_shown(value)}", RULE))
                           for row, value, word in zip(rows, values, said, strict=True) if word not in YES + NO]))
    return [word in YES for word in said]


def require_both(flags: Sequence[bool], fix: str = "") -> None:
    """Raise a UserError where all rows are flagged, or none: then there is nothing to compare."""
    if len(set(flags)) < 2:
        raise UserError(f"{'All' if any(flags) else 'None'} of the {len(flags):,} test rows are flagged as out of "
                        "distribution, so there is nothing to compare.",
                        wanted="some rows with the flag, some without", fix=fix)


def _word(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():     # a table with gaps holds its ones as 1.0
        value = int(value)
    return str(value).strip().lower()


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
