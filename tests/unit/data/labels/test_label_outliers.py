"""Outliers among numbers and texts."""

from __future__ import annotations

import numpy as np
import pytest

from tuneloop.data.labels.outliers import FAR, likeness, robust_scores


def test_scores_by_hand() -> None:
    # median 3, distances 2 1 0 1 97, their median 1
    np.testing.assert_allclose(robust_scores(np.array([1.0, 2, 3, 4, 100])), 0.6745 * np.array([-2, -1, 0, 1, 97]))
    assert robust_scores(np.array([5.0, 5, 5, 9])).tolist() == [0, 0, 0, 0]


def test_scores_of_normal_values_are_in_standard_deviations() -> None:
    values = np.random.default_rng(0).normal(10, 2, 20_000)
    assert robust_scores(values).std() == pytest.approx(1, abs=0.03)
    assert (np.abs(robust_scores(values)) > FAR).mean() < 0.001


def test_a_text_of_other_words_is_least_alike() -> None:
    texts = [f"where is my order number {number} and when will it come" for number in range(30)]
    found = likeness([*texts, "zyx qwrtz bglp hmm"])
    assert found.argmin() == 30
    assert found[30] < 0.05 < 0.3 < found[:30].min()


def test_equal_texts_are_fully_alike() -> None:
    np.testing.assert_allclose(likeness(["one two three", "one two three", "four five six"])[:2], 0.5, atol=0.02)
