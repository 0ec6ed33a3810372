"""Which spellings are one label, and which slips are told from other labels."""

from __future__ import annotations

import pytest

from tuneloop.data.labels.spelling import folded, one_slip, slips, usual_spellings


@pytest.mark.parametrize(("spelling", "label"), [
    ("Positive", "positive"), (" positive ", "positive"), ("positive.", "positive"), ('"Positive!"', "positive"),
    ("not_spam", "notspam"), ("Not-Spam", "notspam"), ("not spam", "notspam"), ("(b)", "b"), ("ﬁne", "fine"),
    ("Straße", "strasse")])
def test_case_spaces_and_signs_around_make_no_other_label(spelling: str, label: str) -> None:
    assert folded(spelling) == label


@pytest.mark.parametrize(("a", "b"), [
    ("A+", "A-"), ("1", "-1"), ("1.0", "10"), ("C", "C#"), (":)", ":("), ("<5", ">5"), ("1-2", "12"), ("yes", "no")])
def test_signs_that_tell_labels_apart_stay(a: str, b: str) -> None:
    assert folded(a) != folded(b)


def test_the_most_frequent_spelling_is_the_usual_one() -> None:
    counts = {"positive": 8, "Positive": 2, "positive ": 1, "negative": 1, "Negative.": 5, "neutral": 3}
    assert usual_spellings(counts) == {"Positive": "positive", "positive ": "positive", "negative": "Negative."}


@pytest.mark.parametrize(("slip", "meant"), [
    ("postive", "positive"), ("positve", "positive"), ("possitive", "positive"), ("positivw", "positive"),
    ("psoitive", "positive"), ("card not recieved", "card not received"), ("questions", "question")])
def test_slips_of_much_more_frequent_labels(slip: str, meant: str) -> None:
    assert slips({meant: 10, slip: 1}) == {slip: meant}
    assert slips({meant: 9, slip: 1}) == {}         # then it may be a label of its own


@pytest.mark.parametrize(("rare", "frequent"), [
    ("amoral", "moral"), ("label_2", "label_1"), ("type b", "type a"), ("cat", "car"), ("12345", "12346"),
    ("illegal", "legal"), ("positive", "negative")])
def test_labels_that_are_no_slips(rare: str, frequent: str) -> None:
    assert slips({frequent: 100, rare: 1}) == {}


def test_one_slip_by_hand() -> None:
    assert [one_slip("abcd", other) for other in ("abcd", "abxd", "abd", "abcxd", "abdc", "xbcd", "abxy", "badc")] == [
        False, True, True, True, True, False, False, False]
