"""Folders, standard input, databases, remote files, and what is no plain file."""

from __future__ import annotations

import gzip
import io
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from source_files import FORMATS, ROWS, as_csv, as_excel, as_jsonl, refused, table, until_refused, values, write

from tuneloop.data.sources import remote, stdin


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    stdin._kept.cache_clear()
    remote._fetched.cache_clear()


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_all_its_files_of_rows_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path, "all/b/rows.csv", as_csv(ROWS[:2]))
    write(tmp_path, "all/a.jsonl", as_jsonl(ROWS[2:4]))
    write(tmp_path, "all/c.parquet", FORMATS["rows.parquet"](ROWS[4:5]))
    for name in ("README.md", "b/LICENSE", ".hidden.csv", ".git/x.csv", "__MACOSX/x.csv", "paper.pdf"):
        write(tmp_path, f"all/{name}", b"no rows")
    found = table(tmp_path, "all")
    assert values(found.rows) == ROWS[2:4] + ROWS[:2] + ROWS[4:5]
    assert [(row.file, row.line) for row in found.rows] == [
        ("all/a.jsonl", 1), ("all/a.jsonl", 2), ("all/b/rows.csv", 2), ("all/b/rows.csv", 4), ("all/c.parquet", 1)]
    assert found.notes == ["not read, for they are no files of rows: README.md, b/LICENSE, paper.pdf"]
    assert found.kind == "a folder of 3 files"


def test_files_whose_names_say_what_they_are_for_can_be_chosen(tmp_path: Path) -> None:
    for name, row in (("train/0.jsonl", ROWS[0]), ("dev-1.jsonl", ROWS[1]), ("constraint.jsonl", ROWS[2])):
        write(tmp_path, f"all/{name}", as_jsonl([row]))
    assert values(table(tmp_path, "all#train").rows) == ROWS[:1]
    assert values(table(tmp_path, "all#validation").rows) == values(table(tmp_path, "all#dev").rows) == ROWS[1:2]
    found = table(tmp_path, "all/")
    assert len(found.rows) == 3
    assert "it holds files for train, validation, which are read together" in found.notes[0]
    said = refused(tmp_path, "all#test")
    assert "holds no file of rows for test" in said
    assert "one of: train, validation" in said


def test_every_bad_file_of_a_folder_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path, "all/a.jsonl", '{"a": 1}\nbroken\n')
    write(tmp_path, "all/b.csv", "")
    write(tmp_path, "all/c.jsonl", '{"a": 3}\n')
    rows, said = until_refused(tmp_path, "all")
    assert values(rows) == [{"a": 1}, {"a": 3}]
    assert "all/a.jsonl line 2: not valid JSON" in said
    assert "all/b.csv is empty" in said


def test_folders_without_rows(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "none holds no file of rows." in refused(tmp_path, "none")
    write(tmp_path, "none/notes.md", "# Notes")
    assert "docs:none reads text documents" in refused(tmp_path, "none")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_lead_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret/rows.csv", as_csv(ROWS))
    write(tmp_path, "all/rows.csv", as_csv(ROWS[:1]))
    (tmp_path / "all" / "again.csv").symlink_to(tmp_path / "all" / "rows.csv")
    (tmp_path / "all" / "loop").symlink_to(tmp_path / "all")
    assert len(table(tmp_path, "all").rows) == 2
    (tmp_path / "all" / "x.csv").symlink_to(secret)
    assert "x.csv is a link that leads out of the folder" in refused(tmp_path, "all")
    (tmp_path / "all" / "x.csv").unlink()
    (tmp_path / "all" / "deeper").symlink_to(secret.parent)
    assert "deeper is a link that leads out of the folder" in refused(tmp_path, "all")


# --- what is no plain file -------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="other kinds of files")
def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a pipe, which can be read only once" in refused(tmp_path, "pipe.csv")
    assert "is a device or a socket" in refused(tmp_path, "/dev/zero")
    monkeypatch.chdir(tmp_path)             # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.csv")
        assert "is a device or a socket" in refused(tmp_path, "s.csv")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    assert "is no name of a file" in refused(tmp_path, "a\0b.csv")
    assert "cannot be read: File name too long" in refused(tmp_path, "x" * 5000)


def test_too_many_open_files_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "rows.csv", as_csv(ROWS))

    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", full)
    assert "rows.csv cannot be read: Too many open files." in refused(tmp_path, "rows.csv")


# --- standard input --------------------------------------------------------------------------------------------------


class _Input:
    def __init__(self, data: bytes, terminal: bool = False) -> None:
        self.buffer, self.isatty = io.BytesIO(data), lambda: terminal


@pytest.mark.parametrize(("data", "kind"), [
    (as_csv(ROWS), "CSV"), (gzip.compress(as_jsonl(ROWS)), "JSONL"), (FORMATS["rows.parquet"](ROWS), "Parquet")])
def test_what_is_piped_in_may_be_of_any_kind_and_read_twice(data: bytes, kind: str, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Input(data))
    for _ in range(2):
        found = table(tmp_path, "-")
        assert (found.file, found.kind, values(found.rows)) == ("standard input", kind, ROWS)


