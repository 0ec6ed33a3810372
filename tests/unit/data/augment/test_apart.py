"""Made-up rows never reach validation or test, and never train beside their held-out original."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.augment.apart import AUGMENTED_FROM, parent_of, split_originals
from tuneloop.data.split import Parts, split
from tuneloop.types import Conversation, Message, Origin


def row(question: str, line: int, digest: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", "yes")), Origin("rows.jsonl", line, digest))


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 2)), max_size=60), st.integers(0, 1_000),
       st.integers(12, 30))
@settings(max_examples=200, deadline=None)
def test_held_out_rows_are_original_and_no_relative_of_theirs_trains(made_from: list[tuple[int, int]], seed: int,
                                                                     count: int) -> None:
    originals = [row(f"question {i}", i, f"digest {i}") for i in range(count)]
    parents = {row(f"question {parent} again {copy}", 100 + n, f"made {n}"): f"digest {parent}"
               for n, (parent, copy) in enumerate(made_from)}       # some are of rows that are not there
    apart = split_originals([*originals, *parents], parents,
                            partial(split, validation=0.2, test=0.2, seed=seed, labels=False))
    parts = apart.parts
    assert parts.validation
    assert parts.test
    assert not {*parts.validation, *parts.test} & set(parents)
    held_out = {sample.origin.row for sample in (*parts.validation, *parts.test)}
    assert not held_out & {parents[sample] for sample in parts.train if sample in parents}
    assert sorted(sample.origin.line for sample in (*parts.train, *parts.validation, *parts.test, *apart.left_out)) == \
        sorted(sample.origin.line for sample in (*originals, *parents))


def test_the_split_of_the_originals_does_not_depend_on_what_was_made() -> None:
    originals = [row(f"question {i}", i, f"digest {i}") for i in range(20)]
    made = {row("question 3 again", 50, "made"): "digest 3"}
    cut = partial(split, validation=0.2, test=0.2, seed=1, labels=False)
    alone: Parts[Conversation] = cut(originals)
    assert split_originals([*originals, *made], made, cut).parts.test == alone.test


def test_the_parent_is_in_a_column() -> None:
    assert parent_of({"text": "a", AUGMENTED_FROM: "1f"}) == "1f"
    assert parent_of({"text": "a"}) == parent_of({"text": "a", AUGMENTED_FROM: None}) == ""
