"""Bytes that come in pieces become the same text as all of them at once."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.data import decode
from tuneloop.data.decode import Text
from tuneloop.errors import UserError


def decoded(data: bytes, size: int = 2**20) -> tuple[str, list[str]]:
    notes: list[str] = []
    blocks = [data[i:i + size] for i in range(0, len(data), size)]
    return "".join(Text(blocks, "rows.txt", notes).pieces()), notes


@pytest.fixture(scope="module", autouse=True)
def _decides_early() -> object:
    """On a few bytes, so that a text of a line is one of many pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "DECIDING_BYTES", 48)
        yield


@given(st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs", "Cc"]) | st.sampled_from("\r\n"),
               max_size=60).filter(str.strip),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_pieces_make_no_difference(text: str, encoding: str, size: int) -> None:
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert decoded(text.encode(encoding), size)[0] == wanted


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "gb18030"])
def test_the_first_accent_may_come_late(encoding: str) -> None:
    accents = "这部电影很好看，我喜欢它。" if encoding == "gb18030" else "déjà vu – très bien, cœur"
    text = "plain words\n" * 50 + f"{accents}\n" * 20
    found, notes = decoded(text.encode(encoding), 32)
    assert found == text
    assert notes == ([] if encoding == "utf-8" else [f"not UTF-8; decoded as {encoding}, guessed from its bytes"])


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_bytes_that_do_not_fit_are_named_by_line(ends: str) -> None:
    text = f"plain{ends}" * 30 + f"déjà{ends}" * 10
    with pytest.raises(UserError, match=r"line 41: the byte 0xe9 cannot be decoded as UTF-8, as the rest of the file "
                                        r"is \(2 such bytes in all\)"):
        decoded(text.encode() + b"d\xe9j\xe9" + ends.encode() + b"end", 7)


def test_a_nul_byte_is_named_by_line() -> None:
    with pytest.raises(UserError, match="line 31: holds a NUL byte"):
        decoded(b"plain\r\n" * 30 + b"a\0b", 5)


def test_a_text_of_no_known_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_guessed", lambda data: decode.NONE_FITS)
    with pytest.raises(UserError, match="line 2: the byte 0xe9 cannot be decoded as UTF-8 or any encoding"):
        decoded(b"plain\nd\xe9j\xe0\n")


@pytest.mark.parametrize(("data", "said"), [
    (b"", "is empty: 0 bytes."), (b" \n" * 4, "is empty: 8 bytes of white space."),
    (b" \n" * 40, "is empty: more than 50 bytes of white space."), (codecs.BOM_UTF16_LE, "is empty"),
    (b"SQLite format 3\0", "an SQLite database, not text"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
])
def test_what_is_no_text_is_said(data: bytes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        decoded(data, 5)
    assert said in caught.value.text


def test_a_head_can_be_looked_at_and_grows() -> None:
    text = Text([b"0123456789" * 5, b"0123456789"], "rows", [])
    assert text.head == "0123456789" * 5
    assert text.grow()
    assert text.head == "0123456789" * 6
    assert "".join(text.pieces()) == "0123456789" * 6
    assert not text.grow()
