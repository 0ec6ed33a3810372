"""Measures of variety, by hand."""

from __future__ import annotations

import math
import random

import pytest

from tuneloop.data.labels.diversity import compression, distinct, openings, words


def test_words() -> None:
    assert words("Don't STOP, at 3 p.m.") == ["don", "t", "stop", "at", "3", "p", "m"]
    assert words("東京 is big") == ["東", "京", "is", "big"]


def test_distinct_by_hand() -> None:
    texts = ["a b a b", "a c"]                      # 6 words, 3 different; pairs ab ba ab | ac: 4, 3 different
    assert distinct(texts, 1) == pytest.approx(3 / 6)
    assert distinct(texts, 2) == pytest.approx(3 / 4)
    assert math.isnan(distinct(["a"], 2))


def test_repetition_compresses() -> None:
    draw = random.Random(0)
    varied = [" ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(10)) for _ in range(200)]
    assert compression(varied) < 2
    assert compression([varied[0]] * 200) > 50
    assert math.isnan(compression([]))


def test_openings() -> None:
    assert openings(["I am very sorry today.", "I am, very SORRY to", "I am"]) == {"i am very sorry": 2}
