"""Noise as people make it: slips of the keyboard, letters in another case, words left out.

Every function takes a text, the share of words to change, a source of chance, and labels to keep; at least one word
changes where one can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tuneloop.data.augment.untouched import change_words

Noise = Callable[[str, float, Random, Sequence[str]], str]

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHORTEST_SLIP = 4           # letters: in shorter words a slip makes another word
_NEGATIONS = """no not never none neither nor nothing nobody nowhere without hardly cannot can't don't doesn't didn't
isn't aren't wasn't weren't won't wouldn't shouldn't couldn't haven't hasn't hadn't nicht kein keine keinen nie ohne ne
pas sans sin nunca non senza mai"""
NEGATIONS = frozenset(_NEGATIONS.split())
"""Without them a text says the opposite, and its label would be wrong."""


def typos(text: str, rate: float, rng: Random, keep: Sequence[str] = ()) -> str:
    """Slips in words: a neighbouring key, two letters swapped, one left out."""
    return _change_some(text, rate, rng, keep, lambda word: len(word) >= SHORTEST_SLIP, lambda word: _slip(word, rng))


def deletion(text: str, rate: float, rng: Random, keep: Sequence[str] = ()) -> str:
    """Words left out, never a negation and never the whole text."""
    gone = "\0"
    marked = _change_some(text, rate, rng, keep, lambda word: word.lower() not in NEGATIONS, lambda word: gone)
    left = marked.replace(gone + " ", "").replace(" " + gone, "").replace(gone, "")
    return left if any(map(str.isalnum, left)) else text


def casing(text: str, rate: float, rng: Random, keep: Sequence[str] = ()) -> str:
    """The whole text in small letters or in capitals, as people write in a hurry or in anger; `rate` has no meaning."""
    styles = [change_words(text, keep, str.lower), change_words(text, keep, str.upper)]
    return rng.choice([style for style in styles if style != text] or [text])


NOISES: dict[str, Noise] = {"typos": typos, "casing": casing, "deletion": deletion}


def _change_some(text: str, rate: float, rng: Random, keep: Sequence[str], fits: Callable[[str], bool],
                 change: Callable[[str], str]) -> str:
    """Change a share `rate` of the words that fit, one at least and never all of several."""
    count = 0

    def number(word: str) -> str:
        nonlocal count
        count += fits(word)
        return word

    change_words(text, keep, number)
    if not count:
        return text
    drawn = [i for i in range(count) if rng.random() < rate] or [rng.randrange(count)]
    chosen = set(drawn[:max(1, count - 1)])
    numbers = iter(range(count))
    return change_words(text, keep, lambda word: change(word) if fits(word) and next(numbers) in chosen else word)


def _slip(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    letter, after = word[at], word[at + 1]
    slips = [word[:at] + word[at + 1:]]
    if letter != after and letter.isalpha() and after.isalpha():
        slips.append(word[:at] + after + letter + word[at + 2:])
    if keys := _neighbours(letter):
        slips.append(word[:at] + rng.choice(keys) + word[at + 1:])
    return rng.choice(slips)


def _neighbours(letter: str) -> str:
    """The keys beside a letter on an English keyboard, in its case; none for what has no place there."""
    for row in KEYBOARD:
        if (at := row.find(letter.lower())) >= 0:
            keys = row[max(0, at - 1):at] + row[at + 1:at + 2]
            return keys.upper() if letter.isupper() else keys
    return ""
