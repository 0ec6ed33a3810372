"""What two versions do not have in common, and versions as files and as sources again."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from version_rows import many, row, rows, texts

from tuneloop.data.read import open_source
from tuneloop.data.versions import chunks
from tuneloop.data.versions.diff import diff
from tuneloop.data.versions.export import export
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.rows import VersionRow
from tuneloop.data.versions.store import Provenance, Store
from tuneloop.errors import UserError
from tuneloop.types import Origin


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "store"))
    return Store()


def test_added_removed_and_changed_rows(store: Store) -> None:
    before = store.add(rows("same", "old", "gone", "cut here"))
    after = store.add([*rows("same", "new"), row("cut", 4), row("here", 4), row("more", 1, "other.jsonl")])
    found = diff(store, before, after)
    assert texts(found.added) == ["more"]
    assert texts(found.removed) == ["gone"]
    assert [(texts(c.before), texts(c.after)) for c in found.changed] == [(["old"], ["new"]),
                                                                         (["cut here"], ["cut", "here"])]
    assert found.lines()[0] == f"data:{before.short} → data:{after.short}: 1 added, 1 removed, 2 changed, 1 the same"
    assert '  ~ rows.jsonl line 2: {"text": "old"}' in found.lines()
    assert found.to_json()["removed"] == [{"file": "rows.jsonl", "line": 3, "values": {"text": "gone"}}]


def test_how_often_a_row_occurs_counts(store: Store) -> None:
    found = diff(store, store.add(rows("a", "a", "b")), store.add(rows("a", "b", "b", file="x")))
    assert (texts(found.added), texts(found.removed)) == (["b"], ["a"])


def test_of_equal_rows_the_one_that_went_is_told(store: Store) -> None:
    given = rows("a", "a", "a")
    found = diff(store, store.add(given), store.add([given[0], given[2]]))
    assert [row.origin.line for row in found.removed] == [2]


def test_only_differing_columns_of_a_changed_row_are_shown(store: Store) -> None:
    origin = Origin("rows.csv", 7)
    before, after = (store.add([VersionRow({"id": 1, "text": text}, origin)]) for text in ("a" * 200, "b"))
    assert diff(store, before, after).lines()[1:] == [
        '  ~ rows.csv line 7: {"text": "' + "a" * 89 + "…", '  ~ rows.csv line 7: {"text": "b"}']


def test_shared_files_are_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given = many(20_000)
    before, after = store.add(given), store.add(given[:10_000] + given[10_001:])
    read: list[chunks.Chunk] = []
    real = chunks.read

    def counting(folder: Path, chunk: chunks.Chunk) -> list[VersionRow]:
        read.append(chunk)
        return real(folder, chunk)

    monkeypatch.setattr(chunks, "read", counting)
    found = diff(store, before, after)
    assert (texts(found.removed), found.added, found.changed) == (texts([given[10_000]]), [], [])
    assert len(set(read)) <= 3


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_a_diff_turns_one_version_into_the_other(tmp_path_factory: pytest.TempPathFactory, one: list[str],
                                                 other: list[str]) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    found = diff(store, store.add(rows(*one)), store.add(rows(*other)))
    gone = [*found.removed, *(r for c in found.changed for r in c.before)]
    come = [*found.added, *(r for c in found.changed for r in c.after)]
    assert Counter(one) - Counter(texts(gone)) + Counter(texts(come)) == Counter(other)
    assert not set(texts(gone)) & set(texts(come))


# --- as a file -------------------------------------------------------------------------------------------------------


def test_rows_as_jsonl_csv_and_parquet(store: Store, tmp_path: Path) -> None:
    from pyarrow import parquet

    values = [{"text": "é, \"x\"\ny", "n": 1}, {"n": 2, "more": None}]
    one = store.add([VersionRow(v, Origin("f", i)) for i, v in enumerate(values)])
    for suffix in ("jsonl", "csv", "parquet"):
        export(store, one, tmp_path / "out" / f"rows.{suffix}")
    assert [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()] == values
    with open(tmp_path / "out/rows.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["text", "n", "more"], ["é, \"x\"\ny", "1", ""], ["", "2", ""]]
    assert parquet.read_table(tmp_path / "out/rows.parquet").to_pylist() == [
        {"text": values[0]["text"], "n": 1, "more": None}, {"text": None, "n": 2, "more": None}]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"rows.jsonl", "rows.csv", "rows.parquet"}


def test_exported_rows_are_the_same_version(store: Store, tmp_path: Path) -> None:
    one = store.add([VersionRow({"b": "\ud800", "a": [1, {"x": 2.5}]}, Origin("f", 1))])
    export(store, one, tmp_path / "rows.jsonl")
    read = open_source("rows.jsonl", tmp_path).rows()
    assert store.add(VersionRow(r.values, Origin("rows.jsonl", r.line)) for r in read).id == one.id


@pytest.mark.parametrize(("values", "name", "said"), [
    ({"a": 1}, "rows.txt", r"no suffix that says how(.|\n)*\.jsonl, \.csv, \.parquet"),
    ({"a": [1]}, "rows.csv", 'column "a" holds lists'),
    ({"a": "\ud800"}, "rows.csv", "half of a surrogate pair"),
])
def test_what_cannot_be_exported(store: Store, tmp_path: Path, values: dict[str, object], name: str, said: str) -> None:
    one = store.add([VersionRow(values, Origin("f", 1))])
    with pytest.raises(UserError, match=said):
        export(store, one, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_columns_of_several_types_are_no_parquet(store: Store, tmp_path: Path) -> None:
    one = store.add([VersionRow({"a": 1}, Origin("f", 1)), VersionRow({"a": "x"}, Origin("f", 2))])
    with pytest.raises(UserError, match="no columns of one type each"):
        export(store, one, tmp_path / "rows.parquet")


def test_a_file_that_exists_is_not_replaced(store: Store, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(store, store.add(rows("a")), tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "mine"


# --- as a source -----------------------------------------------------------------------------------------------------


def test_a_version_is_a_source(store: Store, tmp_path: Path) -> None:
    one = store.add([*rows("a", "b"), row("c", 2, made_by="augment")], Provenance(name="small"))
    for name in ("data:small", f"data:{one.id[:8]}"):
        source = open_source(name, tmp_path)
        assert source.kind == "a data version"
        assert [(r.file, r.line, r.values["text"], r.made_by) for r in source.rows()] == [
            ("rows.jsonl", 1, "a", ""), ("rows.jsonl", 2, "b", ""), ("rows.jsonl", 2, "c", "augment")]
        assert one.short in source.notes[0]
    with pytest.raises(UserError, match="no version 'smal'"):
        open_source("data:smal", tmp_path)


def test_a_version_that_stays_in_its_file_is_a_source(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_text('{"text": "a"}\n')
    one = store.add_reference(FileState.of(path, "big.jsonl"), [r.hash for r in rows("a")])
    assert [(r.file, r.line, r.values) for r in open_source(f"data:{one.short}", Path()).rows()] == [
        ("big.jsonl", 1, {"text": "a"})]
