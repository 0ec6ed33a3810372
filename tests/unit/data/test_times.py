"""Columns of dates and numbers as numbers, and the rows where they cannot be read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from tuneloop.data.times import times
from tuneloop.errors import UserError
from tuneloop.types import Origin

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC).timestamp()
MIDNIGHT = NOON - 12 * 3600


def read(*values: Any) -> list[float]:
    return list(times({Origin("log.csv", line): value for line, value in enumerate(values, 2)}, "made").values())


@pytest.mark.parametrize(("value", "seconds"), [
    ("2024-05-31", MIDNIGHT), ("2024-05-31T12:00:00Z", NOON), ("2024-05-31 14:00+02:00", NOON),
    ("31.05.2024", MIDNIGHT), ("31.05.2024 12:00", NOON), ("2024/05/31", MIDNIGHT), ("31 May 2024", MIDNIGHT),
    ("May 31, 2024 12:00:00", NOON), ("31-May-2024", MIDNIGHT), ("Fri, 31 May 2024 14:00:00 +0200", NOON),
    ("31/05/2024 12:00", NOON), ("05/31/2024 12:00 PM", NOON), (date(2024, 5, 31), MIDNIGHT),
    (datetime(2024, 5, 31, 12), NOON), (datetime(2024, 5, 31, 14, tzinfo=timezone(timedelta(hours=2))), NOON),
])
def test_ways_to_write_a_moment(value: Any, seconds: float) -> None:
    assert read(value, "1970-01-02") == [seconds, 86400]


def test_numbers_stay_numbers() -> None:
    assert read(3, "17", 2.5) == [3, 17, 2.5]
    assert read("20240531", "20240601") == [20240531, 20240601]


def test_the_column_tells_whether_the_day_comes_first() -> None:
    assert read("01/02/2024", "31/05/2024") == [datetime(2024, 2, 1, tzinfo=UTC).timestamp(), MIDNIGHT]
    assert read("01/02/2024", "05/31/2024") == [datetime(2024, 1, 2, tzinfo=UTC).timestamp(), MIDNIGHT]
    assert read("03/03/2024") == [datetime(2024, 3, 3, tzinfo=UTC).timestamp()]


def test_dates_that_can_be_read_in_two_ways_are_refused() -> None:
    with pytest.raises(UserError, match=r"log.csv line 3: 04/05/2024 may begin with the day or with the month"):
        read("03/03/2024", "04/05/2024")


@pytest.mark.parametrize(("values", "named"), [
    (("2024-05-31", "", "2024-06-01", None, "soon"),
     r"line 3: the made is neither a date nor a number.* \(2 more: 5, 6\)"),
    ((1, float("nan"), 2), "line 3"), (("2024-05-31", True), "line 3"), ((5, "2024-05-31", 6), "line 3"),
])
def test_rows_without_a_moment_are_named(values: tuple[Any, ...], named: str) -> None:
    with pytest.raises(UserError, match=named):
        read(*values)
