"""PDF to passages, and every PDF that cannot be read."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import pytest
from document_files import cited, pdf_of, read_document, read_named, text_of
from pypdf import PdfReader, PdfWriter

from tuneloop.data.sources.documents import Source
from tuneloop.errors import UserError

LONG = "Goods may be sent back within fourteen days of their delivery to the buyer."


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_document(folder, data, "guide.pdf")
    return caught.value.text


def test_each_passage_cites_its_page(tmp_path: Path) -> None:
    pages = [[f"{word}. {LONG}"] * 12 for word in ("One", "Two", "Three")]
    rows, notes = read_document(tmp_path, pdf_of(pages, title="The  guide"), "guide.pdf")
    assert cited(rows) == ["guide.pdf page 1", "guide.pdf page 2", "guide.pdf page 3"]
    assert [(row.line, row.values["title"]) for row in rows] == [(1, "The guide"), (2, "The guide"), (3, "The guide")]
    assert text_of(rows)[1] == " ".join(pages[1])
    assert notes == []


def test_lines_become_paragraphs_and_cut_words_are_mended(tmp_path: Path) -> None:
    page = ["Refunds", "", "Goods may be sent back within fourteen days of their deliv-",
            "ery to the buyer, except for well-known goods that were made to", "measure.",
            "Shipping is paid by the seller, who must do so in some well-",
            "known manner, such as a bank transfer within the day.",
            "- first item of a list which is long enough to fill the line", "- second item"]
    rows, _ = read_document(tmp_path, pdf_of([page]), "guide.pdf")
    assert text_of(rows) == [
        "Refunds\n\n"
        "Goods may be sent back within fourteen days of their delivery to the buyer, except for well-known goods that "
        "were made to measure.\n\n"
        "Shipping is paid by the seller, who must do so in some well-known manner, such as a bank transfer within the "
        "day.\n\n- first item of a list which is long enough to fill the line\n\n- second item"]


def test_a_very_long_word_ends(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, pdf_of([["a" * 200_000, "b"]]), "guide.pdf")
    assert sum(map(len, text_of(rows))) >= 200_000


def test_a_sentence_and_a_word_go_on_over_a_page(tmp_path: Path) -> None:
    rows, _ = read_document(tmp_path, pdf_of([["The buyer may return all of the goods with-"], ["out any reason."]]),
                            "guide.pdf")
    assert (cited(rows), text_of(rows)) == (["guide.pdf pages 1-2"],
                                            ["The buyer may return all of the goods without any reason."])


def test_headers_and_footers_of_most_pages_are_left_out_and_named(tmp_path: Path) -> None:
    pages = [["Acme handbook", f"{word} is the text of this page, {LONG}", f"Page {number} of 4"]
             for number, word in enumerate(("One", "Two", "Three", "Four"), 1)]
    rows, notes = read_document(tmp_path, pdf_of(pages), "guide.pdf")
    assert text_of(rows) == ["\n\n".join(page[1] for page in pages)]
    assert notes == ["guide.pdf: left out at the top or foot of pages: Acme handbook; Page # of #"]


def test_two_pages_have_no_headers(tmp_path: Path) -> None:
    rows, notes = read_document(tmp_path, pdf_of([["Same first line."], ["Same first line."]]), "guide.pdf")
    assert (text_of(rows), notes) == (["Same first line.\n\nSame first line."], [])


def test_pages_without_text_are_named(tmp_path: Path) -> None:
    _, notes = read_document(tmp_path, pdf_of([["Text."], [], ["Text."], []]), "guide.pdf")
    assert notes == ["guide.pdf: no text, and so nothing read, on pages 2, 4: a scan or an empty page"]
    assert "no text on any of its 2 pages" in refused(tmp_path, pdf_of([[], []]))


def test_a_password_is_asked_for_and_an_empty_one_is_none(tmp_path: Path) -> None:
    def encrypted(password: str) -> bytes:
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of([["Secret text."]]))))
        writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
        writer.write(data := io.BytesIO())
        return data.getvalue()

    assert "guide.pdf is encrypted and needs a password" in refused(tmp_path, encrypted("secret"))
    assert text_of(read_document(tmp_path, encrypted(""), "guide.pdf")[0]) == ["Secret text."]


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4\n", b"no PDF at all", pdf_of([["Text."]])[:200],
                                  pdf_of([["Text."]]).replace(b"/Pages 2 0 R", b"/Pages 9 0 R")])
def test_damaged_files_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, data).startswith("guide.pdf is no PDF, or a damaged one: ")


def test_in_a_folder_the_others_are_read_first(tmp_path: Path) -> None:
    for name, data in (("a.pdf", b"broken"), ("b.pdf", pdf_of([["Text."]])), ("c.pdf", b"")):
        (tmp_path / name).write_bytes(data)
    rows = Source("docs:.", tmp_path, "docs:.").rows()
    assert next(rows).values["source"] == "b.pdf page 1"
    with pytest.raises(UserError, match=r"\./a.pdf is no PDF, or a damaged one"):
        next(rows)


@pytest.mark.slow
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    whole = pdf_of([[f"{LONG} {i}"] for i in range(3)])
    for seed in range(1_000):
        rng, data = random.Random(seed), bytearray(whole)
        for _ in range(rng.randint(1, 20)):
            at = rng.randrange(len(data))
            data[at:at + rng.choice((0, 1, 1, 5))] = rng.randbytes(rng.choice((0, 1, 1, 3)))
        (tmp_path / "guide.pdf").write_bytes(data)
        with contextlib.suppress(UserError):
            read_named("docs:guide.pdf", tmp_path)
