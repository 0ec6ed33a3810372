"""Versions are added once, found again, shared, and safe from kills, full disks and each other."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from version_rows import many, row, rows, texts

from tuneloop.data.versions.file_state import FileState, changed_since
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.rows import Identity
from tuneloop.data.versions.store import Provenance, Store, default_root
from tuneloop.errors import UserError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files_of_rows(store: Store) -> set[str]:
    return {path.stem for path in store.rows_folder.rglob("*.arrow")}


def test_the_same_rows_in_any_order_and_from_any_file_are_one_version(store: Store, tmp_path: Path) -> None:
    one = store.add(rows("a", "b", "b"))
    assert store.add(rows("b", "a", "b", file="copy.jsonl")).id == one.id
    assert Store(tmp_path / "elsewhere").add(rows("b", "b", "a")).id == one.id
    assert one.id == Identity(r.hash for r in rows("a", "b", "b")).id
    assert [m.id for m in store.versions()] == [one.id]
    assert texts(store.rows(one)) == ["a", "b", "b"]                # in the order in which they first came
    assert store.add(rows("a", "b")).id != one.id


def test_rows_keep_their_place_and_who_made_them(store: Store) -> None:
    given = [*rows("a", "b"), row("c", 2, made_by="augment")]
    assert list(store.rows(store.add(given))) == given


def test_versions_share_what_they_have_in_common(store: Store) -> None:
    given = many(20_000)
    one = store.add(given)
    before = files_of_rows(store)
    other = store.add(given[:10_000] + given[10_001:])
    assert 1 <= len(files_of_rows(store) - before) <= 2
    assert len(set(one.chunks) & set(other.chunks)) >= len(one.chunks) - 2


def test_a_version_is_found_by_name_and_by_the_beginning_of_its_id(store: Store) -> None:
    one = store.add(rows("a"), Provenance(name="reviews"))
    assert store.find("reviews") == store.find("data:reviews") == store.find(one.id) == store.find(one.id[:4]) == one
    assert store.find(f"data:{one.short.upper()}") == one
    for unknown in ("revews", one.id[:3], "ffff" + one.id):
        with pytest.raises(UserError, match=f"no version '{unknown}'"):
            store.find(unknown)


def test_a_beginning_that_two_versions_share_is_refused(store: Store) -> None:
    for end in "12":
        store.write(Manifest("abcd" + end * 60, 0, "2026-01-01"))
    with pytest.raises(UserError, match="2 versions begin with 'abcd'"):
        store.find("abcd")
    assert store.find("abcd2").id == "abcd" + "2" * 60


def test_a_name_belongs_to_one_version(store: Store) -> None:
    one = store.add(rows("a"), Provenance(name="reviews"))
    with pytest.raises(UserError, match=f"data:reviews is the version {one.short} already"):
        store.add(rows("b"), Provenance(name="reviews"))
    assert store.add(rows("a"), Provenance(name="better")).names == ("reviews", "better")
    assert store.add(rows("a"), Provenance(name="reviews")).names == ("reviews", "better")
    assert store.find("better") == store.find("reviews") == store.name(one, "reviews")
    assert store.find("better").lines()[2] == "  also     data:better"
    for bad in ("1st", "a b", "../up", "data:x"):
        with pytest.raises(UserError, match="cannot be the name"):
            store.name(one, bad)


def test_parents_and_operations_are_kept(store: Store) -> None:
    one = store.add(rows("a", "a"))
    step = {"what": "deduplicate", "fix": {"kind": "deduplicate"}, "rows_before": 2, "rows_after": 1,
            "log": [{"what": "1 row dropped", "why": "a copy", "rows": 1, "places": [], "examples": []}]}
    store.add(rows("a"), Provenance(parents=[one.id], steps=[step], format="each row is a text"))
    other = Store(store.root).find(Identity(r.hash for r in rows("a")).id)
    assert other.parents == (one.id,)
    assert other.lines() == [
        f"data:{other.short}  1 rows, {other.created[:10]}", f"  id       {other.id}", "  rows     each row is a text",
        f"  parent   data:{one.short}", "  deduplicate: 2 rows → 1", "    1 row dropped (a copy)"]
    assert store.add(rows("a", "a"), Provenance(parents=[other.id])).parents == ()     # it was there first: no circle


def test_a_manifest_of_another_schema_is_refused(store: Store) -> None:
    one = store.add(rows("a"))
    path = store.root / "versions" / f"{one.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(UserError, match="schema 99"):
        store.versions()


@pytest.mark.parametrize("text", ["[]", '{"schema_version": 1}', '{"schema_version": 1, "reference": null, "x": 2}'])
def test_what_is_no_manifest_is_named(store: Store, text: str) -> None:
    store.add(rows("a"))
    (store.root / "versions" / "other.json").write_text(text)
    with pytest.raises(UserError, match=r"other\.json is no manifest of a version"):
        store.versions()


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("TUNELOOP_DATA")
    assert default_root().parts[-2:] == ("tuneloop", "data")


# --- faults ----------------------------------------------------------------------------------------------------------


def test_verify_reads_everything(store: Store) -> None:
    one, other = store.add(rows("a", "b"), Provenance(name="good")), store.add(rows("c"), Provenance(name="bad"))
    assert store.verify() == []
    path = other.chunks[0].path(store.rows_folder)
    path.write_bytes(one.chunks[0].path(store.rows_folder).read_bytes())
    assert store.verify() == [f"data:bad: {path} does not hold what its name says"]
    store.write(Manifest(other.id, 2, other.created, ("bad",), chunks=one.chunks))
    assert store.verify() == ["data:bad: its rows are not those that its id names"]


def test_a_full_disk_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = store.add(rows("a"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            store.add(many(5_000))
    assert store.versions() == [one]
    assert store.verify() == []
    assert list(store.root.rglob("*.partial")) == []
    assert store.add(many(5_000)).rows == 5_000


def test_a_broken_stream_of_rows_is_no_version(store: Store) -> None:
    def broken() -> Iterator[Any]:
        yield from many(20_000)
        raise UserError("line 7 is broken")

    with pytest.raises(UserError, match="line 7"):
        store.add(broken())
    assert store.versions() == []
    assert files_of_rows(store)                 # what was written is there for the next try


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from version_rows import many
from tuneloop.data.versions import chunks, store
real, left = os.replace, [{writes}]
def replace(*paths):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(*paths)
os.replace = replace
store.Store(Path({root!r})).add(many(10_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("writes", [0, 2])
def test_a_kill_leaves_the_store_as_it_was(store: Store, writes: int) -> None:
    one = store.add(rows("a"))
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(store.root), writes=writes)
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(store.root.rglob(".*.partial"))) == 1
    assert store.versions() == [one]
    assert store.verify() == []
    again = store.add(many(10_000))
    assert again.rows == 10_000
    assert list(store.root.rglob(".*.partial")) == []
    assert store.verify() == []


def _add(root: Path, seed: int) -> str:
    return Store(root).add(many(3_000, seed)).id


def test_several_processes_add_at_once(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(_add, [(store.root, seed) for seed in (0, 0, 1, 1)])
    assert len({*found}) == 2
    assert {m.id for m in store.versions()} == {*found}
    assert store.verify() == []


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "big.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    return path


def test_a_large_file_stays_where_it_is(store: Store, file: Path) -> None:
    state = FileState.of(file, "big.jsonl")
    one = store.add_reference(state, [r.hash for r in rows("a", "b")])
    assert one.id == Identity(r.hash for r in rows("a", "b")).id
    assert files_of_rows(store) == set()
    found = list(store.rows(store.find(one.short)))
    assert texts(found) == ["a", "b"]
    assert [str(r.origin) for r in found] == ["big.jsonl line 1", "big.jsonl line 2"]


def test_a_large_file_that_has_changed_is_no_version_any_more(store: Store, file: Path) -> None:
    one = store.add_reference(FileState.of(file, "big.jsonl"), [r.hash for r in rows("a", "b")])
    file.write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"big.jsonl has changed: it had 28 bytes, and has 14"):
        list(store.rows(one))
    assert store.verify() == [f"data:{one.short}: big.jsonl has changed: it had 28 bytes, and has 14"]


def test_whether_a_file_has_changed(file: Path) -> None:
    state = FileState.of(file, "big.jsonl")
    record = {"data": {"files": [vars(state)]}}
    assert changed_since(record) == []
    assert changed_since({}) == []
    os.utime(file, (0, 0))                      # touched, and still the same
    assert changed_since(record) == []
    file.write_text('{"text": "a"}\n{"text": "c"}\n')
    os.utime(file, (1, 1))
    assert changed_since(record) == ["big.jsonl has changed: it had 28 bytes, and has as many"]
    file.unlink()
    assert changed_since(record) == [f"big.jsonl is not there any more ({file})"]
