"""Duplicates, contradictions, leaks, tasks, and the split: decided by content, exact, and never across."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from data_rows import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.clean import asked, conflicts, drop_duplicates
from tuneloop.data.split import draw, largest_remainder, split, without_leaks
from tuneloop.data.task import decide, spelling_warnings, with_clean_label
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Origin

ROWS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abc")), min_size=40, max_size=80, unique=True).map(
    lambda pairs: [chat(f"prompt {p}", a, line) for line, (p, a) in enumerate(pairs, 1)])


def unique(count: int, labels: str = "ab") -> list[Conversation]:
    return [chat(f"prompt {i}", labels[i % len(labels)], i) for i in range(count)]


def test_duplicates_and_conflicts() -> None:
    rows = [chat("p", "a", 1), chat("p", "b", 2), chat("q", "a", 3), chat("p", "a", 4), chat("p", "a", 5)]
    kept, removed = drop_duplicates(rows)
    assert [r.origin.line for r in kept] == [1, 2, 3]
    assert [o.line for o in removed] == [4, 5]
    assert [[o.line for o in group] for group in conflicts(kept)] == [[1, 2]]


@given(ROWS, st.integers(0, 9), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_prompt_never_crosses_and_the_order_of_rows_does_not_matter(
        rows: list[Conversation], seed: int, labels: bool, shuffle: random.Random) -> None:
    parts = split(rows, 0.1, 0.2, seed=seed, labels=labels)
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    prompts = [{asked(row) for row in part} for part in named.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert sorted(r.origin.line for part in named.values() for r in part) == [r.origin.line for r in rows]
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    again = split(shuffled, 0.1, 0.2, seed=seed, labels=labels)
    assert set(again.test) == set(parts.test)
    assert set(again.validation) == set(parts.validation)


@given(st.integers(20, 200), st.integers(1, 8), st.integers(1, 8), st.sampled_from(["a", "ab", "aab", "aaaaaab"]))
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_and_stratified_for_unique_prompts(n: int, validation: int, test: int, labels: str) -> None:
    rows = unique(n, labels)
    parts = split(rows, validation, test, seed=1, labels=True)
    assert (len(parts.validation), len(parts.test), len(parts.train)) == (validation, test, n - validation - test)
    everywhere = Counter(r.answer for r in rows)
    assert all(abs(Counter(r.answer for r in parts.test)[a] - test * everywhere[a] / n) < 1 for a in everywhere)


def test_shares_are_rounded_and_the_seed_matters() -> None:
    rows = unique(200)
    parts = split(rows, 0.1, 0.2, seed=1, labels=True)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (140, 20, 40)
    assert parts.test != split(rows, 0.1, 0.2, seed=2, labels=True).test
    assert split(rows, 0, 0, seed=1, labels=False).train == rows


@pytest.mark.parametrize(("validation", "test", "said"), [
    (0.5, 0.5, "leaves nothing to train on"), (0, 300, "asks for 300 rows; there are 200"), (0, 1.5, "a whole number"),
])
def test_splits_that_cannot_be(validation: float, test: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split(unique(200), validation, test, seed=1, labels=False)


def test_few_prompts_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match="share the same few prompts"):
        split([chat("p", str(i), i) for i in range(20)], 0, 0.2, seed=1, labels=False)


def test_draws_are_nested() -> None:
    rows = unique(100)
    assert draw(rows, 10, seed=3, labels=True) < draw(rows, 20, seed=3, labels=True)
    assert draw(rows, 1000, seed=3, labels=True) == set(rows)


def test_largest_remainder_by_hand() -> None:
    assert largest_remainder({"a": 47, "b": 16, "c": 16, "d": 12, "e": 6, "f": 3}, 10) == {
        "a": 5, "b": 2, "c": 2, "d": 1, "e": 0, "f": 0}      # floors add up to 7; remainders .7 .6 .6 .2 .6 .3


def test_leaks_are_prompts_whatever_their_answer_or_loss() -> None:
    turns = Message("user", "x"), Message("assistant", "y", train=False), Message("user", "z")
    train = [chat("p", "a"), chat("q", "a"), Conversation((*turns, Message("assistant", "b")), Origin("t", 3))]
    other = turns[0], Message("assistant", "y"), turns[2], Message("assistant", "c")
    kept, leaked = without_leaks(train, [chat("p", "b"), Conversation(other, Origin("v", 1))])
    assert (kept, leaked) == ([train[1]], [train[0], train[2]])


def test_task_is_found_from_the_answers() -> None:
    assert decide(unique(10), "auto") == "labels"
    assert decide(unique(9), "auto") == "open"                                      # fewer than 5 rows per answer
    assert decide([chat(str(i), "x" * 81 if i % 2 else "y") for i in range(20)], "auto") == "open"
    assert decide([chat(str(i), "two\nlines" if i % 2 else "y") for i in range(20)], "auto") == "open"
    assert decide(unique(9), "labels") == "labels"
    assert decide(unique(100), "open") == "open"


def test_chats_with_several_answers_to_learn_are_open() -> None:
    def two(first_trains: bool) -> list[Conversation]:
        return [Conversation((Message("user", "x"), Message("assistant", "a", first_trains), *row.messages), row.origin)
                for row in unique(20)]
    assert (decide(two(True), "auto"), decide(two(False), "auto")) == ("open", "labels")


def test_one_class_teaches_nothing() -> None:
    with pytest.raises(UserError, match="every answer is 'positive': nothing to learn"):
        decide([chat(str(i), "positive " if i % 2 else "positive") for i in range(20)], "auto")


def test_spellings_of_labels() -> None:
    rows = [with_clean_label(chat(str(line), answer, line))
            for line, answer in enumerate(("Good ", "good", " good", "go od", "bad"), 1)]
    assert [r.answer for r in rows] == ["Good", "good", "good", "go od", "bad"]
    first, second = spelling_warnings(rows)
    assert first.startswith('the label "Good" (line 1) differs from "good" only in case')
    assert second.startswith('the label "go od" (line 4)')
