"""How much two texts have in common: words, ROUGE-L, and which of many texts a new one is nearly the same as."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff"       # kana and ideographs: a character counts as a word
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FUNCTION = """a an the this that these those and or but nor so if then than as of in on at to from by with without
for about into onto over under between through during before after up down out off is are was were be been being am do
does did done doing have has had having will would shall should can could may might must it its he she they them his
her their theirs we us our you your i me my mine who whom whose which what when where why how there here not no yes
also only just very more most some any each every all both either such same other own too"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
"""English words that say nothing about a passage. In other languages every word counts, which asks for more."""


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> set[str]:
    """The words that carry what a text says."""
    return {word for word in words(text) if word not in FUNCTION_WORDS}


def numbers(text: str) -> set[str]:
    """The numbers of a text, however their digits are grouped: `1,000.50` and `1000.50` are one."""
    return {re.sub(r"[.,](?=\d{3}(?:\D|$))", "", match).replace(",", ".") for match in _NUMBER.findall(text)}


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of two lists of words (Lin 2004); 1 for the same, 0 for nothing."""
    return 2 * longest_common_subsequence(a, b) / max(1, len(a) + len(b))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, by Hyyrö's bit-parallel recurrence (2004)."""
    at: dict[str, int] = {}
    for i, word in enumerate(a):
        at[word] = at.get(word, 0) | 1 << i
    everywhere = (1 << len(a)) - 1
    row = everywhere
    for word in b:
        matched = row & at.get(word, 0)
        row = (row + matched | row - matched) & everywhere
    return len(a) - row.bit_count()


class Known:
    """Texts that a new one must differ from."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: list[tuple[list[str], frozenset[str]]] = []
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        found = words(text)
        self._texts.append((found, frozenset(found)))

    def has_like(self, text: str, least: float) -> bool:
        """Whether ROUGE-L with some known text is at least this."""
        new = words(text)
        return any(self._may_reach(new, known, vocabulary, least) and rouge_l(new, known) >= least
                   for known, vocabulary in self._texts)

    def most_like(self, text: str) -> int:
        """The number of the known text with the highest ROUGE-L, the first of equals."""
        new = words(text)
        return max(range(len(self._texts)), key=lambda number: rouge_l(new, self._texts[number][0]))

    @staticmethod
    def _may_reach(new: list[str], known: list[str], vocabulary: frozenset[str], least: float) -> bool:
        """A bound that is quickly had: a common subsequence has no more words than occur in both."""
        enough = least * (len(new) + len(known)) / 2
        return min(len(new), len(known)) >= enough and sum(word in vocabulary for word in new) >= enough
