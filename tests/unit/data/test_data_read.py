"""Files to raw rows: formats, encodings, line numbers, and every kind of broken file."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from data_rows import SHARED, read
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.read import Table
from tuneloop.errors import UserError

TEXT = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=30)


def read_bytes(folder: Path, data: bytes | str, name: str = "rows.csv") -> Table:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(path, name)


def values(table: Table) -> list[dict[str, object]]:
    return [row.values for row in table.rows]


def refused(folder: Path, data: bytes | str, name: str = "rows.csv") -> str:
    with pytest.raises(UserError) as caught:
        read_bytes(folder, data, name)
    return caught.value.text


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    table = read_bytes(tmp_path, 'text,label\r\n"two\r\nlines",a\r\n\r\nlast,b\r\n')
    assert [row.line for row in table.rows] == [2, 5]
    assert table.rows[0].values == {"text": "two\nlines", "label": "a"}


@pytest.mark.parametrize(("delimiter", "kind"), [(",", "CSV"), (";", "CSV"), ("\t", "TSV"), ("|", "CSV")])
def test_delimiter_is_found_among_the_others(tmp_path: Path, delimiter: str, kind: str) -> None:
    rows = [["text", "label"], ["one, two; three | four", "a"], ["1,5; 2,5 | 3", "b"], ["plain", "c"]]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    table = read_bytes(tmp_path, stream.getvalue())
    assert (table.kind, values(table)[0]) == (kind, {"text": "one, two; three | four", "label": "a"})
    assert any("separated" in note for note in table.notes) == (delimiter in ";|")


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_csv_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "label"), *rows, ("last", "row")])
    table = read_bytes(tmp_path_factory.mktemp("csv"), stream.getvalue())
    assert [tuple(row.values()) for row in values(table)] == [r for r in [*rows, ("last", "row")] if any(r)]
    lines = stream.getvalue().split("\n")
    assert all(lines[row.line - 1].startswith('"' + row.values["text"].split("\n")[0].replace('"', '""'))
               for row in table.rows)


JSON_VALUES = st.dictionaries(st.text(min_size=1, max_size=3), st.text(max_size=20) | st.integers() | st.none() |
                              st.lists(st.text(max_size=5), max_size=3), max_size=4)


@given(st.lists(JSON_VALUES, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_json_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]],
                                          indent: int | None, in_data: bool, packed: bool) -> None:
    text = json.dumps({"about": [{}], "data": rows} if in_data else rows, indent=indent)
    data, name = (gzip.compress(text.encode()), "rows.json.gz") if packed else (text.encode(), "rows.json")
    table = read_bytes(tmp_path_factory.mktemp("json"), data, name)
    assert values(table) == rows
    if indent and not in_data:
        lines = text.split("\n")
        assert all(lines[row.line - 1].startswith(" {") for row in table.rows)
        assert len({row.line for row in table.rows}) == len(rows)


@given(st.lists(JSON_VALUES.filter(bool), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_jsonl_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory,
                                           rows: list[dict[str, object]]) -> None:
    text = "\n\n".join(json.dumps(row) for row in rows)
    for name in ("rows.jsonl", "rows.json", "rows.csv", "rows"):        # content decides where suffixes mislead
        table = read_bytes(tmp_path_factory.mktemp("jsonl"), text, name)
        assert (table.kind, values(table), [r.line for r in table.rows]) == (
            "JSONL", rows, list(range(1, 2 * len(rows), 2)))


@pytest.mark.parametrize(("encoding", "text"), [
    ("latin-1", "café crème numéro 3, déçu"), ("cp1252", "Schöne Grüße aus München"),
    ("cp1252", "¿Dónde está mi señor?"), ("cp1254", "İyi günler, çalışıyorum"),
    ("cp932", "こんにちは世界、元気ですか"),
    ("iso8859_5", "Этот фильм очень хороший"), ("cp866", "Этот фильм очень хороший"),
    ("cp1253", "Καλημέρα κόσμε")])
def test_what_old_programs_write(encoding: str, text: str, tmp_path: Path) -> None:
    rows = "".join(f'"{text} {i}",{"yes" if i % 2 else "no"}\n' for i in range(40))
    table = read_bytes(tmp_path, f"text,label\n{rows}".encode(encoding))
    assert [row.values["text"] for row in table.rows] == [f"{text} {i}" for i in range(40)]


def test_a_header_that_looks_like_a_row_is_told(tmp_path: Path) -> None:
    table = read_bytes(tmp_path, b"fine,good\npoor,bad\nnice,good\n")
    assert "'good' also occurs below it" in table.notes[0]


def test_a_list_on_one_line_is_numbered_by_rows(tmp_path: Path) -> None:
    table = read_bytes(tmp_path, b'[{"a": 1}, {"a": 2}, {"a": 3}]', "rows.json")
    assert [row.line for row in table.rows] == [1, 2, 3]
    assert "the number of a row" in table.notes[0]
    assert len({row.digest for row in table.rows}) == 3


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251",
                                      "cp1250", "gb18030"])
def test_encodings_are_found_and_said(tmp_path: Path, encoding: str) -> None:
    texts = {"cp1251": "Этот фильм очень хороший", "cp1250": "Zażółć gęślą jaźń, proszę państwa",
             "gb18030": "这部电影很好看我喜欢"}
    text = texts.get(encoding, "Un café “crème” à 5 € – très agréable")
    table = read_bytes(tmp_path, f'text,label\n"{text}",oui\nrien,non\n'.encode(encoding))
    assert values(table)[0] == {"text": text, "label": "oui"}
    assert any("decoded as" in note for note in table.notes) == (encoding != "utf-8-sig")


@pytest.mark.parametrize("text", ["café", "only 5€ for this", "5 £ and it’s naïve", "“Great” movie — don’t miss it"])
def test_a_single_accent_is_western_european(tmp_path: Path, text: str) -> None:
    table = read_bytes(tmp_path, f"text,label\n{text},good\nbad,bad\n".encode("cp1252"))
    assert values(table)[0]["text"] == text
    assert "cp1252" in table.notes[0]


def test_a_damaged_utf8_file_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    data = "text,label\ncafé,a\nthé,b\n".encode() + b"na\xefve,c\n"
    assert "rows.csv line 4: the byte 0xef cannot be decoded as UTF-8" in refused(tmp_path, data)


def test_long_fields_pass_and_the_limit_of_the_csv_module_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    table = read_bytes(tmp_path, "text,label\n" + "x" * 300_000 + ",a\n")
    assert len(str(values(table)[0]["text"])) == 300_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(("data", "name", "said"), [
    (b"", "rows.csv", "is empty: 0 bytes"),
    (b" \n\t\n", "rows.jsonl", "is empty: 4 bytes of white space"),
    (codecs.BOM_UTF8, "rows.csv", "is empty"),
    (b"text,label\n", "rows.csv", "has a header and no rows"),
    (b",,\n,,\n", "rows.csv", "has a header and no rows"),
    (b"[]", "rows.json", "holds no rows"),
    (b"text,label\na\0b,c\n", "rows.csv", "line 2: holds a NUL byte"),
    (bytes(range(1, 256)) * 4, "rows.csv", "is no text"),
    (b"PK\x03\x04rest", "rows.csv", "a zip archive or an Excel workbook"),
    (b"PAR1rest", "rows.parquet", "a Parquet file"),
    (gzip.compress(b"text,label\na,b\n" * 99, mtime=0)[:-12], "rows.csv.gz", "damaged or cut-off gzip"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "rows.jsonl.gz", "is a Git-LFS pointer"),
    (b'[{"a": 1},\n {"a": }]', "rows.json", "rows.json line 2, column 8: not valid JSON"),
    (b'{"a": {"b": 1},\n "c": 2}', "rows.json", "one JSON object with the keys a, c"),
    (b"[1,\n 2]", "rows.json", "rows.json line 1: 1 is no JSON object (1 more: 2)"),
    (b"text,label\na,b\nc,d,e\nf\n", "rows.csv", "line 3: 3 fields, but the header has 2 (1 more: 4)"),
    (b"text,text\na,b\n", "rows.csv", "two columns are called text"),
    (b",text,label\n0,a,b\n", "rows.csv", "column 1 of the header has no name"),
    (b'text,label\nfine,a\n"never closed,b\nmore,c\n', "rows.csv", "line 3: a quoted field does not end"),
])
def test_broken_files_are_refused_with_the_place(tmp_path: Path, data: bytes, name: str, said: str) -> None:
    assert said in refused(tmp_path, data, name)


def test_all_broken_lines_at_once_but_not_more_than_ten(tmp_path: Path) -> None:
    text = refused(tmp_path, '{"a": 1}\n' + "{'a': 1}\n" * 13, "rows.jsonl")
    assert text.count("not valid JSON") == 10
    assert "rows.jsonl line 2: " in text
    assert "3 further lines" in text


def test_missing_file_suggests_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("x")
    with pytest.raises(UserError, match=r"did you mean reviews\.csv\?"):
        read(tmp_path / "reveiws.csv", "reveiws.csv")
    with pytest.raises(UserError, match="nor does its folder"):
        read(tmp_path / "no" / "reviews.csv", "no/reviews.csv")


@pytest.mark.parametrize("name", ["APPS_zeroshot.zip", "helpful_base_test.jsonl.gz"])
def test_real_git_lfs_pointers(name: str) -> None:
    path = SHARED / "malformed_lfs_pointers" / name
    if not path.exists():
        pytest.skip("the shared data is not here")
    with pytest.raises(UserError, match="Git-LFS pointer"):
        read(path, name)
