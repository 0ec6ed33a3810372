"""A folder or repository of documents: which files are read, and what is said of the others."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from document_files import cited, pdf_of, read_document, read_named

from tuneloop.data.read import open_source
from tuneloop.data.sources.documents import Source
from tuneloop.errors import UserError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files: dict[str, bytes] = {
        "README.md": b"# Tool\n\nIt does things.\n", "src/app.py": b"def run():\n    return 1\n",
        "src/page.html": b"<h1>Page</h1><p>Text", "guide.pdf": pdf_of([["Text."]]), "Makefile": b"all:\n\tbuild\n",
        "src/empty.py": b"", "src/blob.py": b"a\0b", "src/huge.py": b"x = 1\n" * 200_000, "logo.png": b"\x89PNG",
        "a.csv": b"a,b\n", "b.csv": b"a,b\n", ".git/config.md": b"no", "node_modules/left/pad.js": b"no",
        "build/out.py": b"no", "wide.txt": "Grüße".encode("utf-16"),
    }
    for name, data in files.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "secret.py").write_text("password = 1\n")
    (tmp_path / "repo" / "src" / "link.py").symlink_to(tmp_path / "secret.py")
    return tmp_path


def test_what_is_read_and_what_is_left_out(repository: Path) -> None:
    rows, notes = read_named("docs:repo", repository)
    assert cited(rows) == ["Makefile lines 1-2", "README.md lines 1-3", "guide.pdf page 1", "wide.txt line 1",
                           "src/app.py lines 1-2", "src/page.html line 1"]
    assert [row.file for row in rows][:2] == ["repo/Makefile", "repo/README.md"]
    assert notes == [
        "wide.txt: decoded as utf-16-le",
        "left out, folders of what was built or comes from elsewhere: .git, build, node_modules",
        "left out, binary files: src/blob.py", "left out, empty files: src/empty.py",
        "left out, texts of more than 1 MB: src/huge.py", "left out, links: src/link.py",
        "not read, for they are no documents: 2 .csv, 1 .png",
    ]


def test_the_source_is_found_by_its_scheme_and_by_suffix(repository: Path) -> None:
    assert open_source("docs:repo", repository).kind == "documents"
    for name, kind in (("repo/README.md", "Markdown"), ("repo/guide.pdf", "PDF"), ("repo/src/page.html", "HTML"),
                       ("docs:repo/src/app.py", "source code")):
        source = open_source(name, repository)
        assert isinstance(source, Source)
        assert source.kind == kind
        assert len(list(source.rows())) == 1


def test_a_compressed_document(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, gzip.compress(b"# Tool\n\nText.\n"), "a.md.gz")
    assert (cited(rows), rows[0].values["title"]) == (["a.md.gz lines 1-3"], "Tool")
    rows, _ = read_document(tmp_path, gzip.compress(pdf_of([["Text."]])), "a.pdf.gz")
    assert cited(rows) == ["a.pdf.gz page 1"]


@pytest.mark.parametrize(("name", "message"), [
    ("docs:missing.md", "missing.md does not exist."), ("docs:repo/logo.png", "repo/logo.png is no document that can"),
    ("docs:repo/build", "repo/build holds no rows."),
])
def test_what_is_refused(repository: Path, name: str, message: str) -> None:
    (repository / "repo" / "build" / "out.py").unlink()
    with pytest.raises(UserError) as caught:
        read_named(name, repository)
    assert caught.value.text.startswith(message)
