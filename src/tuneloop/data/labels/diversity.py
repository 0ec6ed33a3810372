"""How varied texts are: in words, in beginnings, and in how much of them is said again."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice

WORDS = 20_000          # that are counted: the share of different ones falls with their number
BYTES = 200_000         # that are compressed
OPENING = 4             # words
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """Words without case; each character of Chinese and Japanese, which put no spaces between words."""
    return _WORD.findall(text.lower())


def distinct(texts: Iterable[str], n: int) -> float:
    """Different runs of n words over all of them (distinct-n, Li et al. 2016, arXiv 1510.03055), of the first WORDS.

    NaN without any.
    """
    runs = list(islice(chain.from_iterable(zip(*(said[at:] for at in range(n)), strict=False)
                                           for said in map(words, texts)), WORDS))
    return len(set(runs)) / len(runs) if runs else math.nan


def compression(texts: Sequence[str]) -> float:
    """How many times smaller the texts become together: 2.5 to 3.5 for ordinary ones, more where they are alike.

    The measure that Shaib et al. 2024 (arXiv 2403.00553) recommend, here by zlib over the first BYTES. NaN without any.
    """
    whole = "\n".join(texts)[:BYTES].encode("utf-8", "surrogatepass")
    return len(whole) / len(zlib.compress(whole, 9)) if whole else math.nan


def openings(texts: Iterable[str]) -> Counter[str]:
    """How many texts begin with which four words; shorter ones are left out."""
    return Counter(" ".join(first) for text in texts if len(first := words(text[:200])[:OPENING]) == OPENING)
