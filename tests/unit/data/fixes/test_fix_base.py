"""Fixes by name, applied one after the other; and that nothing is changed in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import pytest
from fix_rows import TOOLS, chat, item, made, texts

from tuneloop.data.findings import Places
from tuneloop.data.fix import apply_all, named, parse, parse_words
from tuneloop.data.fixes import base, drop, split_long
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, map_texts
from tuneloop.data.flaws import RowError
from tuneloop.errors import Problems, UserError
from tuneloop.types import Origin, Sample


class Shout(base.Fix):
    """Texts in capitals."""

    about: ClassVar[str] = "capitals"
    kind: Literal["shout"] = "shout"

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        loud = [tools.changed(old, map_texts(old.values, str.upper)) for old in items]
        touched = Places(old.origin for old, new in zip(items, loud, strict=True) if new is not old)
        return Applied(loud, [Change(f"{base.count_of(touched)} shouted", "to be heard", touched)] if touched else [])


def test_a_fix_makes_new_rows_and_leaves_the_old_ones() -> None:
    rows = texts("a", "B")
    fixed, [step] = apply_all(rows, [Shout()], TOOLS)
    assert [i.values["text"] for i in rows] == ["a", "B"]
    assert [(i.values["text"], i.sample.answer, i.origin.line) for i in fixed] == [("A", "A", 1), ("B", "B", 2)]
    assert fixed[1] is rows[1]
    assert step.lines() == ["shout: 2 rows", "  1 row shouted: rows.jsonl line 1 (to be heard)"]


def test_fixes_go_one_after_the_other() -> None:
    rows = texts("one two", "three")
    fixed, steps = apply_all(rows, [split_long.Fix(max_characters=4), Shout()], TOOLS)
    assert [i.values["text"] for i in fixed] == ["ONE", "TWO", "THR"[:2], "REE"]
    assert [(s.rows_before, s.rows_after) for s in steps] == [(2, 4), (4, 4)]
    assert steps[0].to_json()["fix"] == {"kind": "split_long", "max_characters": 4, "max_tokens": None}


def test_a_step_without_changes_says_so() -> None:
    _, [step] = apply_all(texts("A"), [Shout()], TOOLS)
    assert step.lines() == ["shout: 1 row, nothing to do"]


def test_a_row_that_is_none_any_more_is_named() -> None:
    def again(values: dict[str, str], origin: Origin) -> Sample:
        raise RowError("the answer is empty", "Every row needs an answer;")

    with pytest.raises(UserError, match=r"rows.jsonl line 2: after shout the answer is empty\."):
        apply_all(texts("A", "b"), [Shout()], Tools(again))


def test_map_texts_goes_into_lists_and_objects_and_keeps_keys_and_numbers() -> None:
    assert map_texts({"a": ["x", {"b": "y"}], "n": 1, "z": None}, str.upper) == {
        "a": ["X", {"b": "Y"}], "n": 1, "z": None}


def test_entries_of_a_recipe() -> None:
    assert parse({"kind": "drop", "checks": ["refusals"]}) == drop.Fix(checks=("refusals",))
    assert parse({"kind": "split_long", "max_characters": 9}) == split_long.Fix(max_characters=9)


@pytest.mark.parametrize(("entry", "said"), [
    ("dorp", r"Unknown fix 'dorp'\.\n.*\n.*did you mean 'drop'\?"),
    ({"kind": "drop", "chekcs": ["a"]}, r"drop has no option 'chekcs'\.\n.*kinds.*\n.*did you mean 'checks'\?"),
    ({"kind": "drop"}, r"drop needs the option 'checks'"),
    ("split_long", r"split_long cannot be applied so\.\n.*either max_characters or max_tokens"),
    ({"kind": "split_long", "max_characters": 0}, r"split_long: 'max_characters' is 0\.\n.*greater than or equal to 1"),
    ({"checks": ["a"]}, r"names no fix"),
    (7, r"7 names no fix"),
])
def test_a_wrong_entry_says_what_was_meant(entry: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(entry)


def test_words_of_a_command_line() -> None:
    found = parse_words(["drop", "checks=refusals, secrets", "split_long", "max_characters=20"])
    assert found == [drop.Fix(checks=("refusals", "secrets")), split_long.Fix(max_characters=20)]
    assert [named(fix) for fix in found] == ['drop checks=["refusals", "secrets"]', "split_long max_characters=20"]
    assert parse_words(["drop", "checks=[refusals, secrets]"]) == found[:1]


@pytest.mark.parametrize(("words", "said"), [
    ([], "No fix is named"),
    (["checks=a"], "'checks=a' stands before the fix"),
    (["drop", "checks=[a"], "is not YAML"),
    (["redact", "kind=email"], "The fix redact has no option 'kind'(.|\n)*did you mean 'kinds'"),
])
def test_words_that_name_no_fix(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_words(words)


def test_every_wrong_word_is_told_at_once() -> None:
    with pytest.raises(Problems) as caught:
        parse_words(["dorp", "split_long"])
    assert len(caught.value.problems) == 2


def test_rows_made_of_a_row_keep_its_place() -> None:
    whole = chat("q1", "a1" * 10, "q2", "a2" * 10, line=7)
    fixed, _ = apply_all([whole], [split_long.Fix(max_characters=30)], TOOLS)
    assert [(i.origin, i.sample.origin) for i in fixed] == [(Origin("rows.jsonl", 7),) * 2] * 2
    assert [made(i.values, i.origin) for i in fixed] == [i.sample for i in fixed]


def test_item_is_frozen() -> None:
    with pytest.raises(AttributeError):
        item({"text": "a"}).values = {}  # type: ignore[misc]
