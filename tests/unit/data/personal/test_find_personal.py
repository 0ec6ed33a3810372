"""Personal data is found where it is, and not where something only looks like it."""

from __future__ import annotations

from collections import Counter

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_texts import LOOKALIKES, POSITIVES, unmarked

from tuneloop.data.personal.find import KINDS, find_personal
from tuneloop.data.personal.mask import covered, masked
from tuneloop.data.personal.numbers import iban_is_valid, luhn


def spans(text: str) -> list[tuple[str, int, int]]:
    return [(hit.kind, hit.start, hit.end) for hit in find_personal(text)]


def found(text: str) -> list[tuple[str, str]]:
    return [(hit.kind, text[hit.start:hit.end]) for hit in find_personal(text)]


def test_precision_and_recall_on_labelled_texts_by_kind() -> None:
    """A hit is right where kind, start and end are."""
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for text, marked in map(unmarked, POSITIVES + LOOKALIKES):
        hits = spans(text)
        right.update(kind for kind, *_ in set(hits) & set(marked))
        wrong.update(kind for kind, *_ in set(hits) - set(marked))
        missed.update(kind for kind, *_ in set(marked) - set(hits))
    for kind in KINDS:
        precision = right[kind] / (right[kind] + wrong[kind])
        recall = right[kind] / (right[kind] + missed[kind])
        print(f"{kind:11} {right[kind] + missed[kind]:3} marked: precision {precision:.3f}, recall {recall:.3f}")
        assert precision >= 0.95, kind
        assert recall >= 0.95, kind


def test_the_labelled_texts_are_many_and_of_every_kind() -> None:
    marked = Counter(kind for text in POSITIVES for kind, *_ in unmarked(text)[1])
    assert marked.total() >= 200
    assert len(LOOKALIKES) >= 200
    assert set(marked) == set(KINDS)
    assert min(marked.values()) >= 13
    assert all(not unmarked(text)[1] for text in LOOKALIKES)


@pytest.mark.parametrize(("digits", "valid"), [("79927398713", True), ("79927398710", False),     # Luhn's own example
                                               ("4111111111111111", True), ("4111111111111112", False)])
def test_luhn(digits: str, valid: bool) -> None:
    assert luhn(digits) is valid


@pytest.mark.parametrize("account", ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947",
                                     "MT84MALT011000012345MTLCAST001S", "BR1800360305000010009795493C1"])
def test_ibans_of_the_registry_are_valid_and_no_longer_with_two_digits_swapped(account: str) -> None:
    assert iban_is_valid(account)
    assert not iban_is_valid(account[:2] + account[3] + account[2] + account[4:])


@pytest.mark.parametrize("region", ["US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "JP", "IN", "BR", "AU", "MX",
                                    "ZA", "TR", "KR", "SG", "AE", "NG"])
def test_example_numbers_of_many_countries_are_found_as_they_are_written_abroad(region: str) -> None:
    number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    assert found(f"My number is {written}, thanks.") == [("phone", written)]


@pytest.mark.parametrize("text", [
    "Write to support@acme-shop.com", "jane.doe@example.com", "ping 192.168.1.44", "the DNS server 8.8.8.8",
    "route 203.0.113.0/24", "card 4242 4242 4242 4242", "IBAN DE89 3704 0044 0532 0130 00", "SSN 078-05-1120",
    "call 1-800-555-0199 for free", "(212) 555-0142 as in films"])
def test_what_is_nobodys_secret_is_found_and_told_as_public(text: str) -> None:
    assert [hit.public for hit in find_personal(text)] == [True]


def test_the_more_specific_kind_wins_where_two_overlap() -> None:
    assert found("ftp://bob:Tr0ub4dor@files.acme.com") == [("secret", "Tr0ub4dor")]
    assert found("card 4526018159083012 tel") == [("card", "4526018159083012")]


def test_hits_come_in_order_and_do_not_overlap() -> None:
    text = " ".join(unmarked(marked)[0] for marked in POSITIVES[:60])
    ends = [0]
    for _, start, end in spans(text):
        assert ends[-1] <= start < end
        ends.append(end)
    assert len(ends) > 60


@pytest.mark.parametrize(("kind", "value", "shown"), [
    ("email", "anna@posteo.de", "an…@…de"), ("email", "a@b.io", "a…@…io"), ("card", "4526 0181 5908 3012", "…12"),
    ("secret", "hf" + "_zfKN7xVGkjwskHk7", "hf_…"), ("secret", "Tr0ub4dor", "…"), ("birth_date", "4 May 1981", "…81")])
def test_masks_show_too_little_to_use(kind: str, value: str, shown: str) -> None:
    assert masked(kind, value) == shown


def test_a_covered_text_keeps_what_is_public() -> None:
    assert covered("anna@posteo.de or info@posteo.de") == "an…@…de or info@posteo.de"


@pytest.mark.slow
@given(st.text(st.sampled_from("0123456789٣²我é -+().@:/abcDEF_sk#=\n"), max_size=200))
def test_any_text_is_looked_at_without_a_crash(text: str) -> None:
    last = 0
    for kind, start, end in spans(text):
        assert kind in KINDS
        assert last <= start < end <= len(text)
        last = end
