"""Training rows that hold what a model is going to be judged by: questions of evaluation sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tuneloop.data.checks import base
from tuneloop.data.checks._live import is_live
from tuneloop.data.checks._tally import excerpt, rows_that
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.data.near.fingerprints import RUN, EvaluationSet, Finder, Prints, load, prints_of
from tuneloop.data.near.grams import words_of
from tuneloop.data.near.pairs import NEAR
from tuneloop.data.near.rows import frames_of, likeness, pieces, subject, written
from tuneloop.data.near.sketches import Index
from tuneloop.types import Origin, Sample

SHARED_BY = 10          # questions of a given set, or a tenth of a small one: what more of them share is boilerplate
EXAMPLES = 3


class Check(base.Check):
    """Looks for the questions of sets given to compare with, and of well-known ones that come with us as hashes.

    Sets to compare with must be seen before the training rows. A row holds a question where both have 13 words in a
    row, where a shorter question is in it as a whole, or, of a given set, where it asks nearly the same.
    """

    about: ClassVar[str] = "questions of evaluation sets, those given and well-known ones, among the training rows"

    def __init__(self) -> None:
        self._given: dict[str, list[Sample]] = {}
        self._searched: _Search | None = None

    def see(self, chunk: Chunk) -> None:
        if chunk.part == "evaluation":
            assert self._searched is None, "sets to compare with come before the rows that are compared with them"
            for sample in chunk.samples:
                if not is_live(sample.origin.file):
                    self._given.setdefault(sample.origin.file, []).append(sample)
        elif chunk.part == "train" and chunk.samples:
            if self._searched is None:
                self._searched = _Search(self._given, chunk.samples)
            self._searched.look_at(chunk)

    def findings(self) -> list[Finding]:
        return [] if self._searched is None else [held.finding() for held in self._searched.held if held.rows]

    def facts(self) -> dict[str, Any]:
        held = [] if self._searched is None else self._searched.held
        return {"contamination": {one.of.name: {"rows": len(one.rows), "questions": len(one.questions),
                                                "of": one.of.rows} for one in held if one.rows}}


@dataclass
class _Held:
    """The training rows that hold questions of one set, and which."""

    of: EvaluationSet
    origins: Sequence[Origin] | None        # of the questions; None where the set is a well-known one
    rows: Places = field(default_factory=Places)
    questions: set[int] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def add(self, origin: Origin, question: int, alike: float, text: str) -> None:
        self.rows.add(origin)
        if len(self.examples) < EXAMPLES:
            which = f"question {question + 1} of {self.of.title}" if self.origins is None else self.origins[question]
            how = f"is nearly {which} ({alike:.2f} alike)" if alike else f"holds {which}"
            self.examples.append(f'{origin} {how}: "{excerpt(text)}"')

    def finding(self) -> Finding:
        what = rows_that(self.rows, f"repeat {len(self.questions):,} of the {self.of.rows:,} rows of {self.of.title}")
        if self.origins is None:
            return Finding("contamination", "note", what, f"if a score on {self.of.title} matters to you, leave them "
                           f"out: tuneloop data fix FILE drop checks=contamination kinds={self.of.name}", self.rows,
                           self.examples, self.of.name)
        return Finding("contamination", "fix", what, "take them out of train, or judge by other questions: a score on "
                       "questions that a model has seen proves nothing", self.rows, self.examples, self.of.name)


class _Search:
    """Every set, ready to be looked for in the training rows, of which the first ones are `samples`."""

    def __init__(self, given: dict[str, list[Sample]], samples: Sequence[Sample]) -> None:
        self.frames = frames_of(samples)
        for questions in given.values():
            self.frames |= frames_of(questions)
        rows = [[written(question, self.frames) for question in questions] for questions in given.values()]
        well_known = load()
        self.held = [_Held(EvaluationSet(name, name, len(questions)), [question.origin for question in questions])
                     for name, questions in given.items()] + [_Held(one, None) for one, _ in well_known]
        self.finder = Finder([*map(_prints, rows), *(prints for _, prints in well_known)])
        self.known = [(which, number, subject(row)) for which, some in enumerate(rows)
                      for number, row in enumerate(some)]
        self.index = Index([text for _, _, text in self.known], NEAR) if self.known else None

    def look_at(self, chunk: Chunk) -> None:
        hits = self.finder.hits(chunk.texts)
        matches = [*((text, which, question, 0.0) for text, which, question in
                     zip(hits.texts.tolist(), hits.sets.tolist(), hits.rows.tolist(), strict=True)),
                   *self._nearly(chunk)]
        first: dict[tuple[int, int], tuple[int, float]] = {}
        for text, which, question, alike in matches:
            self.held[which].questions.add(question)
            first.setdefault((text, which), (question, alike))
        for (text, which), (question, alike) in sorted(first.items()):
            self.held[which].add(chunk.origins[text], question, alike, chunk.texts[text])

    def _nearly(self, chunk: Chunk) -> Iterator[tuple[int, int, int, float]]:
        """Training row, set, question and how alike they are, where a row asks nearly what a question of a given set
        asks.
        """
        if self.index is None:
            return
        asked = [subject(written(sample, self.frames)) for sample in chunk.samples]
        for text, number in sorted(self.index.candidates(asked)):
            which, question, known = self.known[number]
            alike = likeness(asked[text], known)
            if alike >= NEAR:
                yield text, which, question, alike


def _prints(rows: Sequence[str]) -> Prints:
    """Of the questions of a given set, and of answers that are long enough to be found."""
    texts = [pieces(row) for row in rows]
    asked = [question or answer for question, answer, _ in texts]
    said = [answer if question and len(words_of(answer).split()) >= RUN else "" for question, answer, _ in texts]
    prints = prints_of([*asked, *said], shared_by=max(1, min(SHARED_BY, len(rows) // 10)))
    return Prints(prints.hashes, prints.row_of % len(rows))
