"""Damage to characters: bytes read in a wrong encoding, what nobody can see, leftovers of web pages."""

from __future__ import annotations

import re
import unicodedata

from tuneloop.data.characters import CONTROL, HIDDEN, REPLACED, needless, repaired
from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Origin, Sample

NORMALISE = "tuneloop data fix FILE normalise"
_SIGN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f&<]|\?\?")
_LATEX = re.compile(r"\x0crac|\x08egin|\x08eta|\x0corall")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|copy|reg|hellip|[mn]dash|[lr][sd]quo|#\d{2,6}|#x[0-9A-Fa-f]{2,5});")
_TAG = re.compile(r"<br ?/?>|</?(?:p|div|span|b|i|u|em|strong|font|center|td|tr|table|ul|ol|li|h[1-6])(?: [^<>\n]*)?>",
                  re.IGNORECASE)
_ABOUT_MARKUP = re.compile(r"```|<!doctype|<body|<script|</code>|html|xml|css|javascript|\breact\b|\bjsx\b",
                           re.IGNORECASE)
_LOST_LETTERS = re.compile(r"[^\W\d_]\?{2,3}[^\W\d_]|\?{3,}(?: \?{2,}){2,}")


class Check(base.Check):
    """Rows by the kind of damage, with what it looks like."""

    about = "damaged characters: U+FFFD, mojibake, control and invisible characters, HTML left in"

    def __init__(self) -> None:
        self._tally = Tally("encoding")

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, sample, text in zip(chunk.origins, chunk.samples, chunk.texts, strict=True):
            if not text.isascii():
                self._look_beyond_ascii(origin, text)
            if _SIGN.search(text) or CONTROL.search(text):
                self._look_for_leftovers(origin, text)
            self._look_at_ends(origin, sample)

    def _look_beyond_ascii(self, origin: Origin, text: str) -> None:
        if (at := text.find(REPLACED)) >= 0:
            self._tally.add("replaced", origin, excerpt(text, at, at + 1))
        if (good := repaired(text)) != text:
            at = next(i for i, (old, new) in enumerate(zip(text, good, strict=False)) if old != new)
            self._tally.add("mojibake", origin, f"{excerpt(text, at, at + 2)} → {excerpt(good, at, at + 1)}")
        if unseen := needless(good):
            kind = "hidden" if any(map(HIDDEN.match, unseen)) else "invisible"
            self._tally.add(kind, origin, ", ".join(sorted({f"U+{ord(character):04X}" for character in unseen})[:5]))
        if not unicodedata.is_normalized("NFC", text):
            self._tally.add("forms", origin)

    def _look_for_leftovers(self, origin: Origin, text: str) -> None:
        if control := CONTROL.search(repaired(text)):
            self._tally.add("latex" if _LATEX.search(text) else "control", origin, f"U+{ord(control[0]):04X}")
        if lost := _LOST_LETTERS.search(text):
            self._tally.add("question_marks", origin, excerpt(text, lost.start(), lost.end()))
        markup = _ENTITY.search(text) or _TAG.search(text)
        if markup and not _ABOUT_MARKUP.search(text):
            self._tally.add("html", origin, excerpt(text, markup.start(), markup.end()))

    def _look_at_ends(self, origin: Origin, sample: Sample) -> None:
        ends = [turn.content for turn in sample.prompt[-1:]] + [sample.answer]
        if any(end != end.strip() for end in ends):
            self._tally.add("ends", origin)

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        return [
            *told("replaced", "fix", "hold U+FFFD (�), which stands where a character was lost",
                  "read the source anew in its right encoding, or drop them: tuneloop data fix FILE drop "
                  "checks=encoding kinds=replaced"),
            *told("mojibake", "fix", "hold UTF-8 that was read in another encoding (cafÃ© for café)", NORMALISE),
            *told("hidden", "fix", "hold characters that hide text or show it in another order than it is read",
                  NORMALISE),
            *told("latex", "fix", "hold LaTeX whose backslash was read as an escape (a form feed and rac for \\frac)",
                  "write the backslash twice in JSON (\\\\frac), and write the rows anew"),
            *told("control", "fix", "hold control characters", NORMALISE),
            *told("question_marks", "note", "seem to have question marks in the place of letters",
                  "read the source anew in its right encoding"),
            *told("invisible", "note", "hold invisible characters (zero-width spaces and the like)", NORMALISE),
            *told("forms", "note", "write letters and their accents as separate characters (not NFC), so that equal "
                  "words look different to a model", NORMALISE),
            *told("html", "note", "hold HTML entities or tags, although they are not about markup",
                  "turn them into text where you made the rows"),
            *told("ends", "note", "have white space at the start or end of the question or the answer", NORMALISE),
        ]
