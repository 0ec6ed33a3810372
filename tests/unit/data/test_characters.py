"""Mojibake read anew, exactly or not at all; invisible characters removed where nothing needs them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.data.characters import needless, outside_code, repaired, without_needless

GOOD = [
    "naïve café — “quoted” isn’t… 5 € ©2020 25 °C ™",
    "Straße, Größe; „Zitat“ und »Wort«", "São João à noite, NÃO",
    "Il a dit : « CAFÉ », fermé\u00a0» et « été »… À\u00a0bientôt\u00a0!", "Привет, как дела? «Хорошо»", "你好，世界！",
    "नमस्ते दुनिया", "안녕하세요", "日本語テスト", "emoji 😀🎉👨\u200d👩\u200d👧", "Łódź żółw ćma", "Türkçe ğüşıöç",
    "ελληνικά", "עברית שלום", "à\u00a0«\u00a0la\u00a0» é\u00a0» è\u00a0…", "ÂMBAR, Â é a letra", "x² + y³ = ½ ± ¼",
    "ÄÖÜ“ É“ MAÇÃ”"]


def misread(text: str, encoding: str) -> str:
    """UTF-8 read byte by byte; where cp1252 has no character the byte stays, as in browsers."""
    return "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("text", GOOD)
def test_good_texts_stay_and_misread_ones_come_back_exactly(text: str) -> None:
    assert repaired(text) == text
    for encoding in ("cp1252", "latin-1"):
        once = misread(text, encoding)
        assert repaired(once) == text
        assert repaired(misread(once, encoding)) == text
    assert repaired(f"before {misread(text, 'cp1252')} after") == f"before {text} after"


def test_bytes_that_are_no_utf8_stay() -> None:
    assert repaired("Ã alone, â€, Ã") == "Ã alone, â€, Ã"
    assert repaired("caf\x82 Ã©") == "caf\x82 é"


@pytest.mark.slow
@given(st.text())
def test_a_repair_only_ever_shortens_and_is_done_after_it(text: str) -> None:
    good = repaired(text)
    assert len(good) <= len(text)
    assert good == text or any(unicodedata.category(character) != "Cn" for character in good)


@pytest.mark.parametrize(("text", "seen"), [
    ("a\u200bb\ufeffc\u00add", "abcd"), ("a\u202eb\u2066c\U000e0041", "abc"), ("left\u200eright", "leftright"),
    ("a\u200db", "ab"), ("می\u200cخواهم", "می\u200cخواهم"), ("क्\u200dष", "क्\u200dष"), ("שלום\u200f!", "שלום\u200f!"),
    ("👩\u200d🚀 ❤\ufe0f\u200d🔥", "👩\u200d🚀 ❤\ufe0f\u200d🔥"), ("plain", "plain")])
def test_invisible_characters(text: str, seen: str) -> None:
    assert without_needless(text) == seen
    assert bool(needless(text)) is (text != seen)


def test_fenced_code_is_left_out() -> None:
    text = "ab\n```py\nab\n```\nab ~~~ ab\n~~~\nab"
    assert outside_code(text, lambda piece: piece.replace("ab", "x")) == "x\n```py\nab\n```\nx ~~~ x\n~~~\nab"
