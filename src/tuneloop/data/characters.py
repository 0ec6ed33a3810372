"""Characters that went wrong on the way: bytes read in another encoding, and what nobody can see."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

REPLACED = "\ufffd"

_HIGH = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100))
_BYTES = {ord(character): byte for byte, character in enumerate(_HIGH, 0x80)} | {byte: byte for byte in range(0x100)}
"""The byte that cp1252 or Latin-1 reads as a character."""
_LATER = re.escape(_HIGH[:0x40] + "".join(map(chr, range(0x80, 0xa0))))
_MISREAD = re.compile(f"""(?:
    [Â-ß][{_LATER}] | [à-ï][{_LATER}]{{2}} | [ð-ô][{_LATER}]{{3}}
)+""", re.VERBOSE)
"""A run of characters that are the bytes of UTF-8, one by one."""
_LONE = re.compile(rf"""
    [ÂÃ][{_LATER}]                      # Latin letters, symbols, and spaces that do not break
  | [ÄÅ][{_LATER}](?=[a-z]) | (?<=[a-z])[ÄÅ][{_LATER}]      # letters of Poland and its neighbours, within words
  | â[€‚„†‡ˆ‰\x80-\x89][{_LATER}]                           # quotes, dashes, signs, arrows
  | ï[»¿][{_LATER}] | ð[Ÿ\x9f][{_LATER}]{{2}}               # byte order mark, emoji
""", re.VERBOSE)
"""What is misread even where it stands alone; other pairs occur in good texts, such as `«\u00a0CAFÉ»`."""
_CLOSING = re.compile(r"(?<=[A-ZÀ-Þ])[ÂÃ][…’”“–—›»]$")
_MOST_TIMES = 3

INVISIBLE = re.compile("[\u00ad\u034f\u115f\u1160\u180e\u200b\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0]")
"""Nothing is to be seen of them, and they change what a model reads: zero-width spaces, byte order marks within."""
HIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
"""Show a text in another order than it is read, or hide one within another."""
JOINERS = re.compile("[\u200c\u200d]")
MARKS = re.compile("[\u200e\u200f\u061c]")
"""Marks of direction; they belong into texts that are written from right to left."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_JOINED_SCRIPT = re.compile("[\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u1800-\u18af\ufb50-\ufefc]")
_EMOJI = re.compile("[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]")


def repaired(text: str) -> str:
    """`text` with UTF-8 that was read as cp1252 or Latin-1 read anew, also where that happened more than once.

    Only whole runs are changed, and only where their bytes are valid UTF-8, so that the way back is exact.
    """
    for _ in range(_MOST_TIMES):
        again = _MISREAD.sub(_reread, text)
        if again == text:
            break
        text = again
    return text


def _reread(match: re.Match[str]) -> str:
    run = match[0]
    try:
        read = bytes(_BYTES[ord(character)] for character in run).decode()
    except UnicodeDecodeError:
        return run
    if len(read) == 1 and not _is_misread_alone(match):
        return run
    return run if any(unicodedata.category(character) in ("Cn", "Co", "Cs") for character in read) else read


def _is_misread_alone(match: re.Match[str]) -> bool:
    lone = _LONE.match(match.string, match.start())
    if lone is None or lone.end() != match.end():
        return False
    return _CLOSING.search(match.string, max(0, match.start() - 1), match.end()) is None


def needless(text: str) -> list[str]:
    """The invisible characters of `text` that no script and no emoji needs, in their order."""
    if text.isascii():
        return []
    found = INVISIBLE.findall(text) + HIDDEN.findall(text)
    if MARKS.search(text) and not _RIGHT_TO_LEFT.search(text):
        found += MARKS.findall(text)
    return found + [match[0] for match in JOINERS.finditer(text) if not _joins(text, match.start())]


def _joins(text: str, at: int) -> bool:
    """Whether the character at `at` joins or parts two of a script that does so, or of an emoji."""
    before, after = text[at - 1:at], text[at + 1:at + 2]
    return bool(_JOINED_SCRIPT.match(before) or (_EMOJI.match(before) and _EMOJI.match(after)))


def without_needless(text: str) -> str:
    if text.isascii():
        return text
    text = HIDDEN.sub("", INVISIBLE.sub("", text))
    if not _RIGHT_TO_LEFT.search(text):
        text = MARKS.sub("", text)
    return JOINERS.sub(lambda match: match[0] if _joins(text, match.start()) else "", text)


_FENCED = re.compile(r"(^[ \t]*(```+|~~~+).*?(?:^[ \t]*\2[ \t]*$|\Z))", re.MULTILINE | re.DOTALL)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to what stands outside of fenced code."""
    if "```" not in text and "~~~" not in text:
        return change(text)
    pieces, at = [], 0
    for match in _FENCED.finditer(text):
        pieces += [change(text[at:match.start()]), match[0]]
        at = match.end()
    return "".join(pieces) + change(text[at:])
