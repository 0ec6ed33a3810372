"""Duplicates within parts, and leaks between them, by line."""

from __future__ import annotations

import json
import random

import pytest
from part_rows import asked, chunks, found_by, lines, rows

from tuneloop.data.checks.base import Chunk
from tuneloop.data.checks.duplicates import Check
from tuneloop.types import Conversation, Media, Message, Origin, Rollout, Sample

QUESTION = "where is the parcel that I ordered three weeks ago from your shop in Berlin"
OTHERS = [("how do I change the address on my account", "in the settings"),
          ("can I pay with two different cards at once", "no"),
          ("the voucher from the newsletter does not work", "it has expired")]


def plenty(file: str = "train.csv", count: int = 100) -> list[Sample]:
    """Rows that are not alike, after which the lines go on."""
    drawn = random.Random(count)
    return rows(file, *((" ".join("".join(drawn.choices("abcdefgh", k=6)) for _ in range(12)), "yes")
                        for _ in range(count)))


def test_duplicates_are_named_with_what_they_repeat() -> None:
    check = Check()
    train = [*plenty(), *(asked(*pair, 101 + i) for i, pair in enumerate([
        (QUESTION, "on its way"), *OTHERS, (QUESTION, "on its way"), (f"{QUESTION}?", "On its  way"),
        (QUESTION, "we lost it")]))]
    exact, near = found_by(check, train=train)
    assert (exact.kind, exact.severity, lines(exact)) == ("exact", "note", [105])
    assert exact.what == "1 row says exactly what an earlier row of train says"
    assert exact.examples == [f'train.csv line 105 is the same as train.csv line 101: "{QUESTION[:60].lower()}…"']
    assert (near.kind, near.severity, lines(near)) == ("near", "note", [106])       # 107 answers something else
    assert near.examples[0].startswith("train.csv line 106 is nearly train.csv line 101 (0.99 alike): ")
    assert near.fix == "tuneloop data fix FILE deduplicate"
    assert check.facts() == {"duplicates": {"train": {"rows": 107, "exact": 1, "near": 1}}, "leaks": {}}


def test_a_near_duplicate_is_told_with_an_earlier_row_even_where_a_later_one_is_more_like_it() -> None:
    train = [*plenty(), *(asked(question, "on its way", 101 + i) for i, question in enumerate([
        QUESTION, f"{QUESTION}, or so", f"{QUESTION}, or so?"]))]
    (near,) = found_by(Check(), train=train)
    assert lines(near) == [102, 103]
    assert [example.split(" (")[0] for example in near.examples] == [
        "train.csv line 102 is nearly train.csv line 101", "train.csv line 103 is nearly train.csv line 102"]


def test_many_duplicates_are_to_be_mended() -> None:
    (exact,) = found_by(Check(), train=[*plenty(), *plenty(count=100)[:6]])
    assert (exact.severity, len(exact.places)) == ("fix", 6)


def test_leaks_name_both_lines_whatever_is_answered() -> None:
    check = Check()
    train = [*plenty(), *(asked(*pair, 101 + i) for i, pair in enumerate([(QUESTION, "on its way"), *OTHERS]))]
    test = rows("test.csv", ("something that nobody has asked before", "a"), (f"and {QUESTION}", "lost"),
                (OTHERS[1][0].upper(), "yes"))
    validation = rows("valid.csv", (f"and {QUESTION}", "soon"))
    to_validation, to_test, between = found_by(check, train=train, validation=validation, test=test)
    assert (to_test.kind, to_test.severity, lines(to_test)) == ("train in test", "fix", [101, 103])
    assert to_test.what == "2 rows ask in train what test asks (1 the same, 1 nearly)"
    assert to_test.examples[0].startswith("train.csv line 101 is nearly test.csv line 2 (0.95 alike): ")
    assert to_test.examples[1] == (
        'train.csv line 103 is the same as test.csv line 3: "can i pay with two different cards at once"')
    assert (to_validation.kind, lines(to_validation)) == ("train in validation", [101])
    assert (between.kind, lines(between)) == ("validation in test", [1])
    assert "valid.csv line 1 is the same as test.csv line 2" in between.examples[0]
    assert check.facts()["leaks"] == {"train in validation": 1, "train in test": 2, "validation in test": 1}


