"""Metrics of open answers that translation research uses, by `sacrebleu`.

They are no means of rows: each row has sufficient statistics (counts of n-grams and lengths), and the score is that of
their sum, so a resample gets the score of the corpus that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneloop.errors import missing_extra
from tuneloop.grading.registry import Scores, Statistic, metric


@metric("open", default=False, needs="sacrebleu")
def bleu(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Corpus BLEU (Papineni et al. 2002) / 100, as sacrebleu (Post 2018) gives it by default.

    Its signature: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp. Every row is one segment.
    """
    # `force` only silences a warning about texts that end in " ."
    return _of_sums(_sacrebleu("bleu").BLEU(force=True), references, answers)


@metric("open", default=False, needs="sacrebleu")
def chrf(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Corpus chrF2 (Popović 2015) / 100, as sacrebleu gives it by default.

    Its signature: nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no. It needs no words, so it fits every language.
    """
    return _of_sums(_sacrebleu("chrf").CHRF(), references, answers)


def _sacrebleu(name: str) -> Any:
    try:
        import sacrebleu.metrics
    except ImportError:
        raise missing_extra("sacrebleu", "eval", f"The metric {name}") from None
    return sacrebleu.metrics


def _of_sums(scorer: Any, references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Private methods of sacrebleu, for its public ones can neither keep the counts of a row nor score their sums; a
    test holds the result to its public `corpus_score`."""
    counts = np.array(scorer._extract_corpus_statistics(list(answers), [list(references)]), dtype=np.float64)

    def over(draws: Scores) -> Scores:
        sums = (draws @ counts).tolist()            # exact: whole numbers
        # rounding may lift a perfect score above 100
        return np.array([min(1.0, scorer._compute_score_from_stats(of).score / 100) for of in sums], dtype=np.float64)

    return over
