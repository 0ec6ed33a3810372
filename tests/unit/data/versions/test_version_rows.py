"""What rows and versions are known by, computed a second time with nothing but hashlib; and how rows lie on disk."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from version_rows import many, row, rows

from tuneloop.data.read import Row
from tuneloop.data.versions import chunks
from tuneloop.data.versions.rows import Identity, VersionRow, row_hash
from tuneloop.errors import UserError
from tuneloop.types import Origin

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)


def test_the_hash_of_a_row_is_that_of_its_sorted_json() -> None:
    expected = hashlib.sha256(b'{"a": 1, "b": "\\u00e9"}').digest()
    assert row_hash({"b": "é", "a": 1}) == expected
    assert Row(1, {"b": "é", "a": 1}).digest == expected.hex()[:16]


def test_the_id_is_that_of_the_sorted_hashes() -> None:
    hashes = [hashlib.sha256(bytes([n])).digest() for n in range(50)]
    expected = hashlib.sha256(b"".join(sorted([*hashes, hashes[0]]))).hexdigest()
    shuffled = [*hashes, hashes[0]]
    random.Random(0).shuffle(shuffled)
    assert Identity(shuffled).id == expected
    assert Identity(hashes).id != expected              # how often a row occurs counts


def test_hashes_that_end_in_zero_bytes_are_sorted_whole() -> None:
    hashes = [bytes(32), b"\1" + bytes(31), bytes(31) + b"\1"]
    assert Identity(hashes).id == hashlib.sha256(b"".join(sorted(hashes))).hexdigest()


def test_the_id_of_no_rows() -> None:
    assert Identity().id == hashlib.sha256(b"").hexdigest()


def cut_sizes(given: list[VersionRow]) -> list[int]:
    return [len(part) for part in chunks.cut(given)]


def test_all_rows_are_cut_into_files_in_their_order() -> None:
    given = many(20_000)
    parts = list(chunks.cut(given))
    assert [r for part in parts for r, _ in part] == given
    assert 4 <= len(parts) <= 25                        # about 20,000 / 2,048, and no less than 20,000 / 8,192 + 1


def test_one_row_less_changes_one_file() -> None:
    given = many(20_000)
    before, after = ([tuple(r.hash for r, _ in part) for part in chunks.cut(rows)]
                     for rows in (given, given[:9_000] + given[9_001:]))
    assert sum((Counter(before) - Counter(after)).values()) in (1, 2)       # 2 where the row was a border


def test_a_file_never_holds_more_than_so_many_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    same = rows(*["never a border"] * 20_000)
    assert max(cut_sizes(same)) == chunks.MOST_ROWS
    monkeypatch.setattr(chunks, "MOST_BYTES", 1_000)
    assert max(cut_sizes(rows(*["x" * 300] * 9))) == 4


@settings(deadline=None)        # the first call imports pyarrow
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory,
                                     values: list[dict[str, object]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    given = [VersionRow(v, Origin(f"f{i % 2}.csv", i), "augment" * (i % 2)) for i, v in enumerate(values)]
    written = [chunks.write(folder, held) for held in chunks.cut(given)]
    found = [row for chunk in written for row in chunks.read(folder, chunk)]
    assert found == given
    assert [list(r.values) for r in found] == [list(v) for v in values]     # columns keep their order
    assert [r.origin.row for r in found] == [r.hash.hex()[:16] for r in given]
    assert [chunks.flaw(folder, chunk) for chunk in written] == [""] * len(written)


def test_half_of_a_surrogate_pair_comes_back(tmp_path: Path) -> None:
    [held] = chunks.cut([row("\ud800")])
    assert chunks.read(tmp_path, chunks.write(tmp_path, held))[0].values == {"text": "\ud800"}


def test_a_file_is_named_by_what_it_holds(tmp_path: Path) -> None:
    def written(*given: VersionRow) -> chunks.Chunk:
        [held] = chunks.cut(given)
        return chunks.write(tmp_path, held)

    one = written(row("a"))
    assert written(row("a")) == one
    others = [written(row("b")), written(row("a", 2)), written(row("a", file="other")), written(row("a", made_by="x"))]
    assert len({one, *others}) == 5
    assert len(list(tmp_path.rglob("*.arrow"))) == 5


def test_the_name_of_a_file_by_hand(tmp_path: Path) -> None:
    """It must never change between releases: versions would share nothing with those of before."""
    [held] = chunks.cut(rows("a", "é"))
    parts = ['{"text": "a"}', '["rows.jsonl", 1, ""]', '{"text": "é"}', '["rows.jsonl", 2, ""]']
    expected = hashlib.sha256(f"13 21 {parts[0]}{parts[1]}14 21 {parts[2]}{parts[3]}".encode()).hexdigest()
    assert chunks.write(tmp_path, held) == chunks.Chunk(expected, 2)


def test_a_broken_file_is_noticed(tmp_path: Path) -> None:
    [held] = chunks.cut(rows("a", "b"))
    chunk = chunks.write(tmp_path, held)
    path = chunk.path(tmp_path)
    [other] = chunks.cut(rows("a", "c"))
    path.write_bytes(chunks.write(tmp_path, other).path(tmp_path).read_bytes())
    assert "does not hold what its name says" in chunks.flaw(tmp_path, chunk)
    path.write_bytes(path.read_bytes()[:100])
    assert "is broken" in chunks.flaw(tmp_path, chunk)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        chunks.read(tmp_path, chunk)
