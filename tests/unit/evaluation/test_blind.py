from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from tuneloop.errors import UserError
from tuneloop.evaluation.blind import (
    Judgement,
    Key,
    Pair,
    agreement,
    ask_for,
    draw_pairs,
    exact_interval,
    read_judgements,
    read_key,
    read_pairs,
    result,
    write_judgements,
    write_pairs,
)
from tuneloop.record import RunFolder

PREDICTIONS: list[dict[str, Any]] = [
    {"row": i, "prompt": f"Question {i}?",
     "answers": {"base": f"old {i}", "tuned": f"new {i}" if i % 5 else f"old  {i}"}}
    for i in range(100)]


def key_of(pairs: int) -> Key:
    """Tuned is on the left of every other pair."""
    left = {f"p{i}": ("tuned", "base")[i % 2] for i in range(pairs)}
    return Key(("base", "tuned"), left, {f"p{i}": i for i in range(pairs)}, pairs, 0, "")


def said(key: Key, model: str, pair: str, annotator: str = "ana") -> Judgement:
    """As a person who prefers a model says it, without knowing so."""
    if model in ("tie", "both_bad"):
        return Judgement(pair, "tie" if model == "tie" else "both_bad", annotator, 15)
    return Judgement(pair, "left" if key.left[pair] == model else "right", annotator, 15)


def all_said(key: Key, models: list[str], annotator: str = "ana") -> list[Judgement]:
    return [said(key, model, pair, annotator) for model, pair in zip(models, key.left, strict=True)]


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_draws_what_differs_with_each_model_on_the_left_half_of_the_time() -> None:
    pairs, key = draw_pairs(PREDICTIONS, 40, seed=1)
    assert len(pairs) == len(key.left) == len(set(key.rows.values())) == 40
    assert sum(model == "tuned" for model in key.left.values()) == 20
    assert key.same_answers == 20
    for pair in pairs:
        row = PREDICTIONS[key.rows[pair.pair]]
        assert row["row"] % 5
        assert pair.prompt == row["prompt"]
        other = {"base": "tuned", "tuned": "base"}[key.left[pair.pair]]
        assert (pair.left, pair.right) == (row["answers"][key.left[pair.pair]], row["answers"][other])
    rows = list(key.rows.values())
    assert rows != sorted(rows)
    assert draw_pairs(PREDICTIONS, 40, seed=1) == (pairs, key)
    assert draw_pairs(PREDICTIONS, 40, seed=2)[1].rows != key.rows


def test_neither_place_nor_side_tells_whose_answer_it_is() -> None:
    """Over 400 draws every place has each model on its left about half of the time."""
    on_left = [[model == "tuned" for model in draw_pairs(PREDICTIONS, 10, seed)[1].left.values()]
               for seed in range(400)]
    assert all(0.4 < sum(place) / 400 < 0.6 for place in zip(*on_left, strict=True))


def test_takes_all_where_there_are_fewer() -> None:
    pairs, key = draw_pairs(PREDICTIONS[:4], 40)
    assert sorted(key.rows.values()) == [1, 2, 3]
    assert len(pairs) == 3


def test_nothing_to_judge() -> None:
    with pytest.raises(UserError, match="Both models answer all 1 test rows alike"):
        draw_pairs(PREDICTIONS[:1])
    with pytest.raises(UserError, match="no answers of rival"):
        draw_pairs(PREDICTIONS, models=("base", "rival"))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_run_without_answers_has_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("base: b")
    with pytest.raises(UserError, match="has no answers to compare yet"):
        ask_for(RunFolder(tmp_path), 3)


def test_files_come_back(tmp_path: Path) -> None:
    pairs, key = draw_pairs([*PREDICTIONS, {"row": 100, "prompt": "A\u2028b\nü", "answers": {"base": "", "tuned": "\r\n"
                             "x"}}], 90)
    write_pairs(pairs, key, tmp_path / "pairs.jsonl", tmp_path / "key.json")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    assert read_key(tmp_path / "key.json", pairs) == key
    assert "tuned" not in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8")
    judgements = [Judgement(pairs[0].pair, "left", "ana", 3.5), Judgement(pairs[1].pair, "both_bad", "ben")]
    write_judgements(judgements, tmp_path / "said.jsonl")
    assert read_judgements(tmp_path / "said.jsonl", pairs) == judgements


