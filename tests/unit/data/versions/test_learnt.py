"""What a model was trained with is noted beside it, as hashes, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.data.versions.learnt import knows, learnt_by, read_learnt, write_learnt
from tuneloop.data.versions.seen import UNUSED, write_seen
from tuneloop.errors import UserError
from tuneloop.models.resolve import LEARNT
from tuneloop.types import Origin

ONE, TWO, THREE = ("1" * 16, "2" * 16, "3" * 16)


def test_hashes_alone_are_written_each_once_whatever_the_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_learnt(tmp_path / "a", [TWO, ONE, ONE, ""])
    write_learnt(tmp_path / "b", [ONE + TWO])        # rows that were put together
    assert read_learnt(tmp_path / "a") == read_learnt(tmp_path / "b") == {ONE, TWO}
    assert (tmp_path / "a" / LEARNT).read_bytes() == (tmp_path / "b" / LEARNT).read_bytes()
    lines = (tmp_path / "a" / LEARNT).read_text().splitlines()
    assert lines[0].startswith("# tuneloop: ")
    assert lines[1:] == [ONE, TWO]


def test_a_model_of_others_says_nothing(tmp_path: Path) -> None:
    assert read_learnt(tmp_path) == learnt_by(tmp_path) == learnt_by(tmp_path / "none") == frozenset()
    write_learnt(tmp_path, [""])
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_said(tmp_path: Path) -> None:
    (tmp_path / LEARNT).write_text(f"{ONE}\nnot a hash\n")
    with pytest.raises(UserError, match="not a hash is no hash of a row"):
        read_learnt(tmp_path)


def test_a_run_knows_what_it_trained_with_and_what_its_base_knew(tmp_path: Path) -> None:
    """Validation rows decide when to stop; test rows, and those that were left out, are not learnt."""
    write_seen(tmp_path, {"train": [Origin("a.csv", 1, ONE)], "validation": [Origin("a.csv", 2, TWO)],
                          "test": [Origin("a.csv", 3, "4" * 16)], UNUSED: [Origin("a.csv", 4, "5" * 16)]})
    (tmp_path / "adapter").mkdir()
    write_learnt(tmp_path / "adapter", [THREE])
    assert learnt_by(tmp_path) == {ONE, TWO, THREE}


def test_one_of_several_rows_put_together_is_enough() -> None:
    assert knows(frozenset({ONE}), TWO + ONE)
    assert not knows(frozenset({ONE}), TWO + THREE)
    assert not knows(frozenset({ONE}), "")
