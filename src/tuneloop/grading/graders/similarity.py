"""The hosted `text_similarity`: how alike two texts are, by one of several measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from tuneloop.errors import missing_extra
from tuneloop.grading.graders.base import Case, Grader, Mark, Means
from tuneloop.grading.graders.template import TemplateText, parse
from tuneloop.grading.graders.texts import each
from tuneloop.grading.metrics import METRICS
from tuneloop.grading.texts import shared_ngrams

_LONGEST_GLEU = 4           # words in a row


def fuzzy_match(text: str, reference: str) -> float:
    """Twice the longest common subsequence of characters over the lengths of both, as `rapidfuzz.fuzz.ratio` / 100; 1
    for two empty texts. The hosted service names the package and not the function.
    """
    return 2 * common_subsequence(text, reference) / (len(text) + len(reference)) if text or reference else 1.0


def bleu(text: str, reference: str) -> float:
    """BLEU of the pair as sacrebleu's `sentence_bleu` gives it by default (smoothed, effective order) / 100."""
    return min(1.0, float(_sacrebleu().sentence_bleu(text, [reference]).score) / 100)


def gleu(text: str, reference: str) -> float:
    """Google BLEU (Wu et al. 2016, arXiv 1609.08144, section 6): the smaller of precision and recall of all runs of one
    to four words, which white space parts; 0 where either has none.
    """
    given, wanted = _ngrams(text.split()), _ngrams(reference.split())
    most = max(given.total(), wanted.total())
    return (given & wanted).total() / most if most else 0.0


def common_subsequence(a: str, b: str) -> int:
    """The length of the longest common subsequence of characters, on integers of len(a) bits.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    at: dict[str, int] = {}
    for i, character in enumerate(a):
        at[character] = at.get(character, 0) | 1 << i
    everywhere = (1 << len(a)) - 1
    row = everywhere
    for character in b:
        equal = row & at.get(character, 0)
        row = (row + equal | row - equal) & everywhere
    return len(a) - row.bit_count()


def _ngrams(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i:i + n]) for n in range(1, _LONGEST_GLEU + 1) for i in range(len(words) - n + 1))


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError:
        raise missing_extra("sacrebleu", "eval", "The similarity bleu") from None
    return sacrebleu


def _rouge(n: int) -> Callable[[str, str], float]:
    return lambda text, reference: shared_ngrams(reference, text, n)


MEASURES: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match, "bleu": bleu, "gleu": gleu, **{f"rouge_{n}": _rouge(n) for n in range(1, 6)},
    "rouge_l": lambda text, reference: METRICS["rouge_l"].value([reference], [text])}
REFUSED = {"cosine": "needs an embedding model, which this version does not have",
           "meteor": "needs the synonyms of WordNet, which are not part of this package"}
"""What the hosted service measures beside these."""


def _measure(name: str) -> str:
    if name not in MEASURES:
        why = f"{name} {REFUSED[name]}; " if name in REFUSED else ""
        raise ValueError(f"{why}one of {', '.join(MEASURES)}")
    return name


class TextSimilarity(Grader):
    """The hosted `text_similarity`, in [0, 1]."""

    type: Literal["text_similarity"] = "text_similarity"
    name: str
    input: TemplateText
    reference: TemplateText
    evaluation_metric: Annotated[str, AfterValidator(_measure)]
    pass_threshold: float | None = None
    """Of the hosted evaluations; a reward has no use for it."""

    @property
    def templates(self) -> list[str]:
        return [self.input, self.reference]

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        measure = MEASURES[self.evaluation_metric]
        return each(cases, lambda case: measure(parse(self.input).fill(case), parse(self.reference).fill(case)))