def test_every_repeat_of_a_leak_is_named() -> None:
    train = [*plenty(), *(asked(QUESTION, str(i), 101 + i) for i in range(4)), asked(f"{QUESTION}!", "x", 105)]
    leak = found_by(Check(), train=train, test=rows("test.csv", *OTHERS, (QUESTION, "y")))[-1]
    assert (leak.kind, lines(leak)) == ("train in test", [101, 102, 103, 104, 105])


def test_a_template_makes_no_leaks_and_hides_none() -> None:
    """Each part is long enough to show its template, but for a short test part with the template of train."""
    instruction = "Answer the question of a customer of our shop in one short and friendly sentence, please: "
    train = [asked(f"{instruction}{row.prompt[0].content}", "yes", i) for i, row in enumerate(plenty(), 1)]
    for count in (5, 40):
        test = [asked(f"{instruction}{row.prompt[0].content}", "no", i, "test.csv")
                for i, row in enumerate([*plenty(count=count), train[0]], 1)]
        test[-1] = asked(train[0].prompt[0].content + " now", "no", len(test), "test.csv")
        (leak,) = found_by(Check(), train=train, test=test)
        assert lines(leak) == [1]
        assert leak.examples[0].startswith(f"train.csv line 1 is nearly test.csv line {len(test)} (0.9")


def test_evaluation_rows_are_not_looked_at() -> None:
    assert found_by(Check(), train=rows("train.csv", *OTHERS), evaluation=rows("bench.csv", *OTHERS)) == []


def test_answers_sampled_from_a_model_may_be_equal() -> None:
    def sampled(answer: str, line: int) -> Rollout:
        return Rollout((Message("user", QUESTION),), (answer,), (1.0,), Origin("train.csv", line))

    assert found_by(Check(), train=[sampled("on its way", line) for line in range(1, 9)]) == []


def test_rows_that_show_different_things_are_different() -> None:
    def about(image: str, line: int) -> Conversation:
        ask = Message("user", "Is there a person in this picture? Yes or no?", media=(Media("image", image),))
        return Conversation((ask, Message("assistant", "yes")), Origin("train.csv", line))

    train = [about("a.png", 1), about("b.png", 2), about("b.png", 3)]
    (exact,) = found_by(Check(), train=train)
    assert (exact.kind, lines(exact)) == ("exact", [3])
    (leak,) = found_by(Check(), train=train[:2], test=[about("b.png", 1)])
    assert (leak.kind, lines(leak)) == ("train in test", [2])


def test_rows_beyond_memory_are_compared_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train = [*plenty(count=200), asked(QUESTION, "a", 201), asked(f"{QUESTION}?", "a", 202)]
    monkeypatch.setattr("tuneloop.data.near.sketches.KEYS_BYTES", 100)
    near, disk = found_by(Check(), train=train)
    assert lines(near) == [202]
    assert (disk.kind, disk.severity) == ("on disk", "note")
    assert disk.what.startswith("202 rows were compared by way of temporary files of 0.0 GB")


def test_facts_are_plain_json_and_nothing_comes_of_nothing() -> None:
    check = Check()
    for chunk in (Chunk("train", [], [], []), Chunk("test", [], [], [])):
        check.see(chunk)
    assert check.findings() == []
    assert json.loads(json.dumps(check.facts())) == {"duplicates": {}, "leaks": {}}


def test_rows_come_in_chunks() -> None:
    check = Check()
    train = [*plenty(), asked(QUESTION, "a", 101), asked(QUESTION, "a", 102)]
    for chunk in chunks("train", train, size=7):
        check.see(chunk)
    assert [lines(finding) for finding in check.findings()] == [[102]]
