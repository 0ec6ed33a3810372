"""Confident learning by hand, and against cleanlab on the same probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from tuneloop.data.labels.predict import out_of_sample
from tuneloop.data.labels.suspects import Prune, confident_joint, suspects
from tuneloop.types import Ints

#                             of label 0                            of label 1
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SURE = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.7, 0.3]])


def noisy(rows: int, labels: int, rate: float, seed: int = 0) -> tuple[Ints, Ints, np.ndarray]:
    """Given labels, true labels, and probabilities that lean to the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, labels, rows)
    given = np.where(rng.random(rows) < rate, rng.integers(0, labels, rows), true)
    logits = rng.normal(size=(rows, labels)) + 3.5 * np.eye(labels)[true]
    return given, true, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_the_joint_by_hand() -> None:
    # thresholds: (0.9 + 0.8 + 0.6 + 0.1) / 4 = 0.6 for label 0, and 0.6 for label 1. Of the rows with label 0 three are
    # sure of 0 and one of 1; of those with label 1 one is sure of 0 (0.7) and three of 1
    np.testing.assert_allclose(confident_joint(LABELS, SURE), [[3, 1], [1, 3]])


def test_a_row_that_is_sure_of_nothing_is_not_counted_and_counts_are_scaled() -> None:
    labels, sure = np.append(LABELS, 0), np.vstack([SURE, [[0.55, 0.45]]])
    # thresholds 0.59 and 0.6: the new row counts for none. Label 0 has five rows, of which (3, 1) / 4 * 5
    np.testing.assert_allclose(confident_joint(labels, sure), [[3.75, 1.25], [1, 3]])


@pytest.mark.parametrize("prune", ["class", "noise_rate", "both"])
def test_the_doubtful_rows_by_hand(prune: Prune) -> None:
    found = suspects(LABELS, SURE, prune)
    assert found.rows.tolist() == [3, 7]            # margins 0.8 and 0.4
    assert found.likely.tolist() == [1, 0]
    np.testing.assert_allclose(found.margin, [0.8, 0.4])


def test_a_margin_may_be_asked_for() -> None:
    assert suspects(LABELS, SURE, least_margin=0.5).rows.tolist() == [3]


def test_flipped_labels_are_found() -> None:
    given, true, probabilities = noisy(2000, 5, 0.1)
    found = suspects(given, probabilities)
    wrong = given != true
    assert wrong[found.rows].mean() > 0.9
    assert wrong[found.rows].sum() > 0.85 * wrong.sum()
    assert (found.likely == true[found.rows]).mean() > 0.9


def test_a_label_without_rows_is_never_likely() -> None:
    probabilities = np.hstack([SURE * 0.9, np.full((8, 1), 0.1)])
    assert confident_joint(LABELS, probabilities)[:, 2].tolist() == [0, 0, 0]
    assert set(suspects(LABELS, probabilities).likely.tolist()) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("prune", "theirs"), [
    ("class", "prune_by_class"), ("noise_rate", "prune_by_noise_rate"), ("both", "both")])
def test_cleanlab_names_nearly_the_same_rows(prune: Prune, theirs: str, seed: int) -> None:
    """It rounds its counts so that they add up, and counts a row of two sure labels for the likeliest of all labels."""
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    given, _, probabilities = noisy(1500, 6, 0.1, seed)
    ours = set(suspects(given, probabilities, prune).rows.tolist())
    named = set(np.flatnonzero(find(given, probabilities, filter_by=theirs, n_jobs=1)).tolist())
    assert len(ours & named) >= 0.93 * len(ours | named)


@pytest.mark.slow
def test_the_joint_is_that_of_cleanlab() -> None:
    count = pytest.importorskip("cleanlab.count")
    given, _, probabilities = noisy(1500, 6, 0.1)
    np.testing.assert_allclose(confident_joint(given, probabilities),
                               count.compute_confident_joint(given, probabilities), atol=1)


def test_probabilities_of_rows_that_the_model_has_not_seen() -> None:
    pytest.importorskip("sklearn")
    words = {0: "apple pear plum", 1: "hammer nail saw"}
    texts = [f"{words[label]} {number}" for number in range(20) for label in (0, 1)]
    labels = np.tile([0, 1], 20)
    found = out_of_sample(texts, labels, np.arange(40) % 5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == labels).all()
    # a fold whose label no other fold has: it cannot be known
    alone = out_of_sample([*texts, "lamp"], np.append(labels, 2), np.append(np.arange(40) % 5, 9))
    assert alone[40, 2] == 0


def test_texts_without_anything_in_common_tell_nothing() -> None:
    pytest.importorskip("sklearn")
    found = out_of_sample([chr(0x4E00 + number) for number in range(1200)], np.arange(1200) % 2, np.arange(1200) % 5)
    np.testing.assert_allclose(found, 0.5, atol=0.02)
