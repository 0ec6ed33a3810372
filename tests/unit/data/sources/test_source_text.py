"""CSV and JSON in pieces of any size: the same rows, lines and complaints, and never more than a row in memory."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from source_files import FORMATS, PACK, ROWS, as_csv, as_jsonl, refused, table, until_refused, values, write

from tuneloop.data import decode, files
from tuneloop.data.sources import _delimited, _json, _lines
from tuneloop.errors import UserError

VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=3) |
                      st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=2, max_size=6)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few lines comes in many pieces."""
    monkeypatch.setattr(decode, "DECIDING_BYTES", 20)
    monkeypatch.setattr(files, "BLOCK_BYTES", 7)


def in_pieces(folder: Path, name: str, data: bytes | str, size: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "DECIDING_BYTES", size)
        patch.setattr(files, "BLOCK_BYTES", size)
        return table(folder, name, data)


@given(OBJECTS, st.sampled_from([None, 0, 1]), st.sampled_from(["list", "in data", "lines"]), st.integers(1, 40),
       st.booleans())
@settings(max_examples=150, deadline=None)
def test_json_in_pieces(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None,
                        layout: str, size: int, escaped: bool) -> None:
    whole = {"list": rows, "in data": {"a": {"data": [0]}, "data": rows, "b": [1, [2]]}}
    text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows) if layout == "lines" else (
        json.dumps(whole[layout], indent=indent, ensure_ascii=escaped))
    found = in_pieces(tmp_path_factory.mktemp("json"), "rows.jsonl" if layout == "lines" else "rows.json",
                      text.encode("utf-8", "surrogatepass"), size)
    assert values(found.rows) == rows
    if layout == "lines" or indent is None:
        assert [row.line for row in found.rows] == list(range(1, len(rows) + 1))
    else:
        lines = [line for line in text.split("\n")]
        assert all(lines[row.line - 1].lstrip().startswith("{") for row in found.rows)


FIELD = st.text(st.characters(exclude_characters="\r\0\ufeff", exclude_categories=["Cs", "Cc"]) |
                st.sampled_from('\n",;'), max_size=8)


@given(st.lists(st.tuples(FIELD, FIELD).filter(any), min_size=1, max_size=6), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_csv_in_pieces(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], size: int) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    text = stream.getvalue()
    found = in_pieces(tmp_path_factory.mktemp("csv"), "rows.csv", text, size)
    assert [tuple(row.values.values()) for row in found.rows] == rows
    lines = text.replace("\r\n", "\n").split("\n")
    assert all(lines[row.line - 1].startswith('"' + row.values["text"].split("\n")[0].replace('"', '""'))
               for row in found.rows)


