"""Words in common, against rouge-score and by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.augment.overlap import Known, content_words, numbers, rouge_l, words

LETTERS = st.lists(st.sampled_from("abcde"), max_size=12)


@pytest.mark.parametrize(("a", "b", "score"), [
    ("the cat sat", "the cat sat", 1.0), ("a b c d", "a c d e", 0.75), ("a b", "c d", 0.0), ("", "", 0.0),
    ("Stop, now!", "stop now", 1.0), ("一二三", "一三", 0.8),
])
def test_rouge_l_by_hand(a: str, b: str, score: float) -> None:
    assert rouge_l(words(a), words(b)) == pytest.approx(score)


@pytest.mark.slow
def test_rouge_l_against_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = random.Random(0)
    for _ in range(300):
        a, b = (" ".join(rng.choices(["the", "a", "cat", "dog", "sat", "on", "7"], k=rng.randint(1, 15)))
                for _ in range(2))
        assert rouge_l(words(a), words(b)) == pytest.approx(scorer.score(a, b)["rougeL"].fmeasure)


@given(st.lists(LETTERS, max_size=5), LETTERS, st.sampled_from([0.3, 0.7, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_the_quick_bound_never_hides_a_text(known: list[list[str]], new: list[str], least: float) -> None:
    expected = any(rouge_l(text, new) >= least for text in known)
    assert Known(map(" ".join, known)).has_like(" ".join(new), least) == expected


def test_most_like_names_the_first_of_equals() -> None:
    assert Known(["pay by card", "send it back", "send it back"]).most_like("please send it back") == 1


def test_numbers_are_the_same_however_they_are_grouped() -> None:
    assert numbers("It is 1,000.50 or 1000.50 on 14 May, 3,5 % and 007.") == {"1000.50", "14", "3.5", "007"}


def test_content_words_leave_out_what_says_nothing() -> None:
    assert content_words("The refund is paid within 14 days, and not by cheque.") == {
        "refund", "paid", "within", "14", "days", "cheque"}
