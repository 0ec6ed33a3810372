"""Dawid and Skene's own example, and a plain loop over their equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuneloop.data.labels.adjudicate import dawid_skene
from tuneloop.types import Ints

# Dawid and Skene 1979, table 1: 45 patients; the first anaesthetist judged each three times, the other four once.
PATIENTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
WHO = [0, 0, 0, 1, 2, 3, 4]


def example() -> tuple[Ints, Ints, Ints]:
    flat = [(item, who, int(said) - 1) for item, patient in enumerate(PATIENTS.split())
            for who, said in zip(WHO, patient, strict=True)]
    items, people, values = np.array(flat).T
    return items, people, values


def by_loops(items: Ints, people: Ints, values: Ints, rounds: int) -> tuple[Any, Any, Any]:
    """Equations 3.1, 2.3, 2.4 and 2.5 of the paper, one number at a time."""
    shape = items.max() + 1, people.max() + 1, values.max() + 1
    counts = np.zeros(shape)
    for item, who, said in zip(items, people, values, strict=True):
        counts[item, who, said] += 1
    likely = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
    for _ in range(rounds):
        shares = likely.mean(axis=0)
        errors = np.zeros((shape[1], shape[2], shape[2]))
        for who in range(shape[1]):
            for true in range(shape[2]):
                told = [sum(likely[i, true] * counts[i, who, said] for i in range(shape[0]))
                        for said in range(shape[2])]
                errors[who, true] = np.array(told) / sum(told) if sum(told) else 0
        for i in range(shape[0]):
            for true in range(shape[2]):
                likely[i, true] = shares[true] * np.prod(errors[:, true, :] ** counts[i])
            likely[i] /= likely[i].sum()
    return likely, shares, errors


def test_the_published_example() -> None:
    settled = dawid_skene(*example())
    assert settled.shares.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]         # table 2
    assert np.bincount(settled.labels.argmax(axis=1)).tolist() == [18, 19, 5, 3]
    assert settled.errors[0, 0, 0] == pytest.approx(0.89, abs=0.005)
    likely, shares, errors = by_loops(*example(), rounds=60)
    np.testing.assert_allclose(settled.labels, likely, atol=1e-4)
    np.testing.assert_allclose(settled.shares, shares, atol=1e-4)
    np.testing.assert_allclose(settled.errors, errors, atol=1e-4)


def test_it_knows_better_than_the_majority_where_most_annotators_are_careless() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 400)
    right = [0.95, 0.9, 0.1, 0.1, 0.1]
    said = np.stack([np.where(rng.random(400) < skill, truth, rng.integers(0, 3, 400)) for skill in right], axis=1)
    items, people = np.repeat(np.arange(400), 5), np.tile(np.arange(5), 400)
    settled = dawid_skene(items, people, said.ravel())
    majority = np.stack([(said == label).sum(axis=1) for label in range(3)], axis=1).argmax(axis=1)
    assert (majority == truth).mean() < 0.87
    assert (settled.labels.argmax(axis=1) == truth).mean() > 0.93
    skill = np.einsum("k,akk->a", settled.shares, settled.errors)
    assert set(skill.argsort()[-2:].tolist()) == {0, 1}


def test_annotators_that_agree_are_believed_at_once() -> None:
    settled = dawid_skene(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(settled.labels, np.eye(2))
