"""Markdown, reStructuredText, plain text and code to passages that cite their lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from document_files import cited, read_document, read_named, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data.documents.passages import SIZE

PARAGRAPH = "Goods are sent back within two weeks. " * 20       # 760 characters
HANDBOOK = f"""# Handbook

Welcome to our shop.

## Refunds

{PARAGRAPH}

### Deadlines

{PARAGRAPH}

{PARAGRAPH}

## Contact

Write to us.
"""


def test_sections_become_passages_with_their_headings_and_lines(tmp_path: Path) -> None:
    rows, notes = read_document(tmp_path, HANDBOOK, "handbook.md")
    assert cited(rows) == ["handbook.md lines 1-7", "handbook.md, Refunds > Deadlines, lines 9-13",
                           "handbook.md, Contact, lines 15-17"]
    assert [row.line for row in rows] == [1, 9, 15]
    assert [row.values["title"] for row in rows] == ["Handbook"] * 3
    assert rows[2].values["text"] == "## Contact\n\nWrite to us."
    assert notes == []


def test_short_sections_stay_together_and_cite_what_they_share(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, "# Guide\n\n## Pay\n\n### Card\n\nYes.\n\n### Cash\n\nNo.\n", "guide.md")
    assert cited(rows) == ["guide.md, Pay, lines 1-11"]


def test_a_passage_is_what_stands_on_the_lines_it_cites(tmp_path: Path) -> None:
    text = "\n\n" + HANDBOOK * 3
    rows, _ = read_document(tmp_path, text, "handbook.md")
    lines = text.split("\n")
    for row in rows:
        first, last = map(int, row.values["source"].rpartition("lines ")[2].split("-"))
        assert row.values["text"] == "\n".join(lines[first - 1:last])
        assert row.line == first


def test_a_long_paragraph_is_cut_between_sentences(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, "This is one sentence of many. " * 200, "long.txt")
    assert len(rows) == 4
    assert all(text.rstrip().endswith("many.") and text.startswith("This") for text in text_of(rows))
    assert all(len(text) <= SIZE for text in text_of(rows))
    assert cited(rows) == ["long.txt line 1"] * 4


def test_what_looks_like_a_heading_in_a_listing_is_none(tmp_path: Path) -> None:
    text = f"# Real\n\n{PARAGRAPH}\n\n```sh\n# install\n\nmake\n```\n\n~~~\n# more\n```\n~~~\n\n## Next\n\ntext\n"
    rows, _ = read_document(tmp_path, text, "a.md")
    assert cited(rows) == ["a.md lines 1-14", "a.md, Next, lines 16-18"]


@pytest.mark.parametrize(("heading", "plain"), [
    ("# The `make` command #", "The make command"), ("Under the line\n======", "Under the line"),
    ("# See [the guide](https://example.com/a) **now**", "See the guide now"),
])
def test_titles_are_plain(tmp_path: Path, heading: str, plain: str) -> None:
    rows, _ = read_document(tmp_path, f"{heading}\n\ntext\n", "a.md")
    assert rows[0].values["title"] == plain


def test_a_yaml_header_is_no_text_and_gives_the_title(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, '---\ntitle: "Our shop"\ntags: [a]\n---\n\nHello.\n', "a.md")
    assert [(row.line, row.values["text"], row.values["title"]) for row in rows] == [(6, "Hello.", "Our shop")]


def test_levels_of_restructuredtext_are_numbered_as_they_come(tmp_path: Path) -> None:
    text = f"""=====
Guide
=====

Intro.

Refunds
-------

{PARAGRAPH}

Deadlines
~~~~~~~~~

{PARAGRAPH}

Contact
-------

Write to us.
"""
    rows, _ = read_document(tmp_path, text, "guide.rst")
    assert cited(rows) == ["guide.rst lines 1-10", "guide.rst, Refunds > Deadlines, lines 12-15",
                           "guide.rst, Contact, lines 17-20"]
    assert rows[0].values["title"] == "Guide"


def test_functions_are_whole_where_they_fit(tmp_path: Path) -> None:
    functions = [f"def f{i}():\n    a = {i}\n\n    return a  {'# why' * 80}\n" for i in range(12)]
    rows, _ = read_document(tmp_path, "\n\n".join(functions), "app.py")
    assert len(rows) == 3
    assert all(text.startswith("def f") and text.endswith("# why") for text in text_of(rows))
    assert cited(rows)[0] == "app.py lines 1-22"
    assert "\n\n\n".join(text_of(rows)) + "\n" == "\n\n".join(functions)


def test_minified_code_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.js").write_text("var a=1;" * 1000)
    (tmp_path / "src" / "b.js").write_text("function f() { return 1; }\n")
    rows, notes = read_named("docs:src", tmp_path)
    assert cited(rows) == ["b.js line 1"]
    assert notes == ["a.js: left out, for it is minified"]


@pytest.mark.parametrize("line", ["# " * 200_000 + "x", "# " + "[" * 200_000, "# " + "<" * 200_000,
                                  "-" * 200_000 + "x"])
def test_long_odd_lines_end(tmp_path: Path, line: str) -> None:
    rows, _ = read_document(tmp_path, f"{line}\n\ntext\n", "a.md")
    assert text_of(rows)[-1].endswith("text")
    assert max(map(len, cited(rows))) < 300


@given(st.lists(st.sampled_from(["# A\n", "## B\n", "text. More.\n", "\n", "```\n", "- item\n", "A\n===\n", "x" * 900,
                                 "Word. " * 100 + "\n"]), max_size=40))
@settings(max_examples=150, deadline=None)
def test_no_text_is_lost_and_none_is_doubled(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    text = "".join(parts) + "\nend\n"
    rows, _ = read_document(tmp_path_factory.mktemp("documents"), text, "a.md")
    assert "".join("".join(text_of(rows)).split()) == "".join(text.split())
    assert all(len(passage) <= 2 * SIZE for passage in text_of(rows))
