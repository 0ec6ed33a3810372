"""Where texts are cut: nothing is lost, and no cut is worse than it has to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.documents.cutting import CODE, PROSE, Cutter, cut_to, outermost, paragraphs, sentences

TEXT = st.text(st.sampled_from("ab .!\n\t-*|1)}é。\"'"), max_size=300)


@given(TEXT, st.integers(1, 50), st.sampled_from([PROSE, CODE]))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_no_part_is_too_long(text: str, size: int, cutters: tuple[Cutter, ...]) -> None:
    parts = list(cut_to(text, size, cutters))
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)


@pytest.mark.parametrize(("text", "parts"), [
    ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
    ("Dr. Who met J. Smith, e.g. yesterday. He left.", ["Dr. Who met J. Smith, e.g. yesterday. ", "He left."]),
    ('She said "no." Then she left.', ['She said "no." ', "Then she left."]),
    ("It costs 3.50 euros at example.com. done", ["It costs 3.50 euros at example.com. done"]),
    ("一。二。", ["一。", "二。"]),
])
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def test_paragraphs_keep_the_blank_lines_below_them() -> None:
    assert paragraphs("a\nb\n\n \n\nc\n") == ["a\nb\n\n \n\n", "c\n"]


def test_functions_stay_whole_with_their_decorators_and_blank_lines() -> None:
    first = "import os\n\n\n"
    function = "@cache\ndef f():\n    x = 1\n\n    return x\n\n\n"
    klass = "class A:\n    def g(self):\n        pass\n\n    def h(self):\n        pass\n"
    assert outermost(first + function + klass) == [first, function, klass]
    assert outermost(klass) == ["class A:\n    def g(self):\n        pass\n\n", "    def h(self):\n        pass\n"]


def test_a_closing_bracket_after_a_blank_line_does_not_begin_a_function() -> None:
    text = "f(\n    1,\n\n)\n\ng()\n"
    assert outermost(text) == ["f(\n    1,\n\n)\n\n", "g()\n"]


def test_words_are_cut_only_where_they_are_longer_than_a_part() -> None:
    assert list(cut_to("alpha beta gammagamma", 8, PROSE)) == ["alpha ", "beta ", "gammagam", "ma"]


@pytest.mark.parametrize("text", ["\n" * 300_000 + ")", "." * 300_000, "(\n" * 100_000, " \n" * 100_000,
                                  "a\n\n" * 50_000, " " * 300_000])
def test_long_monotonous_texts_end(text: str) -> None:
    for cutters in (PROSE, CODE):
        assert "".join(cut_to(text, 2_000, cutters)) == text


def test_ever_deeper_code_ends() -> None:
    text = "".join(" " * depth + "x\n\n" for depth in range(600))
    assert "".join(cut_to(text, 2_000, CODE)) == text
