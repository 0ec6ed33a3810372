"""Rows that a check names are dropped, and no others."""

from __future__ import annotations

import pytest
from fix_rows import TOOLS, texts

from tuneloop.data.checks.base import Check, Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.data.fixes.base import Tools
from tuneloop.data.fixes.drop import Fix
from tuneloop.errors import UserError


class Letters(Check):
    """Names rows with an x and, by another kind, rows with a y; looks at origins of samples, as some checks do."""

    def __init__(self) -> None:
        self.x, self.y = Places(), Places()

    def see(self, chunk: Chunk) -> None:
        for sample in chunk.samples:
            for places, letter in ((self.x, "x"), (self.y, "y")):
                if letter in sample.answer:
                    places.add(sample.origin)

    def findings(self) -> list[Finding]:
        return [Finding("letters", "fix", f"{len(p)} rows hold {k}", "", p, kind=k)
                for k, p in (("x", self.x), ("y", self.y)) if p]


WITH_LETTERS = Tools(TOOLS.again, checks=lambda: {"letters": Letters()})


def test_the_named_rows_go_and_the_log_names_them_in_their_file() -> None:
    done = Fix(checks=("letters",)).apply(texts("a", "x", "b", "xy", "y"), WITH_LETTERS)
    assert [i.values["text"] for i in done.items] == ["a", "b"]
    assert [(str(c), c.why) for c in done.log] == [
        ("2 rows dropped: rows.jsonl line 2, 4", "letters: 2 rows hold x"),
        ("2 rows dropped: rows.jsonl line 4, 5", "letters: 2 rows hold y")]


def test_only_findings_of_the_given_kinds_count() -> None:
    done = Fix(checks=("letters",), kinds=("y",)).apply(texts("x", "y"), WITH_LETTERS)
    assert [i.values["text"] for i in done.items] == ["x"]


def test_of_rows_from_one_line_only_the_named_one_goes() -> None:
    [a], [b] = texts("a"), texts("x")           # both of line 1, as the pieces of a row that was cut
    assert Fix(checks=("letters",)).apply([a, b, a], WITH_LETTERS).items == [a, a]


def test_more_rows_than_a_chunk_holds() -> None:
    done = Fix(checks=("letters",)).apply(texts(*["a", "x"] * 2001), WITH_LETTERS)
    assert len(done.items) == 2001
    assert {i.origin.line % 2 for i in done.items} == {1}


def test_rows_that_cannot_be_read_are_no_items() -> None:
    rows = texts("x")
    assert Fix(checks=("rows",)).apply(rows, TOOLS).items == rows


def test_a_check_that_there_is_not() -> None:
    with pytest.raises(UserError, match="Unknown check 'lettres'"):
        Fix(checks=("lettres",)).apply(texts("x"), TOOLS)


def test_the_proof_needs_a_base() -> None:
    with pytest.raises(UserError, match="needs the tokenizer of a base"):
        Fix(checks=("proof",)).apply(texts("x"), TOOLS)