def test_the_key_of_other_pairs_is_refused(tmp_path: Path) -> None:
    pairs, key = draw_pairs(PREDICTIONS)
    write_pairs(pairs, key, tmp_path / "pairs.jsonl", tmp_path / "key.json")
    edited = [replace(pairs[0], left="better"), *pairs[1:]]
    with pytest.raises(UserError, match=r"key\.json is not the key of these pairs"):
        read_key(tmp_path / "key.json", edited)
    (tmp_path / "key.json").write_text('{"models": ["a", "b"]}')
    with pytest.raises(UserError, match=r"key\.json is no key of blind pairs"):
        read_key(tmp_path / "key.json", pairs)
    (tmp_path / "key.json").write_text("{")
    with pytest.raises(UserError, match=r"key\.json cannot be read"):
        read_key(tmp_path / "key.json", pairs)


PAIR = Pair("p1", "Q", "A", "B")
GOOD = {"pair": "p1", "verdict": "left", "annotator": "ana", "seconds": 9}


@pytest.mark.parametrize(("change", "told"), [
    ({"pair": "p9"}, "there is no pair 'p9'"),
    ({"verdict": "Left"}, "the verdict is 'Left'"),
    ({"verdict": None}, "verdict is missing"),
    ({"annotator": " "}, "does not say who judged"),
    ({"annotator": 3}, "annotator is 3"),
    ({"seconds": -1}, "seconds is -1"),
    ({"seconds": "9"}, "seconds is '9'"),
    ({"seconds": True}, "seconds is True"),
])
def test_judgements_in_error_are_named_by_file_and_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps(GOOD | {"annotator": "zoe"}) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(UserError, match=rf"said\.jsonl line 2: .*{told}") as refused:
        read_judgements(file, [PAIR])
    assert refused.value.wanted


def test_all_errors_at_once(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps(GOOD | change) + "\n" for change in ({"pair": "x"}, {"verdict": "?"})))
    with pytest.raises(UserError) as refused:
        read_judgements(file, [PAIR])
    assert "line 1" in refused.value.text
    assert "line 2" in refused.value.text


def test_twice_by_the_same_person(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"verdict": "tie"}) + "\n")
    with pytest.raises(UserError, match=r"line 3: ana judged p1 again, first on line 1"):
        read_judgements(file, [PAIR])


@pytest.mark.parametrize(("text", "told"), [
    ('{"pair": "p1", "prompt": "Q", "left": "A"}', "line 1: right is missing"),
    ('{"pair": "p1", "prompt": "Q", "left": "A", "right": "B"}\n' * 2, "holds p1 2 times"),
    ('{"pair": ', "line 1"),
])
def test_pairs_in_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(text)
    with pytest.raises(UserError, match=told):
        read_pairs(tmp_path / "pairs.jsonl")


# --- statistics ------------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    key = key_of(10)
    found = result(key, all_said(key, ["tuned"] * 5 + ["base"] + ["tie"] * 3 + ["both_bad"]))
    assert found["verdicts"] == {"tuned": 5, "base": 1, "tie": 3, "both_bad": 1}
    assert (found["wins"], found["losses"], found["undecided_pairs"]) == (5, 1, 4)
    assert found["win_rate"]["value"] == pytest.approx(5 / 6)
    assert found["ties_as_half"]["value"] == pytest.approx(0.7)        # (5 + 4 / 2) / 10
    assert (found["left"], found["right"]) == (4, 2)                    # p0, p2, p4 and base on the left of p5
    assert found["minutes"] == pytest.approx(2.5)
    assert found["verdict"] == "undecided"
    assert found["sentence"].startswith("People preferred tuned in 5 of 6 blind pairs with a winner (83%, 95%")
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("models", "verdict"), [
    (["tuned"] * 6, "better"), (["base"] * 6, "worse"), (["tuned"] * 5, "undecided"), (["tie"] * 40, "undecided")])