def test_nothing_piped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Input(b"", terminal=True))
    assert "Nothing is piped into standard input" in refused(tmp_path, "-")
    monkeypatch.setattr(sys, "stdin", _Input(b""))
    assert "standard input is empty: 0 bytes" in refused(tmp_path, "-")


# --- databases -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE reviews (text, stars, photo)")
        connection.executemany("INSERT INTO reviews VALUES (?, ?, ?)",
                               [(f"50 % of :them; '{i}'", i % 5 + 0.5, b"\xff" if i else None) for i in range(2500)])
    connection.close()
    return tmp_path


def test_a_query_is_read_to_its_end(shop: Path) -> None:
    found = table(shop, "sqlite:///shop.db#SELECT text, stars, photo FROM reviews WHERE text LIKE '50 % of :them;%'")
    assert len(found.rows) == 2500
    assert (found.rows[1].line, found.rows[1].values) == (2, {
        "text": "50 % of :them; '1'", "stars": 1.5, "photo": "data:application/octet-stream;base64,/w=="})
    assert values(table(shop, "sqlite:///shop.db# WITH x AS (SELECT 1 AS a) -- one; row\n SELECT a FROM x;").rows) == [
        {"a": 1}]


@pytest.mark.parametrize(("query", "said"), [
    ("DELETE FROM reviews", "only a single query that begins with SELECT or WITH"),
    ("SELECT 1; DROP TABLE reviews", "only a single query"), ("", "only a single query"),
    ("WITH x AS (SELECT 1) DELETE FROM reviews", "attempt to write a readonly database"),
    ("SELECT text, text FROM reviews", "two columns of the result are called text"),
    ("SELECT nope FROM reviews", "no such column: nope"),
    ("SELECT * FROM reviews WHERE stars > 9", "holds no rows"),
])
def test_only_questions_are_asked(query: str, said: str, shop: Path) -> None:
    before = (shop / "shop.db").read_bytes()
    assert said in refused(shop, f"sqlite:///shop.db#{query}")
    assert (shop / "shop.db").read_bytes() == before


def test_databases_that_cannot_be_reached(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean shop.db?" in refused(shop, "sqlite:///shpo.db#SELECT 1")
    assert not (shop / "shpo.db").exists()
    write(shop, "no.db", b"SQLite format 3\0" + b"\xff" * 200)
    assert "the database says: " in refused(shop, "sqlite:///no.db#SELECT 1 FROM x")
    said = refused(shop, "postgresql+nodriver://anna:s3cret@h/x#SELECT 1")
    assert "Can't load plugin" in said
    assert "s3cret" not in said
    assert "the database says" in (said := refused(shop, "postgresql://anna:s3cret@h:port/x#SELECT 1"))
    assert "s3cret" not in said
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    said = refused(shop, "postgresql+psycopg2://anna:s3cret@h/x#SELECT 1")
    assert "needs the package of psycopg2" in said
    assert "pip install psycopg2-binary" in said
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert "pip install 'tuneloop[data]'" in refused(shop, "sqlite:///shop.db#SELECT 1")


# --- remote files ----------------------------------------------------------------------------------------------------


def test_remote_files_are_fetched_once_and_read_as_files_here_are(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe({"/shop/rows.jsonl.gz": gzip.compress(as_jsonl(ROWS)), "/shop/book.xlsx": as_excel(ROWS)})
    found = table(tmp_path, "memory://shop/rows.jsonl.gz")
    assert (found.kind, values(found.rows)) == ("JSONL", ROWS)
    assert found.notes == [f"{len(gzip.compress(as_jsonl(ROWS))) / 1e3:,.1f} kB fetched"]
    system.rm("/shop/rows.jsonl.gz")
    assert values(table(tmp_path, "memory://shop/rows.jsonl.gz").rows) == ROWS
    assert values(table(tmp_path, "memory://shop/book.xlsx#Sheet").rows) == ROWS
    assert "memory://shop/none.csv does not exist there" in refused(tmp_path, "memory://shop/none.csv")


def test_a_file_address_is_read_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", as_csv(ROWS))
    found = table(tmp_path, path.as_uri())
    assert values(found.rows) == ROWS
    assert not found.notes


@pytest.mark.parametrize(("address", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("https", "aiohttp")])
def test_missing_drivers_are_named_with_what_to_install(address: str, package: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(tmp_path, f"{address}://key:s3cret@bucket/rows.csv")
    assert f"pip install {package}" in said
    assert "s3cret" not in said


def test_what_goes_wrong_on_the_way_is_said_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Protocol not known: nosuch" in refused(tmp_path, "nosuch://bucket/rows.csv")

    def broken(self: object, path: str, *_: object, **__: object) -> None:
        raise ConnectionError("no answer from memory://u:s3cret@shop/rows.csv")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "_open", broken)
    said = refused(tmp_path, "memory://u:s3cret@shop/rows.csv")
    assert "memory://u:***@shop/rows.csv cannot be fetched: no answer from memory://u:***@shop/rows.csv." in said
