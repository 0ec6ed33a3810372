from __future__ import annotations

import json

import numpy as np
import pytest

from tuneloop.evaluation.compare import compare, holm, stack_of_perplexity, stack_of_scores
from tuneloop.evaluation.slices import FEWEST_ROWS, by_slice, slices_of
from tuneloop.types import Answers

BY = {"good": 60, "fell": 40, "weak": 30, "small": 7}
TOPICS = [topic for topic, rows in BY.items() for _ in range(rows)]
SLICES = slices_of(columns={"topic": TOPICS})


def scores() -> dict[str, np.ndarray]:
    """good: half right, then all; fell: all right, then half; weak: a fifth right, by both."""
    half, fifth = np.arange(200) % 2 == 0, np.arange(200) % 5 == 0
    base = np.concatenate([half[:60], np.ones(40), fifth[:30], np.ones(7)])
    tuned = np.concatenate([np.ones(60), half[:40], fifth[:30], np.zeros(7)])
    return {"base": base.astype(float), "tuned": tuned.astype(float)}


def test_the_worst_and_what_got_worse() -> None:
    found = by_slice(stack_of_scores("accuracy", scores()), SLICES)
    assert found.worst == ("topic: weak", "topic: fell", "topic: good")
    assert found.fell == ("topic: fell",)
    assert found.too_few == {"topic: small": 7}
    assert "topic: weak (0.200, 95 % interval 0." in found.sentences[0]
    assert found.sentences[1].startswith("topic: fell got worse: 1.000 to 0.500 (p = ")
    assert found.sentences[2] == f"1 slice has fewer than {FEWEST_ROWS} rows and is not judged (7 rows)."


def test_the_family_are_the_slices_that_are_judged() -> None:
    found = by_slice(stack_of_scores("accuracy", scores()), SLICES)
    alone = [compare([stack_of_scores("accuracy", scores())], [("base", "tuned")], {one.slice: SLICES[one.slice]})[0].p
             for one in found.slices]
    assert [one.p for one in found.slices] == alone
    assert [one.p_holm for one in found.slices] == holm(alone)
    assert [one.rows for one in found.slices] == [60, 40, 30]
    assert [one.scores[1].value for one in found.slices] == pytest.approx([1.0, 0.5, 0.2])


def test_where_lower_is_better() -> None:
    """Perplexity doubled on the first half of the rows."""
    random = np.random.default_rng(0)
    before = random.random(80) + 1
    after = before + np.where(np.arange(80) < 40, 0.7, -0.7)
    stack = stack_of_perplexity([Answers("base", [], before.tolist(), [1] * 80),
                                 Answers("tuned", [], after.tolist(), [1] * 80)])
    found = by_slice(stack, slices_of(columns={"half": ["a"] * 40 + ["b"] * 40}))
    assert found.fell == ("half: a",)
    assert found.worst == ("half: a", "half: b")


def test_nothing_has_enough_rows() -> None:
    found = by_slice(stack_of_scores("accuracy", {"base": np.ones(6), "tuned": np.ones(6)}),
                     slices_of(columns={"half": list("aaabbb")}))
    assert (found.slices, found.worst, found.fell) == ((), (), ())
    assert found.sentences == ["2 slices have fewer than 20 rows and are not judged (6 rows)."]


def test_ready_for_json() -> None:
    found = json.loads(json.dumps(by_slice(stack_of_scores("accuracy", scores()), SLICES).to_json(), allow_nan=False))
    assert found["slices"][1]["slice"] == "topic: fell"
    assert found["slices"][1]["to"] == "tuned"
    assert found["fewest_rows"] == FEWEST_ROWS


def test_by_everything_that_is_given() -> None:
    found = slices_of(labels=["yes", "no ", "no", "yes"], files=["a.csv", "a.csv", "b.csv", "a.csv"],
                      prompts=["Hi", "Bonjour à tous", "Hello, what is it?", "??"],
                      language={"Hi": "en", "Bonjour à tous": "fr", "Hello, what is it?": "en"}.get,
                      columns={"vip": [True, False, True, None], "all": [1, 1, 1, 1]})
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "label: yes": [0, 3], "label: no": [1, 2], "file: a.csv": [0, 1, 3], "file: b.csv": [2],
        "length: short (up to 2 characters)": [0, 3], "length: middle (up to 14 characters)": [1],
        "length: long (over 14 characters)": [2], "language: en": [0, 2], "language: fr": [1],
        "vip: True": [0, 2], "vip: False": [1]}


def test_thirds_are_thirds_and_never_part_equal_lengths() -> None:
    lengths = [len(rows) for rows in slices_of(prompts=["x" * n for n in range(1, 91)]).values()]
    assert lengths == [30, 30, 30]
    assert slices_of(prompts=["same"] * 9) == {}
    assert [rows.tolist() for rows in slices_of(prompts=["ab"] * 5 + ["abc"]).values()] == [[0, 1, 2, 3, 4], [5]]
