"""When rows were made: dates and numbers of a column as numbers that grow with time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import product
from typing import Any

from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin

DAYS = ("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%Y-%m",
        "%a, %d %b %Y")
DAY_FIRST, MONTH_FIRST = ("%d/%m/%Y", "%d-%m-%Y"), ("%m/%d/%Y", "%m-%d-%Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %H:%M:%S %z")
NEITHER = "A split by time must know of every row when it was made: a date such as 2026-05-31, or a number;"


def times(values: Mapping[Origin, Any], column: str) -> dict[Origin, float]:
    """Numbers as they are; dates and moments in seconds since 1970, those without a zone taken for UTC.

    Understood are ISO 8601 and usual ways to write a day, with or without a time. Raises UserError that names every row
    with something else, and one where day and month cannot be told apart.
    """
    numbers = {origin: _number(value) for origin, value in values.items()}
    day_first, month_first = (_read(values, [*DAYS, *days]) for days in (DAY_FIRST, MONTH_FIRST))
    chosen = min(numbers, day_first, month_first, key=lambda read: list(read.values()).count(None))
    raise_all(flaw_errors([(origin, RowError(f"the {column} is neither a date nor a number", NEITHER))
                           for origin, number in chosen.items() if number is None]))
    if chosen is day_first and day_first != month_first and None not in month_first.values():
        origin = next(origin for origin in values if day_first[origin] != month_first[origin])
        raise UserError(f"{origin}: {values[origin]} may begin with the day or with the month, here and in all rows of "
                        f"the column {column}.", wanted="dates that can be read in one way", fix="write 2026-05-31")
    return {origin: number for origin, number in chosen.items() if number is not None}


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read(values: Mapping[Origin, Any], days: Sequence[str]) -> dict[Origin, float | None]:
    forms = [day + clock for day, clock in product(days, CLOCKS)]
    return {origin: _seconds(value, forms) for origin, value in values.items()}


def _seconds(value: Any, forms: list[str]) -> float | None:
    if isinstance(value, str):
        value = _moment(value.strip(), forms)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _moment(text: str, forms: list[str]) -> datetime | None:
    """Moves the form of this text to the front: the next text is likely to have it too."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in forms:
        try:
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        forms.remove(form)
        forms.insert(0, form)
        return moment
    return None
