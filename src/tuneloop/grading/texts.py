"""Metrics of open answers that compare texts. They measure resemblance to the reference, not correctness."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from tuneloop.data.augment import overlap
from tuneloop.grading.registry import Scores, metric

_WORD = re.compile(r"[^\W_]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@metric("open")
def rouge_l(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """F-measure of the longest common subsequence of words (Lin 2004, "ROUGE", section 3), each text as one sentence.

    A word is a lower-cased run of letters and digits of any script, without stemming. On ASCII text this equals
    `rouge-score`'s rougeL; deviation: `rouge-score` drops every other letter, so that accents would split words.
    Scripts without spaces between words count as one word per run.
    """
    return _by_row(references, answers, lambda r, a: overlap.rouge_l(_words(r), _words(a)))


@metric("open", default=False)
def rouge_1(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """F-measure of the words in common (Lin 2004, section 2); words as in `rouge_l`."""
    return _by_row(references, answers, lambda r, a: _f1(_words(r), _words(a)))


@metric("open", default=False)
def rouge_2(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """F-measure of the pairs of neighbouring words in common (Lin 2004, section 2); words as in `rouge_l`."""
    return _by_row(references, answers, lambda r, a: _f1(_pairs(_words(r)), _pairs(_words(a))))


@metric("open")
def exact_match(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the answer is the reference, runs of white space counting as one space and none at the ends."""
    return _by_row(references, answers, lambda r, a: r.split() == a.split())


@metric("open")
def token_f1(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """F1 of the words in common, as SQuAD counts (Rajpurkar et al. 2016; its evaluation script 2.0).

    Lower case, without ASCII punctuation and English articles. Where either text holds no word: 1 if both do, else 0.
    """
    def f1(reference: str, answer: str) -> float:
        wanted, given = _squad_words(reference), _squad_words(answer)
        return _f1(wanted, given) if wanted and given else float(wanted == given)

    return _by_row(references, answers, f1)


@metric("open", default=False)
def edit_similarity(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 - Levenshtein distance / length of the longer text, in characters; 1 for two empty texts."""
    return _by_row(references, answers, lambda r, a: 1 - levenshtein(r, a) / max(1, len(r), len(a)))


@metric("open", default=False, better=None, in_unit=False)
def length(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """Characters of the answer; neither more nor less is better."""
    return np.array([len(answer) for answer in answers], dtype=np.float64)


def shared_ngrams(reference: str, answer: str, n: int) -> float:
    """F-measure of the runs of n words in common (Lin 2004, section 2); words as in `rouge_l`."""
    return _f1(*([tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
                 for words in (_words(reference), _words(answer))))


def levenshtein(a: str, b: str) -> int:
    """The fewest insertions, deletions and substitutions of characters that turn one text into the other.

    Myers' bit-parallel recurrence (1999) as Hyyrö (2003) states it, on integers of len(a) bits. `up` and `down` hold
    the places of a column of the textbook table where the distance grows or falls by one from row to row.
    """
    if not a:
        return len(b)
    at: dict[str, int] = {}
    for i, character in enumerate(a):
        at[character] = at.get(character, 0) | 1 << i
    everywhere, last = (1 << len(a)) - 1, 1 << len(a) - 1
    up, down, distance = everywhere, 0, len(a)
    for character in b:
        equal = at.get(character, 0)
        diagonal = ((equal & up) + up ^ up) | equal | down
        right_up, right_down = down | everywhere & ~(diagonal | up), up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = right_up << 1 | 1
        up = (right_down << 1 | ~(diagonal | right_up)) & everywhere
        down = right_up & diagonal & everywhere
    return distance


def _by_row(references: Sequence[str], answers: Sequence[str], score: Callable[[str, str], float]) -> Scores:
    return np.array([score(r, a) for r, a in zip(references, answers, strict=True)], dtype=np.float64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(words))


def _squad_words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _f1(wanted: Iterable[Hashable], given: Iterable[Hashable]) -> float:
    """2 |common| / (|wanted| + |given|), things counted as often as they occur; 0 for nothing."""
    of_wanted, of_given = Counter(wanted), Counter(given)
    return 2 * (of_wanted & of_given).total() / max(1, of_wanted.total() + of_given.total())
