"""ROUGE-L against the reference implementation, on ASCII text, where both cut words alike."""

from __future__ import annotations

import numpy as np
import pytest

from tuneloop.grading.metrics import METRICS


@pytest.mark.slow
def test_rouge_l_equals_rouge_score() -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="it is in the extra parity")
    random = np.random.default_rng(0)
    words = ["the", "Cat", "sat", "on", "a_mat", "well-made", "42", "!", "it's", ""]
    texts = [" ".join(random.choice(words, random.integers(0, 12))) for _ in range(400)]
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    for reference, answer in zip(texts[::2], texts[1::2], strict=True):
        assert METRICS["rouge_l"].value([reference], [answer]) == pytest.approx(
            scorer.score(reference, answer)["rougeL"].fmeasure, abs=1e-9)