@pytest.mark.parametrize("name", [name for name in FORMATS if name.partition(".")[2][:3] in ("jso", "csv", "tsv")])
def test_every_layout_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    found = table(tmp_path, name, FORMATS[name](ROWS))
    quotes = "" if name == "latin.csv" else "“quoted”"
    assert values(found.rows) == [{**row, "text": row["text"].replace("“quoted”", quotes or "quoted")} for row in ROWS]


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.data(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_json_is_broken_where_json_loads_says_so(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]],
                                                 indent: int | None, in_data: bool, data: st.DataObject,
                                                 size: int) -> None:
    whole = json.dumps({"data": rows} if in_data else rows, indent=indent)
    at = data.draw(st.integers(1, len(whole) - 1))
    text = whole[:at] + data.draw(st.sampled_from(["", ",", "]", "}", '"', "1", "x"])) + whole[at + 1:]
    wanted = None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        wanted = f"line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
    assume(wanted)
    with pytest.raises(UserError) as caught:
        in_pieces(tmp_path_factory.mktemp("json"), "rows.json", text, size)
    assert wanted in caught.value.text


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("name", "text", "said"), [
    ("rows.json", '[{"a": 1},\n {"a": 2},\n {"b" 3}]', "rows.json line 3, column 7: not valid JSON (Expecting ':'"),
    ("rows.json", '[{"a": 1},\n {"a": 2}\n {"b": 3}]', "rows.json line 3, column 2: not valid JSON (Expecting ','"),
    ("rows.json", '[{"a": 1}, {"a": "two\n"}]', "rows.json line 1, column 22: not valid JSON (Invalid control"),
    ("rows.json", '[{"a": 1}, {"a": 2}', "rows.json line 1, column 20: not valid JSON (Expecting ','"),
    ("rows.json", '[{"a": 1}]\n]', "rows.json line 2, column 1: not valid JSON (Extra data)"),
    ("rows.json", '{"a": [1, 2],\n"b": {"data": []}}', "is one JSON object with the keys a, b"),
    ("rows.json", '{"data": [{"a": 1}],\n"data": [{"a": 1}]}', 'line 2: a second list is called "data"'),
    ("rows.json", '{"data": [{"a": 1}],', "line 1, column 21: not valid JSON (Expecting property name"),
    ("rows.json", '{"data": [{"a": 1}] 1', "line 1, column 21: not valid JSON (Expecting ',' delimiter)"),
    ("rows.json", '{"data" [{"a": 1}]}', "line 1, column 9: not valid JSON (Expecting ':' delimiter)"),
    ("rows.json", '"text that goes on for a while"', "is a single JSON value"),
    ("rows.json", '{"data": []}', "holds no rows"),
    ("rows.json", '[{"a": 1},\n {"a": "' + "1" * 60 + '",\n 5: [1]}]', "line 3, column 2: not valid JSON (Expecti"),
    ("rows.json", '[{"a": 1},\n 123456789,\n "x", [1]]', "line 2: 123456789 is no JSON object (2 more: 3, 3)"),
    ("rows.jsonl", '{"a": 1}\n{"a": }\n[1]\n{"a": 1\n', "line 2: not valid JSON (Expecting value, column 7)"),
    ("rows.jsonl", '{"a": 1}\n\n[1]\n{"b": 2}\n7', "rows.jsonl line 3: [1] is no JSON object (1 more: 5)"),
    ("rows.csv", 'a,b\n1,2\n\n3\n"4\n",5\n6,7,8\n', "rows.csv line 4: 1 fields, but the header has 2 (1 more: 7)"),
    ("rows.csv", 'a,b\n1,2\n3,"4\n5,6\n', "rows.csv line 3: a quoted field does not end"),
])
def test_faults_are_named_by_line_in_pieces_too(name: str, text: str, said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, name, text)


def test_rows_come_before_the_complaint_about_others(tmp_path: Path) -> None:
    rows, said = until_refused(tmp_path, "rows.jsonl", '{"a": 1}\nbroken\n{"a": 3}\n')
    assert [(row.line, row.values) for row in rows] == [(1, {"a": 1}), (3, {"a": 3})]
    assert "line 2: not valid JSON" in said


def test_numbers_are_not_cut_where_a_piece_ends(tmp_path: Path) -> None:
    text = '[{"a": 1.5e+10}, 12, {"a": -0.25}]'
    for size in range(1, len(text)):
        with pytest.raises(UserError, match="line 2: 12 is no JSON object"):
            in_pieces(tmp_path, "rows.json", text, size)


def test_a_list_on_one_line_that_is_longer_than_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_json, "HELD_CHARACTERS", 30)
    one_line = table(tmp_path, "rows.json", json.dumps([{"a": i} for i in range(9)]))
    assert [row.line for row in one_line.rows] == list(range(1, 10))
    assert "the number of a row" in one_line.notes[0]
    several = table(tmp_path, "rows.json", json.dumps([{"a": i} for i in range(9)], indent=0))
    assert [row.line for row in several.rows] == list(range(2, 28, 3))
    assert not several.notes


