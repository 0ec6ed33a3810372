"""Splits by group, by time and along near-duplicates; without them, splits as they always were."""

from __future__ import annotations

import random

import pytest
from data_rows import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.near.rows import alike
from tuneloop.data.split import Parts, draw, split
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Origin

ROWS = [chat(f"prompt {i}", "ab"[i % 2], i) for i in range(200)]


def lines(rows: list[Conversation]) -> list[int]:
    return [row.origin.line for row in rows]


def sides(parts: Parts[Conversation]) -> dict[Origin, str]:
    return {row.origin: part for part in ("train", "validation", "test") for row in getattr(parts, part)}


def test_splits_are_those_of_the_first_version() -> None:
    """Recorded before groups, times and clusters came: the same seeds hold out the same rows for ever."""
    few = [chat(f"prompt {i % 30}", "ab"[i % 2], i) for i in range(40)]
    parts = split(few, 0.1, 0.2, seed=3, labels=True)
    assert (lines(parts.validation), lines(parts.test)) == ([7, 14, 24, 37], [11, 12, 17, 18, 20, 21, 25, 28])
    again = split(few, 0.1, 0.2, seed=3, labels=True, together=[{}])
    assert again == parts
    alone = {row.origin: row.origin.line % 30 for row in few}       # what shares a prompt is together anyway
    assert split(few, 0.1, 0.2, seed=3, labels=True, together=[alone]) == parts


def test_a_group_never_crosses() -> None:
    customers = {row.origin: row.origin.line % 23 for row in ROWS}
    parts = split(ROWS, 0.1, 0.2, seed=1, labels=False, together=[customers])
    held = sides(parts)
    assert len({(customers[origin], part) for origin, part in held.items()}) == 23
    assert 30 <= len(parts.test) <= 40
    assert 12 <= len(parts.validation) <= 20
    assert len(held) == 200


def test_rows_without_a_key_are_on_their_own() -> None:
    keys = {row.origin: "" if row.origin.line % 2 else None for row in ROWS}
    assert split(ROWS, 0.1, 0.2, seed=1, labels=True, together=[keys]) == split(ROWS, 0.1, 0.2, seed=1, labels=True)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 15), st.integers(0, 40)), min_size=40, max_size=80),
       st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_prompts_groups_and_clusters_never_cross_and_order_does_not_matter(
        drawn: list[tuple[int, int, int]], seed: int, labels: bool, shuffle: random.Random) -> None:
    rows = [chat(f"prompt {prompt}", "ab"[line % 2], line) for line, (prompt, _, _) in enumerate(drawn)]
    groups = {row.origin: group or None for row, (_, group, _) in zip(rows, drawn, strict=True)}
    clusters = {row.origin: cluster for row, (_, _, cluster) in zip(rows, drawn, strict=True) if cluster < 8}
    held_out = draw(rows, 12, seed=seed, labels=labels, together=[groups, clusters])
    assert len(held_out) <= 12
    for keys in ({row.origin: row.messages[0].content for row in rows}, groups, clusters):
        by_key: dict[object, set[bool]] = {}
        for row in rows:
            if keys.get(row.origin) is not None:
                by_key.setdefault(keys[row.origin], set()).add(row in held_out)
        assert all(len(where) == 1 for where in by_key.values())
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert draw(shuffled, 12, seed=seed, labels=labels, together=[groups, clusters]) == held_out


def test_large_groups_are_drawn_no_sooner_than_small_ones() -> None:
    """Of a group of 20 rows and 180 single ones, 20 % are held out: the group in about that share of the seeds."""
    group = {row.origin: "one" for row in ROWS[:20]}
    held_out = sum(ROWS[0] in draw(ROWS, 40, seed=seed, labels=False, together=[group]) for seed in range(300))
    assert 30 <= held_out <= 75            # 54 expected: its place among 181 must be one of the first 21


def test_the_newest_rows_are_tested() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    times = {row.origin: float(row.origin.line) for row in ROWS}
    parts = split(shuffled, 0.1, 0.2, seed=1, labels=True, times=times)
    assert sorted(lines(parts.test)) == list(range(160, 200))
    assert sorted(lines(parts.validation)) == list(range(140, 160))


def test_nothing_is_learnt_from_that_is_newer_than_what_is_held_out() -> None:
    times = {row.origin: float(row.origin.line) for row in ROWS}
    old_and_new = {ROWS[0].origin: "customer", ROWS[199].origin: "customer"}
    parts = split(ROWS, 0, 5, seed=1, labels=False, times=times, together=[old_and_new])
    assert sorted(lines(parts.test)) == [0, 196, 197, 198, 199]
    large = {row.origin: "customer" for row in ROWS[190:198]}
    parts = split(ROWS, 0, 5, seed=1, labels=False, times=times, together=[large])
    assert sorted(lines(parts.test)) == [198, 199]         # the eight before them do not fit


def test_a_group_that_is_too_large_to_hold_out() -> None:
    with pytest.raises(UserError, match="share the same few prompts, groups or near-duplicates"):
        split(ROWS, 0, 0.2, seed=1, labels=False, together=[{row.origin: "all" for row in ROWS}])


def test_near_duplicates_never_cross() -> None:
    drawn = random.Random(0)
    texts = [" ".join("".join(drawn.choices("abcdefgh", k=6)) for _ in range(12)) for _ in range(60)]
    rows = [chat(f"{text}{end}", "yes", 3 * i + j) for i, text in enumerate(texts)
            for j, end in enumerate(["", "!", "?!"])]
    apart = sides(split(rows, 0.1, 0.2, seed=0, labels=False))
    together = sides(split(rows, 0.1, 0.2, seed=0, labels=False, together=[alike(rows)]))
    crossing = [sum(len({held[rows[3 * i + j].origin] for j in range(3)}) > 1 for i in range(60))
                for held in (apart, together)]
    assert crossing[0] > 20
    assert crossing[1] == 0
    assert list(together.values()).count("test") == 36
