"""Kappa by hand and by the papers' examples; a model among people."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from judging import answer, clicks, desk, in_memory, judge_all, prefers, questions, word, work

from tuneloop.people.agreement import agreements, counted, fleiss_kappa, with_people
from tuneloop.people.items import Verdict, equal
from tuneloop.people.questions import Question
from tuneloop.people.standing import standing_of
from tuneloop.people.store import Said


def test_fleiss_kappa_of_the_textbook() -> None:
    """Ten things, fourteen annotators, five codes: the worked example that is usually shown, 0.210."""
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
             [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert fleiss_kappa(np.array(table)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_by_hand() -> None:
    """Three people, two things: aaa and aab. Observed (1 + 1/3)/2 = 2/3; shares 5/6 and 1/6, chance 26/36."""
    assert fleiss_kappa(counted([[0, 0, 0], [0, 0, 1]])) == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))


@pytest.mark.parametrize("said", [[], [[1], [0]], [[1, 1, 1], [1, 1, 1]]])
def test_no_kappa(said: list[list[int]]) -> None:
    assert math.isnan(fleiss_kappa(counted(said)))


@pytest.fixture
def four(tmp_path: Path) -> list[Question]:
    return questions(tmp_path, 4)


def opinions(four: list[Question], annotator: str, said: str) -> list[Said]:
    """`1` prefers the good answer, `2` the poor one, `t` neither, `b` says that both are bad; `-` judges nothing."""
    made = []
    for question, letter in zip(four, said, strict=True):
        both = [answer(question, "good"), answer(question, "poor")]
        verdict = {"1": prefers(question, "good", "poor"), "2": prefers(question, "poor", "good"), "t": equal(both),
                   "b": equal(both, bad=True), "-": None}[letter]
        made += [word(question, verdict, annotator)] if verdict else []
    return made


def test_two_people(four: list[Question]) -> None:
    """Three of four the same. Which answer has the smaller id is a matter of hashes, and no matter for kappa:
    of the codes that were used chance is (2/4)(1/4) + (1/4)(1/4) + (1/4)(1/4) + 0 where t stands against 1.
    """
    [found] = agreements([*opinions(four, "ann", "1tbt"), *opinions(four, "bob", "1tb1")])
    assert (found.shared, found.by_all, found.of) == (4, 4, "Cohen")
    assert found.same == pytest.approx(0.75)
    ids = [answer(q, "good") < answer(q, "poor") for q in four]
    chance = (0.5 * 0.25 + 0.25 * 0.25 + 0.25 * (0.5 if ids[0] == ids[3] else 0.25))
    assert found.kappa == pytest.approx((0.75 - chance) / (1 - chance))
    assert "4 pairs of answers in common: 75% the same, Cohen's kappa" in found.sentence()


def test_three_people_who_did_not_all_judge_everything(four: list[Question]) -> None:
    [found] = agreements([said for name, of in (("ann", "ttb-"), ("bob", "tbbt"), ("cid", "tb--"))
                          for said in opinions(four, name, of)])
    assert (found.of, found.shared, found.by_all) == ("Fleiss", 3, 2)
    # tt t, tb b: observed (1 + 1/3)/2, shares 4/6 and 2/6
    assert found.kappa == pytest.approx((2 / 3 - 20 / 36) / (1 - 20 / 36))
    assert {(b.first, b.second): b.shared for b in found.between} == {
        ("ann", "bob"): 3, ("ann", "cid"): 2, ("bob", "cid"): 2}
    assert "over the 2 that all judged" in found.sentence()


def test_an_order_agrees_with_pairs(four: list[Question]) -> None:
    question = four[0]
    names = [answer(question, text) for text in ("good", "fair", "poor")]
    order = word(question, Verdict(tuple((name,) for name in names)), "bob", ask="order")
    pairs = [word(question, prefers(question, a, b), "ann") for a, b in (("good", "fair"), ("good", "poor"),
                                                                          ("poor", "fair"))]
    [found] = agreements([order, *pairs])
    assert found.shared == 3
    assert found.same == pytest.approx(2 / 3)


def test_ratings_are_apart_and_stars_are_a_scale(four: list[Question]) -> None:
    said = [word(q, Verdict(stars=n), name) for name, of in (("ann", (1, 2, 4, 5)), ("bob", (2, 1, 5, 4)))
            for q, n in zip(four, of, strict=True)]
    said += [word(q, Verdict(liked=n), name) for name, of in (("ann", (1, 1, 0, 0)), ("bob", (1, 0, 0, 0)))
             for q, n in zip(four, map(bool, of), strict=True)]
    thumbs, stars = agreements(said)
    assert (thumbs.what, stars.what) == ("thumbs", "stars")
    assert stars.kappa is not None
    assert stars.alpha is not None
    assert thumbs.kappa == pytest.approx(0.5)       # 3/4 observed, chance 1/2·1/4 + 1/2·3/4 = 1/2
    assert stars.kappa < 0 < 0.5 < stars.alpha      # never the same, never far


def test_nobody_to_agree_with(four: list[Question]) -> None:
    assert agreements(opinions(four, "ann", "12tb")) == []
    assert agreements([*opinions(four, "ann", "12--"), *opinions(four, "bob", "--tb")]) == []


def test_a_model_is_compared_with_most_people(four: list[Question]) -> None:
    people = [said for name, of in (("ann", "11b1"), ("bob", "12b2"), ("cid", "11t-"))
              for said in opinions(four, name, of)]
    judges = opinions(four, "gpt", "12t1")
    [found] = with_people(people, judges)
    assert (found.judge, found.judged, found.shared) == ("gpt", 4, 3)       # nobody knows of the fourth
    assert found.same == pytest.approx(2 / 3)       # 1 and 1; 2 against 1; a tie where both are bad
    assert "gpt (a model) judged 4; of the 3" in found.sentence()
    assert "people none of them" in with_people([], judges)[0].sentence()


def test_standing_says_it_all(tmp_path: Path) -> None:
    import random

    of, kept = work(tmp_path, 40), in_memory()
    judge_all(desk(of, kept, "ann"))
    judge_all(desk(of, kept, "bob"))
    judge_all(desk(of, kept, "eve"), clicks(random.Random(1)))
    found = standing_of(len(of.items), kept)
    assert found.at_random == ["eve"]
    assert [one.state for one in found.people] == ["reads", "reads", "at random"]
    [pairs] = found.agreements
    kappas = {(b.first, b.second): b.kappa for b in pairs.between}
    assert kappas["ann", "bob"] == 1
    assert abs(kappas["ann", "eve"] or 0) < 0.2
    text = "\n".join(found.lines())
    assert "eve: seems to click at random" in text
    assert found.to_json()["at_random"] == ["eve"]
    assert standing_of(3, in_memory()).lines() == ["Nobody has judged anything yet."]