def test_verdicts(models: list[str], verdict: str) -> None:
    """As the sign test: 2 * 0.5**6 is the first below 5 %."""
    key = key_of(len(models))
    assert result(key, all_said(key, models))["verdict"] == verdict


def test_no_winner_at_all() -> None:
    key = key_of(3)
    found = result(key, all_said(key, ["tie", "both_bad", "tie"]))
    assert found["win_rate"] is None
    assert found["sentence"] == "In none of 3 blind pairs was one answer preferred."
    with pytest.raises(UserError, match="No pair was judged"):
        result(key, [])


def test_several_people_decide_a_pair_by_majority() -> None:
    key = key_of(3)
    judgements = [*all_said(key, ["tuned", "tuned", "base"], "ana"), *all_said(key, ["tuned", "base", "tie"], "ben")]
    found = result(key, judgements)
    assert (found["wins"], found["losses"], found["undecided_pairs"]) == (1, 1, 1)
    assert found["ties_as_half"]["value"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert found["annotators"] == ["ana", "ben"]


@pytest.mark.parametrize("trials", [1, 7, 40, 1000])
def test_exact_interval_as_scipy(trials: int) -> None:
    for successes in {0, 1, trials // 3, trials - 1, trials}:
        witness = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
        found = exact_interval(successes, trials)
        assert (found.low, found.high) == pytest.approx((witness.low, witness.high), abs=1e-9)


@pytest.mark.parametrize("trials", range(1, 61))
def test_equal_models_have_a_winner_in_at_most_one_of_forty_on_each_side(trials: int) -> None:
    """Not sampled: every number of wins with its probability. Wilson's interval would name one more often."""
    named = [stats.binom.pmf(wins, trials, 0.5) for wins in range(trials + 1) if exact_interval(wins, trials).low > 0.5]
    assert sum(named) <= 0.025


def test_wilson_would_name_a_winner_more_often() -> None:
    named = [stats.binom.pmf(wins, 11, 0.5) for wins in range(12)
             if stats.binomtest(wins, 11).proportion_ci(0.95, "wilson").low > 0.5]
    assert sum(named) == pytest.approx(0.0327, abs=1e-4)


def test_agreement_by_hand() -> None:
    """10 pairs, equal on 7. Cohen: ana says tuned 6, base 4; ben tuned 7, base 3: chance is .42 + .12 = .54."""
    key = key_of(10)
    ana = ["tuned"] * 6 + ["base"] * 4
    ben = ["tuned"] * 5 + ["base"] * 1 + ["tuned"] * 2 + ["base"] * 2
    found = agreement(key, [*all_said(key, ana, "ana"), *all_said(key, ben, "ben")])
    assert found is not None
    assert (found["pairs"], found["same"]) == (10, pytest.approx(0.7))
    assert found["cohen_kappa"] == pytest.approx((0.7 - 0.54) / 0.46)


def test_agreement_of_three_is_fleiss_corrected_for_size() -> None:
    """Fleiss by hand: agreement within pairs (1 + 1/3 + 1/3 + 1) / 4, chance (6/12)**2 + (6/12)**2."""
    key = key_of(4)
    votes = [["tuned", "tuned", "base", "base"], ["tuned", "tuned", "base", "base"], ["tuned", "base", "tuned", "base"]]
    found = agreement(key, [one for who, of in zip("abc", votes, strict=True) for one in all_said(key, of, who)])
    by_hand = (2 / 3 - 0.5) / 0.5
    assert found is not None
    assert found["same"] == pytest.approx(2 / 3)
    assert found["cohen_kappa"] is None
    assert found["krippendorff_alpha"] == pytest.approx(1 - (1 - by_hand) * (1 - 1 / 12))


def test_one_person_has_nobody_to_agree_with() -> None:
    key = key_of(2)
    assert agreement(key, all_said(key, ["tuned", "base"])) is None
    both = [*all_said(key, ["tuned", "tuned"], "a"), *all_said(key, ["tuned", "tuned"], "b")]
    assert agreement(key, both) == {"pairs": 2, "same": 1.0, "cohen_kappa": None, "krippendorff_alpha": None}
