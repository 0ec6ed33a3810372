"""HTML to passages: what is text, what is not, and in which encoding."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from document_files import cited, read_document, text_of

from tuneloop.errors import UserError

PARAGRAPH = "Goods are sent back within two weeks. " * 20


def text(folder: Path, body: str | bytes) -> str:
    rows, _ = read_document(folder, body, "page.html")
    assert len(rows) == 1
    return text_of(rows)[0]


def test_what_stands_around_the_text_is_left_out(tmp_path: Path) -> None:
    page = ("<html><head><title>T</title><style>p {}</style></head><body><nav>Home</nav><script>alert(1)</script>"
            "<div role='navigation'>Menu</div><p>Text<svg><text>x</text></svg> that <!-- not this --> stays.</p>"
            "<p hidden>gone</p><noscript>no</noscript><footer>(c)</footer></body></html>")
    assert text(tmp_path, page) == "Text that stays."


def test_headings_lists_tables_and_listings_as_text(tmp_path: Path) -> None:
    page = """<h1>Shop</h1>
<p>We pay back &euro;5 &lt;b&gt; in <b>two</b>
days.<br>Really.</p>
<ul><li>one<li>two <ol><li>a</li><li><p>b</p><p>more of b</p></li></ol></ul>
<table><thead><tr><th></th><th>Price</th></tr></thead>
<tr><td>Apple</td><td><p>3</p></td></tr></table>
<pre>def f():
    return 1
</pre>
<div>before <p>inner</p> after</div>"""
    assert text(tmp_path, page) == """# Shop

We pay back €5 <b> in two days.
Really.

- one
- two
  1. a
  2. b
more of b

| Price
Apple | 3

def f():
    return 1

before

inner

after"""


def test_a_table_for_layout_is_no_table(tmp_path: Path) -> None:
    page = "<table><tr><td><h2>News</h2><p>One.</p></td><td>Two.</td></tr></table>"
    assert text(tmp_path, page) == "## News\n\nOne.\n\nTwo."


def test_rows_without_their_end_tags(tmp_path: Path) -> None:
    assert text(tmp_path, "<table><tr><td>1<td>2<tr><td>3<td>4</table>") == "1 | 2\n3 | 4"


def test_passages_cite_headings_and_lines(tmp_path: Path) -> None:
    page = (f"<title>Shop &amp; more</title>\n<h1>Shop &amp; more</h1>\n<h2>Refunds</h2>\n<p>{PARAGRAPH}</p>\n"
            f"<h3>Dead<em>lines</em></h3>\n<p>{PARAGRAPH}</p>\n")
    rows, _ = read_document(tmp_path, page, "page.html")
    assert cited(rows) == ["page.html, Refunds, lines 2-4", "page.html, Refunds > Deadlines, lines 5-6"]
    assert [(row.line, row.values["title"]) for row in rows] == [(2, "Shop & more"), (5, "Shop & more")]


@pytest.mark.parametrize(("head", "encoding"), [
    ('<meta charset="iso-8859-1">', "cp1252"),
    ('<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">', "cp1251"),
    ("<meta charset=shift_jis>", "shift_jis"),
    ('<?xml version="1.0" encoding="windows-1251"?>', "cp1251"), ('<meta charset="utf-8">', "utf-8"),
    ('<meta charset="utf-16">', "utf-8"), ("", "utf-8"), ('<meta charset="iso-8859-1">', "utf-8-sig"),
])
def test_the_page_says_how_it_is_encoded(tmp_path: Path, head: str, encoding: str) -> None:
    words = {"cp1252": "“Café” 5 €", "cp1251": "Возврат товара", "shift_jis": "返品"}.get(encoding, "Café 返品")
    assert text(tmp_path, f"<html><head>{head}</head><p>{words}</p>".encode(encoding)) == words


@pytest.mark.parametrize(("page", "message"), [
    (b'<meta charset="punycode"><p>a', "page.html declares the encoding punycode, which is none that is known here."),
    (b"<p>a</p><![ broken", "page.html cannot be read as HTML: "),
    (b'<meta charset="klingon"><p>a', "page.html declares the encoding klingon, which is none that is known here."),
    ('<meta charset="shift_jis"><p>Grüße'.encode("cp1252"), "page.html declares the encoding shift_jis, but cannot"),
    (b"<p>a</p>\n" + b"<a " * 200_000, "page.html line 2: a tag begins and does not end, nor do 100 after it."),
    (b"<p>a</p>\n" + b"<!-- <p> " * 200_000, "page.html line 2: a comment begins and does not end"),
    (b"<p></p>", "page.html holds no rows."), (b"", "page.html is empty"),
    (b"\x89PNG\r\n\x1a\n\0\0\0", "page.html line"),
])
def test_pages_that_are_refused(tmp_path: Path, page: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_document(tmp_path, page, "page.html")
    assert caught.value.text.startswith(message)


@pytest.mark.parametrize("page", ["<div>" * 20_000 + "x", "<b>x" * 20_000, "<p>x" * 20_000, "<li>x" * 20_000,
                                  "<table><tr><td>" * 5_000 + "x", "<ul><li>" * 5_000 + "x"])
def test_deep_pages_are_read(tmp_path: Path, page: str) -> None:
    rows, _ = read_document(tmp_path, page, "page.html")
    assert sum(passage.count("x") for passage in text_of(rows)) == page.count("x")


@pytest.mark.slow
def test_mutated_pages_are_read_or_refused(tmp_path: Path) -> None:
    whole = (f'<html><head><meta charset="utf-8"><title>T</title></head><body><h1>A</h1><p>{PARAGRAPH}</p><ul><li>é'
             "</li></ul><table><tr><td>1</td></tr></table><pre>x</pre></body></html>").encode()
    for seed in range(2_000):
        rng, data = random.Random(seed), bytearray(whole)
        for _ in range(rng.randint(1, 30)):
            at = rng.randrange(len(data))
            data[at:at + rng.choice((0, 1, 4))] = rng.choice(
                (b"", b"<", b">", b"</", b"<![", b"<?", b"&", rng.randbytes(2)))
        with contextlib.suppress(UserError):
            read_document(tmp_path, bytes(data), "page.html")
