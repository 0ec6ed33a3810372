"""Parquet, Arrow, saved data sets and Excel: plain values, numbered rows, and memory that stays bounded."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files import FORMATS, ROWS, as_arrow, as_excel, as_parquet, refused, table, values, write

from tuneloop.data import files
from tuneloop.data.sources import _batches, parquet
from tuneloop.data.sources._arrow_kinds import bytes_of, dense
from tuneloop.data.sources._arrow_sizes import batch_sizes
from tuneloop.data.sources._plain import plain

BINARY = ["rows.parquet", "rows.arrow", "rows.arrows", "rows.feather"]


@pytest.mark.parametrize("name", [*BINARY, "rows.xlsx"])
def test_rows_come_back_with_their_numbers(name: str, tmp_path: Path) -> None:
    found = table(tmp_path, name, FORMATS[name](ROWS))
    assert values(found.rows) == ROWS
    first = 2 if name == "rows.xlsx" else 1
    assert [row.line for row in found.rows] == list(range(first, first + len(ROWS)))
    assert found.columns == ["text", "label"]


@pytest.mark.parametrize("name", [*BINARY, "rows.xlsx"])
def test_damaged_files_are_said_to_be(name: str, tmp_path: Path) -> None:
    data = FORMATS[name](ROWS)
    assert "that is damaged, cut off or of an unknown make" in refused(tmp_path, name, data[:len(data) // 2])


def test_arrow_values_become_plain_python(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 1, 13, 30, 0, 250)
    arrow = pa.table({
        "when": pa.array([moment], pa.timestamp("ns")), "day": [moment.date()], "price": [decimal.Decimal("12.50")],
        "chat": [[{"role": "user", "content": "hi", "at": moment}]], "kind": pa.array(["a"]).dictionary_encode(),
        "counts": pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64())), "raw": [b"caf\xc3\xa9"],
        "picture": [{"bytes": b"\x89PNG\0", "path": None}], "half": pa.array([1.5], pa.float16()), "none": pa.nulls(1)})
    sink = pa.BufferOutputStream()
    pq.write_table(arrow, sink)
    wanted = {
        "when": "2024-05-01 13:30:00.000250", "day": "2024-05-01", "price": "12.50", "kind": "a", "counts": {"x": 1},
        "chat": [{"role": "user", "content": "hi", "at": "2024-05-01 13:30:00.000250"}], "raw": "café",
        "picture": {"bytes": "data:image/png;base64,iVBORwA=", "path": None}, "half": 1.5, "none": None}
    row = table(tmp_path, "rows.parquet", sink.getvalue().to_pybytes()).rows[0]
    assert row.values == wanted
    assert json.loads(json.dumps(row.values)) == wanted
    assert plain({1: (b"\xff", {2}, object)}) == {
        "1": ["data:application/octet-stream;base64,/w==", [2], "<class 'object'>"]}


def test_the_index_of_pandas_is_left_out_and_said(tmp_path: Path) -> None:
    found = table(tmp_path, "rows.parquet", as_parquet([{"a": 1, "__index_level_0__": 7}]))
    assert values(found.rows) == [{"a": 1}]
    assert "the index that pandas wrote is left out" in found.notes[0]
    twice = pa.table([[1], [2]], names=["a", "a"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, twice.schema) as writer:
        writer.write_table(twice)
    assert "two columns are called a" in refused(tmp_path, "rows.arrows", sink.getvalue().to_pybytes())
    assert "holds no rows" in refused(tmp_path, "none.parquet", _empty_parquet())


def _empty_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_that_is_too_long_is_named_and_the_rows_before_it_come(dictionary: bool, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_batches, parquet):
        monkeypatch.setattr(module, "LONGEST_ROW", 5000)
    rows = [{"a": "x" * (10_000 if i == 30 else 90)} for i in range(60)]
    assert "rows.parquet row 31 holds 10,0" in refused(tmp_path, "rows.parquet",
                                                       as_parquet(rows, use_dictionary=dictionary))
    assert "rows.arrow row 31 holds 10,0" in refused(tmp_path, "rows.arrow", as_arrow(rows))
    del rows[30]
    assert values(table(tmp_path, "rows.parquet", as_parquet(rows)).rows) == rows


def test_a_long_text_that_many_rows_point_to_is_not_multiplied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BOMB_BYTES", 10**7)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 10**4), ["x" * 10**5])
    arrow = pa.table({"a": text})
    sink, stream = pa.BufferOutputStream(), pa.BufferOutputStream()
    pq.write_table(arrow, sink, compression="zstd")
    with pa.ipc.new_stream(stream, arrow.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(arrow)
    for name, written in (("rows.parquet", sink), ("rows.arrows", stream)):
        assert "looks like a decompression bomb" in refused(tmp_path, name, written.getvalue().to_pybytes())


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BOMB_BYTES", 10**6)
    rows = [{"a": "x" * 10**4 + str(i)} for i in range(1000)]
    options = {"compression": "zstd", "use_dictionary": False, "data_page_size": 2**24}
    monkeypatch.setattr(_batches, "bytes_of", None)         # is never reached
    assert "looks like a decompression bomb" in refused(tmp_path, "rows.parquet", as_parquet(rows, **options))
    packed = as_arrow([{"a": "x" * 10**7}], compression="zstd")
    assert "looks like a decompression bomb" in refused(tmp_path, "rows.arrow", packed)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_sizes_of_arrow_batches_are_read_without_unpacking(compression: str | None) -> None:
    rows = [{"a": "x" * 999 + str(i % 10)} for i in range(32)]
    data = as_arrow(rows, compression=compression)
    *_, second, third = batch_sizes(io.BytesIO(data[8:]))
    for packed, unpacked in (second, third):
        assert 16_000 <= unpacked <= 16_200
        assert packed < 1000 if compression else packed == unpacked


def test_a_saved_data_set_is_read_over_all_its_files(tmp_path: Path) -> None:
    _save(tmp_path / "one", ROWS)
    found = table(tmp_path, "one")
    assert values(found.rows) == ROWS
    assert [row.line for row in found.rows] == list(range(1, 41))
    assert "has no splits" in refused(tmp_path, "one#train")


def _save(folder: Path, rows: list[dict[str, Any]]) -> None:
    """As `Dataset.save_to_disk` of datasets 5.2 lays it out."""
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    for i, name in enumerate(names):
        write(folder, name, as_arrow(rows[i * 25:(i + 1) * 25], pa.ipc.new_stream))
    write(folder, "state.json", json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None}))
    write(folder, "dataset_info.json", "{}")


def test_the_split_of_a_saved_data_set_is_chosen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _save(tmp_path / "all" / split, ROWS[:30] if split == "train" else ROWS[30:] * 3)
    write(tmp_path / "all", "dataset_dict.json", '{"splits": ["train", "test"]}')
    assert len(table(tmp_path, "all#train").rows) == 30
    assert "has 2 splits." in (said := refused(tmp_path, "all"))
    assert "write all#train" in said
    assert "none is called dev" in refused(tmp_path, "all#dev")
    write(tmp_path / "all", "dataset_dict.json", '{"splits": ["../one"]}')
    assert "none is called ../one" in refused(tmp_path, "all#../one")
    write(tmp_path / "all" / "train", "state.json", '{"_data_files": [{"filename": "../../secret.arrow"}]}')
    write(tmp_path / "all", "dataset_dict.json", '{"splits": ["train"]}')
    assert "names a file outside of the folder" in refused(tmp_path, "all")
    write(tmp_path / "all" / "train", "state.json", '{"_data_files": 5}')
    assert "a saved data set that is damaged" in refused(tmp_path, "all")


@pytest.mark.slow
def test_what_the_datasets_library_saves_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": saved, "test": saved.select(range(5))}).save_to_disk(str(tmp_path / "both"))
    saved.shuffle(seed=1).save_to_disk(str(tmp_path / "one"), num_shards=3)
    assert values(table(tmp_path, "both#test").rows) == ROWS[:5]
    assert values(table(tmp_path, "one").rows) == list(saved.shuffle(seed=1))


def _workbook(*records: list[Any], further: str = "") -> bytes:
    book = openpyxl.Workbook()
    book.active.title = "March"
    for record in records:
        book.active.append(record)
    if further:
        book.create_sheet(further).append(["q"])
        book[further].append(["only"])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_cells_become_what_a_person_sees(tmp_path: Path) -> None:
    day, moment = datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1, 13, 30)
    data = _workbook([], ["text", "n", "share", "on", "at", "hour", "ok", None],
                     ["hi\r\nyou", 3.0, 0.1, day, moment, datetime.time(9, 5), True], [], ["yo", 5])
    found = table(tmp_path, "book.xlsx", data)
    assert [row.line for row in found.rows] == [3, 5]
    assert found.rows[0].values == {"text": "hi\nyou", "n": "3", "share": "0.1", "on": "2024-05-01",
                                    "at": "2024-05-01 13:30:00", "hour": "09:05:00", "ok": "TRUE"}
    assert found.rows[1].values == {"text": "yo", "n": "5", "share": "", "on": "", "at": "", "hour": "", "ok": ""}


def test_the_sheet_is_chosen_and_the_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, "book.xlsx", _workbook(["a"], ["1"], further="April 2"))
    assert values(table(tmp_path, "book.xlsx#April 2").rows) == [{"q": "only"}]
    found = table(tmp_path, "book.xlsx")
    assert values(found.rows) == [{"a": "1"}]
    assert found.notes == ["the sheet March was read; there are also: April 2"]
    assert "one of: March, April 2" in refused(tmp_path, "book.xlsx#May")


@pytest.mark.parametrize(("name", "data", "said"), [
    ("book.xlsx", _workbook(["a"], [1, 2], [3], [4, 5, 6]), "row 2: 2 cells, but the header has 1 (1 more: 4)"),
    ("book.xlsx", _workbook(["a", "", "b"], [1, 2, 3]), "line 1: column 2 of the header has no name"),
    ("book.xlsx", _workbook(["a", "a"], [1, 2]), "two columns are called a"),
    ("book.xlsx", _workbook(["a"]), "has a header and no rows"), ("book.xlsx", _workbook(), "is an empty sheet"),
    ("book.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "is an old Excel workbook"),
    ("book.xlsx", b"PK\x03\x04rest", "a zip archive or an Excel workbook"),
])
def test_sheets_that_are_no_table(name: str, data: bytes, said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, name, data)


def test_zip_archives_are_no_workbooks_and_may_be_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("plain.zip", 10), ("bomb.xlsx", 10**7)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.csv", b" " * size)
    assert "plain.zip is a zip archive." in refused(tmp_path, "plain.zip")
    monkeypatch.setattr(files, "BOMB_BYTES", 10**6)
    assert "looks like a decompression bomb" in refused(tmp_path, "bomb.xlsx")


def test_missing_openpyxl_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "pip install 'tuneloop[data]'" in refused(tmp_path, "rows.xlsx", as_excel(ROWS))


@pytest.mark.parametrize("column", [
    pa.array([["x" * 50] * 9] * 20).cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    pa.array([{"a": {"b": "x" * 500}}] * 20,
             pa.struct([("a", pa.struct([("b", pa.dictionary(pa.int8(), pa.string()))]))])),
    pa.array([[("k", "x" * 500)]] * 20, pa.map_(pa.string(), pa.string())),
    pa.array([b"x" * 500] * 20, pa.binary_view()),
])
def test_what_values_hold_is_counted_wherever_they_are(column: Any) -> None:
    """At least 20 times 450 bytes, and no more than twice that with what lists and numbers take."""
    assert 20 * 450 <= bytes_of(column) < 2 * 20 * 500
    assert bytes_of(column.slice(5, 2)) * 10 == bytes_of(column)
    dense_kind = dense(column.type)
    assert column.cast(dense_kind).to_pylist() == column.to_pylist()


@pytest.mark.parametrize("column", [
    pa.RunEndEncodedArray.from_arrays(pa.array([10**6]), pa.array(["x"])),
    pa.ListViewArray.from_arrays(pa.array([0] * 9, pa.int32()), pa.array([1] * 9, pa.int32()), pa.array(["x"])),
])
def test_kinds_in_which_rows_share_values_are_not_read(column: Any, tmp_path: Path) -> None:
    batch, sink = pa.record_batch({"text": column}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    said = refused(tmp_path, "rows.arrows", sink.getvalue().to_pybytes())
    assert "the column text is of the kind " in said
    assert "which is not read" in said


def test_rows_of_nothing_are_no_way_around_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BOMB_BYTES", 10**6)
    batch, sink = pa.record_batch({"a": pa.nulls(10**9)}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert "looks like a decompression bomb" in refused(tmp_path, "rows.arrows", sink.getvalue().to_pybytes())


def test_views_of_texts_as_polars_writes_them_are_read(tmp_path: Path) -> None:
    texts = ["a", None, "long enough for a view"]
    batch, sink = pa.record_batch({"text": pa.array(texts, pa.string_view())}), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    found = table(tmp_path, "rows.arrow", sink.getvalue().to_pybytes())
    assert [row.values["text"] for row in found.rows] == texts
