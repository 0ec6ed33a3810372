"""What checks keep of many rows: a sample, and records that stay together."""

from __future__ import annotations

import numpy as np

from tuneloop.data.checks._keyed import KeyedRows, groups_of, keys_of
from tuneloop.data.checks._sample import RowSample
from tuneloop.types import Origin


def drawn(size: int, *chunks: int) -> RowSample[int]:
    sample: RowSample[int] = RowSample(size)
    for count in chunks:
        start = sample.rows
        sample.add(count, lambda at, start=start: start + at)
    return sample


def test_few_rows_are_all_kept_in_their_order() -> None:
    assert drawn(10, 4, 3).kept == list(range(7))
    assert drawn(10, 4, 3).rows == 7


def test_a_sample_does_not_depend_on_chunks_and_is_spread_evenly() -> None:
    sample = drawn(500, 10_000)
    assert sample.kept == drawn(500, *[1000] * 10).kept
    assert len(sample.kept) == 500
    assert sample.kept == sorted(sample.kept)
    assert abs(np.mean(sample.kept) - 5000) < 400
    assert min(np.histogram(sample.kept, 10, (0, 10_000))[0]) > 25


def test_the_first_that_were_drawn_are_a_smaller_sample() -> None:
    assert sorted(drawn(500, 10_000).drawn[:50]) == drawn(50, 10_000).kept


def test_rows_with_one_key_stay_together() -> None:
    kept = KeyedRows([("said", "u8")], most_rows=1000)
    keys = keys_of(map(str, range(2000)))
    for start in range(0, 4000, 500):
        some = np.arange(start, start + 500) % 2000
        kept.add([Origin("a.csv", int(number)) for number in some], keys[some], said=some)
    assert kept.halvings >= 2
    assert kept.seen == 4000
    rows = kept.rows
    assert 0 < len(rows) <= 1000
    assert set(np.unique(rows["key"], return_counts=True)[1].tolist()) == {2}
    assert kept.told("prompts") == f" among 1 in {2 ** kept.halvings} prompts"
    assert abs(len(rows) / 4000 - 0.5 ** kept.halvings) < 0.05
    assert (rows["row"] % 2000 == rows["said"]).all()


def test_all_rows_are_kept_while_they_fit() -> None:
    kept = KeyedRows()
    kept.add([Origin("a.csv", 3), Origin("b.csv", 4)], keys_of(["x", "y"]))
    assert kept.told("prompts") == ""
    assert str(kept.places(kept.rows)) == "a.csv line 3; b.csv line 4"
    assert len(KeyedRows().rows) == 0


def test_groups() -> None:
    order, starts = groups_of(np.array([5, 2, 5, 2, 9], np.uint64))
    assert order.tolist() == [1, 3, 0, 2, 4]
    assert starts.tolist() == [0, 2, 4]
    assert groups_of(np.array([], np.uint64))[1].tolist() == []
