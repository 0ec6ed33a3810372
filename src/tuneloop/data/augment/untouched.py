"""What noise and paraphrases must leave as it is: labels, placeholders, code, addresses, numbers, names of things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

_SPANS = (r"```.*?(?:```|\Z)", r"`[^`\n]+`", r"\{\{[^{}]*\}\}", r"\{[^{}\n]*\}", r"<[^<>\n]+>",
          r"\[[^\[\]\n]+\](?:\([^)\n]*\))?")
_TOKEN = re.compile(r"\S+")
_AROUND = "\"'“”‘’()¡¿*_.,;:!?…–—-"       # what may stand beside a word
_PLAIN_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def change_words(text: str, keep: Sequence[str], change: Callable[[str], str]) -> str:
    """The text with `change` of every word that may change. `keep` are labels, which may not."""
    def changed(token: re.Match[str]) -> str:
        word = token[0].strip(_AROUND)
        return token[0].replace(word, change(word), 1) if _is_free(word) else token[0]

    return "".join(_TOKEN.sub(changed, part) if is_free else part for part, is_free in _parts(text, tuple(keep)))


def fixed_parts(text: str, keep: Sequence[str]) -> list[str]:
    """What of a text may not change and must be in every paraphrase of it: labels, numbers, addresses, code."""
    fixed: list[str] = []
    for part, is_free in _parts(text, tuple(keep)):
        words = [token.strip(_AROUND) for token in part.split()] if is_free else [part]
        fixed += [word for word in words if not is_free or _is_special(word)]
    return fixed


def _parts(text: str, keep: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """The text in parts, and whether words in them may change."""
    at = 0
    for span in _spans(keep).finditer(text):
        yield text[at:span.start()], True
        yield span[0], False
        at = span.end()
    yield text[at:], True


@lru_cache(maxsize=8)
def _spans(keep: tuple[str, ...]) -> re.Pattern[str]:
    labels = [rf"(?<!\w){re.escape(label)}(?!\w)" for label in sorted(keep, key=len, reverse=True) if label.strip()]
    return re.compile("|".join([*_SPANS, *(f"(?i:{label})" for label in labels)]), re.DOTALL)


def _is_free(word: str) -> bool:
    """Whether it is an ordinary word of a script with small and capital letters."""
    return bool(_PLAIN_WORD.fullmatch(word)) and word.lower() != word.upper() and word[1:].islower()


def _is_special(word: str) -> bool:
    """Whether it is a number, an address, the name of a file or of a thing in a program; a word of any script is none.
    """
    return bool(word) and not _PLAIN_WORD.fullmatch(word)
