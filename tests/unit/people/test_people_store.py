"""Nothing that was said is lost, and nothing counts twice."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from judging import prefers, questions, store, word

from tuneloop.errors import UserError
from tuneloop.people.store import Judgements, Said


@pytest.fixture
def said(tmp_path: Path) -> Said:
    [question] = questions(tmp_path, 1)
    return word(question, prefers(question, "good", "poor"), comment="clear", seconds=2.5)


def test_what_was_said_comes_back_as_it_was(tmp_path: Path, said: Said) -> None:
    kept = store(tmp_path)
    assert kept.add(said)
    kept.close()
    again = store(tmp_path)
    assert again.all() == [said]
    again.look()
    assert again.standing("ann") == [said]
    assert again.counts("ann", "compare") == (1, 0)


def test_the_same_showing_counts_once(tmp_path: Path, said: Said) -> None:
    kept = store(tmp_path)
    assert [kept.add(said), kept.add(said), kept.add(replace(said, comment="other"))] == [True, False, False]
    assert kept.add(replace(said, annotator="bob"))
    assert len(kept.all()) == 2


def test_the_last_word_counts_and_undo_brings_back_the_one_before(tmp_path: Path, said: Said) -> None:
    kept, later = store(tmp_path), replace(said, nonce="later", comment="on reflection")
    kept.add(said)
    kept.add(later)
    kept.look()
    assert kept.standing("ann") == [later]
    assert kept.counts("ann", "compare") == (1, 0)
    kept.undo(later, "u1")
    kept.look()
    assert kept.standing("ann") == [said]
    kept.undo(said, "u2")
    kept.look()
    assert kept.standing("ann") == []
    assert kept.counts("ann", "compare") == (0, 0)
    assert kept.annotators() == []
    assert [one.kind for one in kept.all()] == ["verdict", "verdict", "undo", "undo"]


def test_undo_means_the_item_and_not_only_the_nonce(tmp_path: Path, said: Said) -> None:
    kept, other = store(tmp_path), replace(said, item="other")
    for one in (said, other):       # a model's rows share a nonce
        kept.add(one)
    kept.undo(said, "u")
    kept.look()
    assert kept.standing("ann") == [other]


def test_two_stores_see_each_other(tmp_path: Path, said: Said) -> None:
    mine, theirs = store(tmp_path), store(tmp_path)
    mine.add(said)
    theirs.look()
    assert theirs.has_judged("ann", said.item)
    theirs.undo(said, "u")
    mine.look()
    assert not mine.has_judged("ann", said.item)


def test_rows_are_only_added(tmp_path: Path, said: Said) -> None:
    store(tmp_path).add(said)
    db = sqlite3.connect(tmp_path / "said.sqlite")
    for change in ("DELETE FROM said", "UPDATE said SET value = '{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            db.execute(change)
    db.close()


def test_there_is_one_file(tmp_path: Path, said: Said) -> None:
    kept = store(tmp_path / "own")
    kept.add(said)
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["said.sqlite"]     # while it is open, too


@pytest.mark.parametrize("make", ["text", "foreign", "newer"])
def test_another_file_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "said.sqlite"
    if make == "text":
        path.write_text("no database, but long enough to be looked at as one\n" * 50)
    elif make == "foreign":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE other (a)")
        db.close()
    else:
        Judgements(path).close()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    with pytest.raises(UserError, match="no judgements of people"):
        Judgements(path)


def test_a_full_disk_is_said(tmp_path: Path, said: Said) -> None:
    kept = store(tmp_path)
    kept.close()
    with pytest.raises(UserError, match="cannot be written"):
        kept.add(said)
