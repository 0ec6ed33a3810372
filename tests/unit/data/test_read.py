"""Which source a name means, and what may be shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.data.files import located, suffix_of
from tuneloop.data.read import open_source, read_table, without_secrets
from tuneloop.data.sources import database, documents, excel, folder, parquet, remote, saved, text
from tuneloop.errors import UserError


@pytest.mark.parametrize(("name", "data", "kind"), [
    ("rows.csv", b"a,b\n1,2\n", text), ("rows.parquet", b"PAR1", parquet), ("rows.csv", b"PAR1", parquet),
    ("rows.parquet", b"a,b\n1,2\n", text), ("rows.jsonl", b"PK\x03\x04", excel), ("notes.md", b"# Notes", documents),
    ("rows.CSV.gz", b"a,b\n1,2\n", text), ("rows", b"a,b\n1,2\n", text), ("a#b.csv", b"a,b\n1,2\n", text),
])
def test_content_goes_before_the_suffix(name: str, data: bytes, kind: object, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert type(open_source(name, tmp_path)) is kind.Source       # type: ignore[attr-defined]


def test_folders_and_addresses_go_to_their_sources(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "state.json").write_text("{}")
    assert type(open_source("plain", tmp_path)) is folder.Source
    assert type(open_source("kept", tmp_path)) is saved.Source
    assert database.Source.owns("postgresql+psycopg://h/x#SELECT 1")
    assert database.Source.owns("somedb://h/x#with a as (select 1) select * from a")
    assert not database.Source.owns("https://h/x.xlsx#Selected")
    assert [remote.Source.owns(name) for name in (
        "https://h/x.csv", "simplecache::s3://b/x", "sqlite:///x.db#SELECT 1", "C:\\rows.csv", "rows.csv")
            ] == [True, True, False, False, False]


@pytest.mark.parametrize(("name", "shown"), [
    ("postgresql://anna:s3cret@db:5432/x#SELECT 1", "postgresql://anna:***@db:5432/x#SELECT 1"),
    ("postgresql://anna:p@ss/w@db/x", "postgresql://anna:***@db/x"),
    ("s3://KEY:a/b+c@bucket/x.csv", "s3://KEY:***@bucket/x.csv"),
    ("https://token@host/x.csv", "https://***@host/x.csv"),
    ("https://h:8080/@u/x.csv?X-Amz-Signature=ab&page=2", "https://h:8080/@u/x.csv?X-Amz-Signature=***&page=2"),
    ("mysql://h/x?user=anna&password=s3cret", "mysql://h/x?user=anna&password=***"),
    ("rows@home.csv", "rows@home.csv"), ("hub:anna/reviews@main#train", "hub:anna/reviews@main#train"),
])
def test_passwords_and_keys_are_never_shown(name: str, shown: str) -> None:
    assert without_secrets(name) == shown


def test_a_name_given_for_people_loses_its_password_too(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert read_table("rows.csv", tmp_path, "https://u:p@h/rows.csv").file == "https://***@h/rows.csv"


def test_what_stands_behind_a_mark_is_a_part_unless_a_file_is_called_so(tmp_path: Path) -> None:
    assert located("book.xlsx#May 2", tmp_path) == (tmp_path / "book.xlsx", "May 2")
    (tmp_path / "a#b.csv").write_text("x")
    assert located("a#b.csv", tmp_path) == (tmp_path / "a#b.csv", "")
    assert suffix_of(Path("x/Rows.CSV.gz")) == ".csv"
    with pytest.raises(UserError, match="nothing in it is called b"):
        read_table("a#b.csv#b", tmp_path)
    with pytest.raises(UserError, match=r"(?i)home"):
        read_table("~nobody-is-called-so/rows.csv", tmp_path)
