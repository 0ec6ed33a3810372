"""Which labels are one and the same for people: spellings that differ in case, spaces or signs, and slips of a key."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping

MUCH_MORE = 10          # times as often as a slip is the label that was meant
SHORTEST_WORD = 4       # letters of a word in which a slip is told from another word
_INNER = re.compile(r"(?<=[^\W\d_])[\s_\-–—/]+(?=[^\W\d_])")
_OUTER = " \t\r\n_\"'“”‘’«»`´.,;:!?¡¿()[]{}"
_WORDS = re.compile(r"[^\W_]+")


def folded(label: str) -> str:
    """What is left of a label without case, white space, and the signs around it and between its words.

    Signs that tell labels apart stay: `A+`, `C#`, `-1`, `:(`.
    """
    plain = unicodedata.normalize("NFKC", label).casefold()
    return _INNER.sub("", plain.strip(_OUTER)) or plain.strip()


def usual_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """For each spelling of a label that is not the most frequent one of its kind, that one."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike[folded(label)].append(label)
    usual: dict[str, str] = {}
    for spellings in alike.values():
        first, *others = sorted(spellings, key=lambda label: (-counts[label], label))
        usual |= dict.fromkeys(others, first)
    return usual


def slips(counts: Mapping[str, int]) -> dict[str, str]:
    """For each label that is one slip away from a much more frequent one, that one: `postive`, positive."""
    frequent = sorted(counts, key=lambda label: (-counts[label], label))
    found = {}
    for label in counts:
        meant = next((other for other in frequent if counts[other] >= MUCH_MORE * counts[label]
                      and _differ_by_a_slip(label, other)), None)
        if meant is not None:
            found[label] = meant
    return found


def _differ_by_a_slip(label: str, other: str) -> bool:
    """Whether one word differs, by a slip in its letters after the first: `moral` and `amoral` are two labels."""
    if abs(len(label) - len(other)) > 1:
        return False
    different = list(_different_words(label.casefold(), other.casefold()))
    return len(different) == 1 and all(
        word.isalpha() and len(word) >= SHORTEST_WORD for word in different[0]) and one_slip(*different[0])


def _different_words(label: str, other: str) -> Iterator[tuple[str, str]]:
    words, others = _WORDS.findall(label), _WORDS.findall(other)
    if len(words) == len(others):
        yield from ((a, b) for a, b in zip(words, others, strict=True) if a != b)


def one_slip(a: str, b: str) -> bool:
    """Whether one letter after the first is left out, added, mistaken, or swapped with its neighbour (Damerau 1964)."""
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[at:], b[at:]
    return at > 0 and a != b and (a[1:] == b[1:] or a[1:] == b or a == b[1:] or
                                  (a[:2] == b[1::-1] and a[2:] == b[2:]))
