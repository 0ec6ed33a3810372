"""Personal data by kind, with its rows, how many different values, and nothing that could be used."""

from __future__ import annotations

from checked_rows import answers, found, lines

from tuneloop.data.checks.personal import Check


def test_rows_of_a_kind_are_named_once_and_values_counted_and_masked() -> None:
    seen = found(Check(), answers("a@x.de and b@x.de", "nothing", "a@x.de", "IBAN DE17072902227918058887"))
    assert set(seen) == {"email", "iban"}
    assert lines(seen["email"]) == [1, 3]
    assert seen["email"].what == "2 rows hold an e-mail address"
    assert seen["email"].examples == ["a…@…de"]
    assert (lines(seen["iban"]), seen["iban"].what) == ([4], "1 row holds a bank account (IBAN)")
    assert "17072902227918058887" not in str(seen["iban"].to_json())


def test_accounts_are_to_be_mended_and_a_few_addresses_are_not() -> None:
    few = found(Check(), answers(*[f"write to p{i}@x.de" for i in range(5)], "card 4526018159083012"))
    assert (few["email"].severity, few["card"].severity) == ("note", "fix")
    many = found(Check(), answers(*[f"write to p{i}@x.de" for i in range(6)]))
    assert (many["email"].severity, many["email"].fix) == ("fix", "tuneloop data fix FILE redact kinds=email")


def test_one_address_in_every_row_is_told_as_one() -> None:
    email = found(Check(), answers(*["mail anna@x.de"] * 9))["email"]
    assert (email.what, email.severity) == ("9 rows hold an e-mail address (always the same)", "note")


def test_columns_that_the_model_does_not_see_are_looked_at_at_any_depth() -> None:
    values = [{"answer": "yes", "meta": {"by": ["x", {"mail": "anna@posteo.de"}]}}]
    assert lines(found(Check(), answers("yes"), values=values)["email"]) == [1]


def test_public_values_are_told_apart() -> None:
    seen = found(Check(), answers("support@x.de", "192.168.0.1"))
    assert set(seen) == {"public"}
    assert (seen["public"].severity, seen["public"].examples) == ("note", ["support@x.de", "192.168.0.1"])


def test_facts_count_rows_and_values() -> None:
    check = Check()
    found(check, answers("a@x.de", "a@x.de", "b@x.de"))
    assert check.facts() == {"personal_data": {"email": {"rows": 3, "different": 2}}}


def test_sets_to_compare_with_are_not_looked_at() -> None:
    assert found(Check(), answers("a@x.de"), part="evaluation") == {}
