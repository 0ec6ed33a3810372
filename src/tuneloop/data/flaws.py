"""What is wrong with rows, told once per kind of fault with the line numbers of all rows that have it."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.errors import UserError
from tuneloop.types import Origin

SHOWN_LINES = 10
SHOWN_KINDS = 10


class RowError(Exception):
    """Why one row cannot be used: `what` is wrong, and the `rule` it breaks; "mend line N" is put after the rule."""

    def __init__(self, what: str, rule: str) -> None:
        self.what, self.rule = what, rule
        super().__init__(what)


def listed(lines: Sequence[int]) -> str:
    """`311, 540, 602`, cut after a few."""
    return ", ".join(map(str, lines[:SHOWN_LINES])) + (", …" if len(lines) > SHOWN_LINES else "")


def and_more(lines: Sequence[int]) -> str:
    """` (3 more: 311, 540, 602)` for the lines after the first; nothing when there are none."""
    return f" ({len(lines) - 1} more: {listed(lines[1:])})" if len(lines) > 1 else ""


def flaw_errors(flaws: Sequence[tuple[Origin, RowError]]) -> list[UserError]:
    """One error per file and kind of flaw, each with all its lines, in the order in which they first occur."""
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for origin, flaw in flaws:
        kinds.setdefault((origin.file, flaw.what, flaw.rule), []).append(origin.line)
    errors = [UserError(f"{file} line {lines[0]}: {what}. {rule} mend line {lines[0]}{and_more(lines)}.")
              for (file, what, rule), lines in list(kinds.items())[:SHOWN_KINDS]]
    if len(kinds) > SHOWN_KINDS:
        errors.append(UserError(f"… and {len(kinds) - SHOWN_KINDS} further kinds of problems.",
                                fix="mend these first; the others will be shown then"))
    return errors