@pytest.mark.parametrize(("levels", "is_read"), [(100, True), (101, False), (100_000, False)])
@pytest.mark.parametrize("layout", ["{}\n", '{"b": 1}\n{}\n', "[{}]", '[{"b": 1},\n{}]'])
def test_deep_nesting_is_refused_by_line(levels: int, is_read: bool, layout: str, tmp_path: Path) -> None:
    deep = '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"
    name, text = "rows.json" if layout[0] == "[" else "rows.jsonl", layout.replace("{}", deep)
    if is_read:
        assert len(table(tmp_path, name, text).rows) == layout.count("{")
    else:
        line = layout[:layout.index("{}")].count("\n") + 1
        assert f"{name} line {line}" in (said := refused(tmp_path, name, text))
        assert "nested more than 100 levels deep" in said


def test_brackets_in_texts_are_no_nesting(tmp_path: Path) -> None:
    assert len(table(tmp_path, "rows.jsonl", as_jsonl([{"a": "[" * 500}])).rows) == 1


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("name", "text"), [
    ("rows.jsonl", '{"a": 1}\n{"a": "{long}"}\n'), ("rows.json", '[{"a": 1},\n{"a": "{long}"}]'),
    ("rows.csv", 'a,b\n1,"{long}"'), ("rows.csv", 'a,b\n1,"{long}\n'),
    ("rows.csv", 'a,b\n1,"' + "\n".join(["x" * 30] * 9) + '"')])
def test_a_row_of_a_gigabyte_is_refused_by_line(name: str, text: str, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_lines, _json, _delimited):
        monkeypatch.setattr(module, "LONGEST_ROW", 200)
    said = refused(tmp_path, name, text.replace("{long}", "x" * 5000))
    assert f"{name} line 2: longer than 200 characters" in said or "line 2: a quoted field does not end" in said


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_archives_are_said_to_be(suffix: str, tmp_path: Path) -> None:
    data = PACK[suffix](as_jsonl(ROWS * 50))
    assert len(table(tmp_path, f"rows.jsonl.{suffix}", data).rows) == 2000
    assert f"is a damaged or cut-off {files.PACKED['.' + suffix]} file" in refused(
        tmp_path, f"rows.jsonl.{suffix}", data[:-20])
    assert "compressed in spite" in table(tmp_path, f"rows.jsonl.{suffix}", as_jsonl(ROWS)).notes[0]


@pytest.mark.parametrize("suffix", PACK)
def test_decompression_bombs_are_refused_while_unpacking(suffix: str, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BOMB_BYTES", 5 * 10**6)
    data = PACK[suffix](b'{"a": "' + b" " * 2 * 10**7)
    said = refused(tmp_path, f"rows.jsonl.{suffix}", data)
    assert f"looks like a decompression bomb: its {len(data):,} bytes unpack to more than" in said


def test_binary_files_inside_an_archive_are_named(tmp_path: Path) -> None:
    data = PACK["gz"](FORMATS["rows.parquet"](ROWS))
    assert "compressed with gzip, and what is inside is no text" in refused(tmp_path, "rows.parquet.gz", data)


def test_a_part_of_a_text_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "rows.csv", as_csv(ROWS))
    assert "leave #one away" in refused(tmp_path, "rows.csv#one")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_file_of_200_megabytes_takes_little_memory(name: str, tmp_path: Path) -> None:
    row = {"prompt": "What is it? " * 10, "answer": "Well. " * 10}
    with (tmp_path / name).open("wb") as file:
        body = as_csv([row] * 1000) if name == "rows.csv" else (as_jsonl([row] * 1000) if name == "rows.jsonl" else (
            json.dumps([row] * 1000, indent=0)[1:-2] + ",\n").encode())
        file.write(b"[" if name == "rows.json" else b"")
        for _ in range(200 * 10**6 // len(body)):
            file.write(body)
        file.write(b'{"prompt": "", "answer": ""}]' if name == "rows.json" else b"")
    code = ("import sys, resource; from pathlib import Path; from tuneloop.data.read import open_source\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "source = open_source(sys.argv[1], Path()); before = peak()\n"
            "print(sum(1 for _ in source.rows()), peak() - before)")
    command = [sys.executable, "-c", code, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, megabytes = done.stdout.split()
    assert int(rows) > 900_000
    assert float(megabytes) < 60
