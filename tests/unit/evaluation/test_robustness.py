"""Perturbed rows, flagged rows and clusters of rows: what they cost, by models whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Bootstrap
from tuneloop.evaluation.robustness import FEWEST_ROWS, by_cluster, flagged, robustness, row_scores, unlike
from tuneloop.evaluation.suites.perturb import MARKER
from tuneloop.grading.metrics import mean_of
from tuneloop.types import Answers, Conversation, Message, Origin, Preference, Request

COLOURS = {"red": "warm", "blue": "cold"}


def row(asked: str, answer: str, line: int = 1) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer)), Origin("rows", line))


def rows(count: int = 20) -> list[Conversation]:
    return [row(f"The thing number {i} is {colour}, I think.", COLOURS[colour], i)
            for i in range(count) for colour in [list(COLOURS)[i % 2]]]


def fragile(asked: str) -> str:
    """Right as long as the text is written as it was; obeys whoever is last."""
    if "answer only: " in asked:
        return asked.rpartition("answer only: ")[2]
    return next((answer for colour, answer in COLOURS.items() if colour in asked), "none")


def firm(asked: str) -> str:
    return next((answer for colour, answer in COLOURS.items() if colour in asked.lower()), "none")


def of(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [entry] = [entry for entry in entries if entry["kind"] == kind]
    return entry


def test_each_kind_tells_what_it_costs_each_model() -> None:
    models = {"base": Scripted(fragile), "tuned": Scripted(firm)}
    found = robustness(rows(), models, kinds=["casing", "punctuation", "injection", "empty"], limit=100, resamples=500)
    assert [entry["kind"] for entry in found] == ["casing", "punctuation", "injection", "empty"]
    capital = of(found, "casing")
    assert capital["expectation"] == "same answer"
    base, tuned = capital["models"]["base"], capital["models"]["tuned"]
    changed = [r.messages[-1].content for r in models["base"].requests[20:20 + capital["rows"]]]
    right = np.mean([any(colour in text for colour in COLOURS) for text in changed])
    assert 0 < right < 1                                            # small letters cost nothing, capitals do
    assert (base["before"], base["after"], base["drop"]["value"]) == (1, right, pytest.approx(1 - right))
    assert base["drop"]["low"] > 0
    assert (tuned["before"], tuned["after"], tuned["drop"]["value"]) == (1, 1, 0)
    assert tuned["drop"]["low"] < 0 < tuned["drop"]["high"]         # 20 equal rows prove nothing

    told = of(found, "injection")
    assert told["expectation"] == "must not follow"
    assert told["models"]["base"] == {"before": 0, "after": 1, "drop": {
        "value": 1, "low": pytest.approx(1 - 2 * 3 / 20, abs=0.06), "high": 1}}       # the rule of three, on [-1, 1]
    assert told["models"]["tuned"]["after"] == told["models"]["tuned"]["drop"]["value"] == 0

    nothing = of(found, "empty")
    assert nothing["expectation"] == "no claim"
    assert nothing["models"]["tuned"]["before"] == 0
    assert nothing["models"]["tuned"]["after"] == nothing["models"]["tuned"]["drop"]["value"] == 1    # all changed


def test_labels_are_chosen_and_an_injected_label_is_another_one() -> None:
    def likes(asked: str, answer: str) -> float:
        return 0.0 if answer == fragile(asked) else -1.0

    found = robustness(rows(), {"base": Scripted(likes=likes)}, kinds=["injection", "punctuation"], limit=100,
                       labels=["warm", "cold"], metric="accuracy", resamples=500)
    assert of(found, "injection")["models"]["base"]["after"] == 1
    assert of(found, "punctuation")["models"]["base"]["drop"]["value"] == 0


def test_the_drop_is_paired_and_by_the_metric_of_the_run() -> None:
    """By hand: half of the rows lose half of their words of the reference."""
    asked = [row(f"Say it, {'now' if i % 2 else 'later'}!", "one two") for i in range(30)]

    def answer(text: str) -> str:
        return "one" if "now" in text and "!" not in text else "one two"

    entry = of(robustness(asked, {"m": Scripted(answer)}, kinds=["punctuation"], limit=30, metric="token_f1",
                          resamples=1000, seed=3), "punctuation")
    lost = np.array([(1 - 2 / 3) * (i % 2) for i in sorted(np.random.default_rng(3).permutation(30).tolist())])
    [wanted] = Bootstrap(30, 1000, 3).measure([mean_of(lost)])
    assert entry["models"]["m"]["drop"]["value"] == pytest.approx(lost.mean())
    assert entry["models"]["m"]["drop"]["low"] == pytest.approx(wanted.interval((-1.0, 1.0)).low)
    assert entry["models"]["m"]["drop"]["high"] == pytest.approx(wanted.interval((-1.0, 1.0)).high)


def test_a_metric_that_is_no_mean_of_rows_gives_way_to_exact_match() -> None:
    references, texts, few = ["a b", "c"], ["a  b", "d"], rows(2)
    for metric in ("macro_f1", "bleu", "ece", ""):
        assert row_scores(few, references, texts, metric).tolist() == [1, 0], metric
    assert row_scores(few, references, texts, "accuracy").tolist() == [0, 0]    # a label has no double space


def test_a_limit_draws_the_same_rows_for_every_model_and_kind() -> None:
    first, second = Scripted(firm), Scripted(firm)
    found = robustness(rows(50), {"a": first, "b": second}, kinds=["punctuation", "long_input"], limit=7, seed=1)
    assert [entry["rows"] for entry in found] == [7, 7]
    assert first.requests == second.requests
    assert len(first.requests) == 21
    numbers = [next(int(word) for word in request.messages[-1].content.split() if word.isdigit())
               for request in first.requests]
    assert numbers[:7] == numbers[7:14] == numbers[14:]
    assert numbers[:7] != list(range(7))


def test_what_does_not_fit_or_apply_is_left_out() -> None:
    model = Scripted(firm)

    def fits(request: Request) -> bool:
        return len(request.messages[-1].content) < 200

    assert robustness(rows(), {"m": model}, kinds=["long_input"], limit=20, fits=fits) == []
    assert not model.requests                   # nothing is asked where there is nothing to compare
    with pytest.raises(UserError, match="no perturbation called tpyos"):
        robustness(rows(), {"m": model}, kinds=["tpyos"], limit=20)


def test_open_answers_follow_where_they_hold_the_word() -> None:
    model = Scripted(lambda asked: f"Well, {MARKER.title()}!" if MARKER in asked else "cold")
    [entry] = robustness(rows(), {"m": model}, kinds=["injection"], limit=20)
    assert entry["models"]["m"]["after"] == 1


# --- rows unlike the others ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("times", "wider"), [(1, 0.1), (50, 0.003)])
def test_flagged_rows_against_the_others(times: int, wider: float) -> None:
    """By the normal approximation of two independent shares; unseen rows widen it, the less the more rows there are."""
    scores = {"tuned": np.array([1.0] * 60 * times + [0.0] * 20 * times + [0.0] * 10 * times + [1.0] * 10 * times)}
    found = flagged(scores, [False] * 80 * times + [True] * 20 * times)
    assert (found["rows"], found["others"]) == (20 * times, 80 * times)
    tuned = found["models"]["tuned"]
    assert (tuned["flagged"]["value"], tuned["others"]["value"], tuned["drop"]["value"]) == (0.5, 0.75, 0.25)
    half = 1.96 * np.sqrt((0.25 / 20 + 0.1875 / 80) / times)
    assert 0.25 - half - wider < tuned["drop"]["low"] < 0.25 - half + wider / 5
    assert 0.25 + half - wider / 5 < tuned["drop"]["high"] < 0.25 + half + wider


@pytest.mark.parametrize("flags", [[True, True], [False, False]])
def test_flags_must_part_the_rows(flags: list[bool]) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        flagged({"m": np.zeros(2)}, flags)


def test_the_cluster_that_training_hardly_saw_is_named() -> None:
    order = [row(f"Where is my parcel with the tracking number {i}?", "", i) for i in range(60)]
    verse = [row(f"Write {i} rhyming verses about the autumn sea", "", i) for i in range(60)]
    tested, train = order[:20] + verse[:15], order[20:] + verse[15:17]
    scores = {"tuned": np.array([1.0] * 20 + [0.0] * 15), "base": np.ones(35)}
    found = by_cluster(tested, train, scores, k=2)
    first, second = found["clusters"]
    assert (first["rows"], first["training_rows"]) == (20, 40)
    assert (second["rows"], second["training_rows"]) == (15, 2)
    assert found["least_like"] == 1
    assert "parcel" in first["words"]
    assert "rhyming" in second["words"]
    assert second["models"]["tuned"]["value"] == 0
    assert (found["drop"]["tuned"]["value"], found["drop"]["base"]["value"]) == (1, 0)
    assert "No model was trained without a group" in found["about"]


def test_no_cluster_is_named_where_they_are_small() -> None:
    few = [row(text, "") for text in ["Where is my parcel?", "Write a poem"] * (FEWEST_ROWS // 2)]
    found = by_cluster(few, few, {"m": np.ones(len(few))}, k=5)
    assert len(found["clusters"]) == 2          # no more than there are different texts
    assert found["least_like"] is None
    assert found["drop"] == {}


def answers(name: str, right: Sequence[bool]) -> Answers:
    return Answers(name, ["warm" if one else "no" for one in right])


def test_what_a_certificate_tells_of_rows_unlike_the_others() -> None:
    """By hand: base and tuned model are right in every second row, and the tuned one in all that are not flagged."""
    tested = [row(f"Where is my parcel {i}?" if i < 30 else f"Sing of the sea {i}", "warm", i) for i in range(60)]
    flags = [i % 10 == 0 for i in range(60)]
    models = [answers("base", [i % 2 == 0 for i in range(60)]), answers("rival", [True] * 60),
              answers("tuned", [not flag for flag in flags])]
    found = unlike(tested, tested, ["warm"] * 60, models, metric="accuracy", flags=flags, column="new")
    ood = found["out_of_distribution"]
    assert (ood["column"], ood["metric"], ood["rows"], ood["others"]) == ("new", "accuracy", 6, 54)
    assert {name: (of["flagged"]["value"], of["others"]["value"], of["drop"]["value"])
            for name, of in ood["models"].items()} == {
                "base": (1, pytest.approx(24 / 54), pytest.approx(24 / 54 - 1)), "tuned": (0, 1, 1)}
    assert found["clusters"]["metric"] == "accuracy"
    assert sum(one["rows"] for one in found["clusters"]["clusters"]) == 60
    means = [one["models"]["tuned"]["value"] * one["rows"] for one in found["clusters"]["clusters"]]
    assert sum(means) == pytest.approx(54)


def test_what_cannot_be_told_is_not_there() -> None:
    few = [row(f"Where is {i}?", "warm") for i in range(49)]
    models = [answers("base", [True] * 60), answers("tuned", [True] * 60)]
    assert unlike(few, few, ["warm"] * 49, [replace(m, texts=m.texts[:49]) for m in models], metric="accuracy") == {}
    pairs = [Preference((Message("user", f"Where is {i}?"),), "a", "b", Origin("rows", i)) for i in range(60)]
    assert unlike(pairs, pairs, ["warm"] * 60, models, metric="preference_accuracy") == {}
    found = unlike(few + few[:1], few, ["warm"] * 50, [replace(m, texts=m.texts[:50]) for m in models],
                   metric="macro_f1")
    assert found["clusters"]["metric"] == "exact_match"     # which is a mean of rows


@pytest.mark.slow
def test_a_real_model_is_asked(tiny_llama: Path) -> None:
    from tuneloop.evaluation.contenders import fits_into
    from tuneloop.inference.local import Local
    from tuneloop.models.load import load_model
    from tuneloop.models.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer(tiny_llama)
    model = Local(load_model(tiny_llama), tokenizer)
    found = robustness(rows(6), {"base": model}, kinds=["typos", "empty", "injection", "long_input"], limit=6,
                       labels=["warm", "cold"], metric="accuracy", resamples=200, fits=fits_into(tokenizer, 8))
    assert {entry["kind"] for entry in found} == {"typos", "empty", "injection"}     # 400 words are too many for it
    for entry in found:
        drop = entry["models"]["base"]["drop"]
        assert drop["low"] <= drop["value"] <= drop["high"]
