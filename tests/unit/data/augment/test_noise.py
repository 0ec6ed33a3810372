"""Noise: what changes, what never does, and that it is the same every time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.augment.noise import NEGATIONS, NOISES, casing, deletion, typos
from tuneloop.data.augment.untouched import change_words, fixed_parts

TEXT = "Could somebody please explain how returns normally work here"
FIXED = ["https://example.com/Order?id=Seven", "user@example.com", "{order_number}", "{{ customer }}", "`git push`",
         "<b>", "[ORDER ID]", "$12.50", "2024-05-01", "camelCase", "snake_case", "NATO", "config.yaml", "C:\\temp",
         "```\ncode is here\n```", "refund request"]


def edits(a: str, b: str) -> int:
    """Letters to insert, delete, replace or swap with their neighbour: Damerau and Levenshtein, restricted."""
    d = [[i + j if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i][j] = min(d[i][j], d[i - 2][j - 2] + 1)
    return d[-1][-1]


@pytest.mark.parametrize("seed", range(20))
def test_a_typo_is_one_slip_in_a_long_word(seed: int) -> None:
    old, new = TEXT.split(), typos(TEXT, 0.3, Random(seed)).split()
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert changed
    assert all(edits(a, b) == 1 and a[0] == b[0] and len(a) >= 4 for a, b in changed)


def test_the_rate_is_that_of_the_words() -> None:
    text = "lorem " * 2_000
    changed = sum(word != "lorem" for word in typos(text, 0.2, Random(1)).split())
    assert 340 <= changed <= 460        # 400, with more than three standard deviations (17.9) to each side
    assert 1_540 <= len(deletion(text, 0.2, Random(1)).split()) <= 1_660


@pytest.mark.parametrize("seed", range(20))
def test_deletion_keeps_order_negations_and_something(seed: int) -> None:
    text = "the parcel did not arrive and nobody answers"
    left = deletion(text, 0.5, Random(seed)).split()
    assert 0 < len(left) < len(text.split())
    assert {"not", "nobody"} <= set(left) & NEGATIONS
    rest = iter(text.split())
    assert all(word in rest for word in left)
    assert deletion("please", 0.5, Random(seed)) == "please"


def test_casing_is_of_the_whole_text() -> None:
    made = {casing("Where is order A17, NASA?", 0.1, Random(seed)) for seed in range(20)}
    assert made == {"where is order A17, NASA?", "WHERE IS ORDER A17, NASA?"}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("fixed", FIXED)
def test_what_is_no_ordinary_word_stays(noise: str, fixed: str) -> None:
    text = f"Please tell somebody about ({fixed}), because everything depends"
    made = [NOISES[noise](text, 0.5, Random(seed), ["refund request"]) for seed in range(20)]
    assert all(fixed in result for result in made)
    assert any(result != text for result in made)


@pytest.mark.parametrize("noise", NOISES)
def test_scripts_without_capitals_and_texts_without_words_are_left_alone(noise: str) -> None:
    for text in ("返品したいです 返品 方法", "كيف أعيد الطلب", "12 + 30 = ?", "", "A B C"):
        assert NOISES[noise](text, 0.5, Random(0), ()) == text


@given(st.text(st.sampled_from("ab cD.{}`<>[](1\n'-é一"), max_size=80), st.sampled_from(sorted(NOISES)),
       st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_the_same_seed_gives_the_same_text(text: str, noise: str, seed: int) -> None:
    assert NOISES[noise](text, 0.3, Random(seed), ()) == NOISES[noise](text, 0.3, Random(seed), ())
    assert change_words(text, (), lambda word: word) == text


def test_fixed_parts_are_what_a_paraphrase_must_keep() -> None:
    text = "Is a Refund Request {id} for $12.50 at example.com fine, John?"
    assert fixed_parts(text, ["refund request"]) == ["Refund Request", "{id}", "$12.50", "example.com"]


@pytest.mark.parametrize("text", ["." * 200_000 + "a", "`a" * 100_000, "{" * 200_000, "<a" * 100_000, "[a" * 100_000])
def test_long_monotonous_texts_end(text: str) -> None:
    assert len(typos(text, 0.1, Random(0))) >= len(text) - 1
