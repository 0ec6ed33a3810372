"""Toxic words in what is asked and in what is to be learnt."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, is_learnt, learnt_answers
from tuneloop.data.checks._toxic import toxic_words
from tuneloop.data.checks.base import Chunk, turns_text
from tuneloop.data.findings import Finding
from tuneloop.types import Text

MOST_COMMON = 10


class Check(base.Check):
    """Rows with a word of a short list. The worse answer of a pair may be toxic: that is what it is there for."""

    about = "toxic and vulgar words in questions and in answers to learn, from a short list in a few languages"

    def __init__(self) -> None:
        self._tally = Tally("toxicity")
        self._words: Counter[str] = Counter()

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            learnt = (sample.text,) if isinstance(sample, Text) else learnt_answers(sample)
            for kind, text in (("prompt", turns_text(sample.prompt)), ("answer", "\n".join(learnt))):
                for word in toxic_words(text):
                    self._words[word] += 1
                    self._tally.add(kind, origin, _masked(word))

    def findings(self) -> list[Finding]:
        told = self._tally.finding
        return [*told("answer", "note", "have a toxic or vulgar word in the answer to learn", "where it is not meant, "
                      "drop them: tuneloop data fix FILE drop checks=toxicity kinds=answer"),
                *told("prompt", "note", "have a toxic or vulgar word in the question",
                      "nothing, where the model is to meet such questions")]

    def facts(self) -> dict[str, Any]:
        common = {_masked(word): count for word, count in self._words.most_common(MOST_COMMON)}
        return {"toxic_words": common} if common else {}


def _masked(word: str) -> str:
    return word[0] + "*" * (len(word) - 2) + word[-1]
