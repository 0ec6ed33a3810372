"""Personal data is replaced everywhere in a row, and the log holds none of it."""

from __future__ import annotations

import json

import pytest
from fix_rows import TOOLS, chat, item, texts

from tuneloop.data.fix import parse
from tuneloop.data.fixes.redact import Fix
from tuneloop.data.personal.find import find_personal
from tuneloop.errors import UserError


def test_one_value_has_one_number_in_a_row_and_starts_anew_in_the_next() -> None:
    done = Fix().apply(texts("Anna@x.de, bob@x.de, anna@x.de", "bob@x.de"), TOOLS)
    assert [row.values["text"] for row in done.items] == ["[EMAIL_1], [EMAIL_2], [EMAIL_1]", "[EMAIL_1]"]
    assert [row.sample.text for row in done.items] == ["[EMAIL_1], [EMAIL_2], [EMAIL_1]", "[EMAIL_1]"]


def test_numbers_written_differently_are_one_value() -> None:
    done = Fix().apply(texts("card 4526018159083012, that is 4526 0181 5908 3012"), TOOLS)
    assert done.items[0].values["text"] == "card [CARD_1], that is [CARD_1]"


def test_every_text_of_the_row_however_deep_and_json_within_a_text_stays_json() -> None:
    row = chat("I am anna@x.de", "Hello.").values | {"meta": [{"ip": "81.2.69.142", "n": 5}],
                                                    "tools": json.dumps({"to": "one\nanna@x.de"})}
    done = Fix().apply([item(row)], TOOLS).items[0].values
    assert done["messages"][0]["content"] == "I am [EMAIL_1]"
    assert done["meta"] == [{"ip": "[IP_1]", "n": 5}]
    assert json.loads(done["tools"]) == {"to": "one\n[EMAIL_1]"}
    assert row["meta"] == [{"ip": "81.2.69.142", "n": 5}]       # nothing is changed in place


def test_the_log_counts_and_names_lines_and_holds_no_value() -> None:
    secret = "hf" + "_zfKN7xVGkjwskHk7egyFWZY9Zmti18c6Eu"
    done = Fix().apply(texts("a@x.de and b@x.de", "fine", f"b@x.de {secret}"), TOOLS)
    assert [(change.what, change.why, [place.line for place in change.places]) for change in done.log] == [
        ("1 replaced by [SECRET_1] and so on, in 1 row", "each was a key, token or password", [3]),
        ("3 replaced by [EMAIL_1] and so on, in 2 rows", "each was an e-mail address", [1, 3])]
    assert not find_personal(json.dumps([change.to_json() for change in done.log]))


def test_only_the_kinds_asked_for_and_nothing_public() -> None:
    done = Fix(kinds=("phone",)).apply(texts("a@x.de or +49 30 901820", "info@x.de, 192.168.0.1"), TOOLS)
    assert [row.values["text"] for row in done.items] == ["a@x.de or [PHONE_1]", "info@x.de, 192.168.0.1"]


def test_rows_without_personal_data_are_the_same_and_nothing_is_logged() -> None:
    rows = texts("nothing", "version 1.2.3.4")
    done = Fix().apply(rows, TOOLS)
    assert all(new is old for new, old in zip(done.items, rows, strict=True))
    assert done.log == []


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="redact"):
        parse({"kind": "redact", "kinds": ["emails"]})
