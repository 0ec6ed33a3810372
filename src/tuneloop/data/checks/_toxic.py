"""Toxic words, also where letters are repeated, parted, starred out or replaced by look-alikes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

_WORD = re.compile(r"[^\W\d_]{3,}")
_ODD = re.compile(r"(?<![\w@$!*#])(?=[a-z]*[@$!*#|0134578])[a-z@$][a-z0-9@$!*#|]{1,20}[a-z$](?![\w@$*#/.=(])")
_PARTED = re.compile(r"(?<!\w)[a-z]([ .\-_*])(?:[a-z]\1){2,12}[a-z](?!\w)")
_RUN = re.compile(r"([^\W\d_])\1{2,}")
_MEANT = str.maketrans("@4310!$5|78", "aaeioissltb")
_FEWEST_LETTERS = 2         # that are not starred out


def toxic_words(text: str) -> Iterator[str]:
    """The toxic words of `text`, as they stand there in lower case."""
    lowered = text.lower()
    known = _known()
    yield from known.intersection(_WORD.findall(lowered))
    for match in _ODD.finditer(lowered):
        if _is_meant(match[0]):
            yield match[0]
    for match in _PARTED.finditer(lowered):
        if match[0].replace(match[1], "") in known:
            yield match[0]
    if _RUN.search(lowered):
        for word in _WORD.findall(lowered):
            if known & {_RUN.sub(r"\1", word), _RUN.sub(r"\1\1", word)} - {word}:
                yield word


def _is_meant(odd: str) -> bool:
    """Whether a word with signs or digits for letters is one of the known ones: `sh1t`, `f**k`."""
    word = odd.translate(_MEANT)
    if "*" not in word and "#" not in word:
        return word in _known()
    if sum(map(str.isalpha, word)) < _FEWEST_LETTERS:
        return False
    return any(len(known) == len(word) and all(a == b or a in "*#" for a, b in zip(word, known, strict=True))
               for known in _known())


@cache
def _known() -> frozenset[str]:
    lines = resources.files("tuneloop.data.checks").joinpath("_toxic_words.txt").read_text("utf-8").splitlines()
    words = [line.partition(":") for line in lines if line and line[0] != "#"]
    return frozenset(stem + ending for stem, _, endings in words for ending in ("", *endings.split()))
