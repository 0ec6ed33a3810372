"""Texts that say one thing again and again."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

FEWEST_CHARACTERS = 60
SEARCHED_CHARACTERS = 5_000
FEWEST_TIMES = 10
FEWEST_WORDS = 60
_SQUEEZED = 3.0             # a text without repetition shrinks to half at best
_LEAST_SHARE = 0.2          # of the text
_LEAST_DUPLICATED = 0.7     # of its 4-grams
_PHRASE = re.compile(rf"(.{{1,120}}?)\1{{{FEWEST_TIMES - 1},}}", re.DOTALL)
_RULER = re.compile(r"[\s\-=_*#~.+|─│═▬:>]+")


class Repeated(NamedTuple):
    """`phrase` stands `times` times, one right after the other; 0: not word for word."""

    phrase: str
    times: int

    def __str__(self) -> str:
        return f"“{' '.join(self.phrase.split())[:60]}” {self.times:,} times" if self.times else (
            f"again and again much like “{' '.join(self.phrase.split())[:60]}…”")


def repetition(text: str) -> Repeated | None:
    """What fills a large part of `text` by standing there ten times or more; rulers and white space aside.

    Word for word, or but for its numbers: most of its 4-grams occur more than once (Rae et al. 2021, appendix A).
    """
    if len(text) < FEWEST_CHARACTERS:
        return None
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) < _SQUEEZED * len(zlib.compress(encoded, 1)):
        return None
    for match in _PHRASE.finditer(text[:SEARCHED_CHARACTERS]):
        times = _count(text, match)
        if times * len(match[1]) >= _LEAST_SHARE * len(text) and not _RULER.fullmatch(match[1]):
            return Repeated(match[1], times)
    return _much_alike(text)


def _count(text: str, match: re.Match[str]) -> int:
    """How often the phrase stands there, also beyond what was searched."""
    phrase, at = match[1], match.end()
    while text.startswith(phrase, at):
        at += len(phrase)
    return (at - match.start()) // len(phrase)


def _much_alike(text: str) -> Repeated | None:
    words = re.sub(r"\d", "0", text).split()
    if len(words) < FEWEST_WORDS:
        return None
    grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    seen: dict[tuple[str, ...], int] = {}
    for gram in grams:
        seen[gram] = seen.get(gram, 0) + 1
    if sum(count for count in seen.values() if count > 1) < _LEAST_DUPLICATED * len(grams):
        return None
    often = max(seen, key=seen.__getitem__)
    is_told = seen[often] >= FEWEST_TIMES and re.search(r"[^\W\d_]", "".join(often))
    return Repeated(" ".join(often), 0) if is_told else None
