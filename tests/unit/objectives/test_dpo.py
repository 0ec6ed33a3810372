"""Direct preference optimisation, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from objective_batches import batch_of, numbers, outputs_of
from tuneloop.objectives.dpo import Objective

# Two pairs: chosen then rejected. Log-probs of two and one, one and two tokens.
LOGPROBS = [-1.0, -2.0, -4.0, -3.0, -0.5, -0.5]
REFERENCE = [-2.0, -2.0, -3.0, -2.5, -1.0, -1.0]
RATIOS = [(-3.0 + 4.0, -4.0 + 3.0), (-3.0 + 2.5, -1.0 + 2.0)]       # (chosen, rejected) log(pi / ref) of both pairs
LENGTHS = [(2, 1), (1, 2)]
BETA = 0.5


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def found(**settings: Any) -> Any:
    batch = batch_of([2, 1, 1, 2], groups=[0, 0, 1, 1], reference_logprobs=REFERENCE)
    return Objective(beta=BETA, **settings).loss(outputs_of(batch, LOGPROBS), batch)


def margins() -> list[float]:
    return [BETA * (chosen - rejected) for chosen, rejected in RATIOS]      # 1.0 and -0.75


def test_sigmoid() -> None:
    assert found().loss.item() == pytest.approx(sum(-math.log(sigmoid(m)) for m in margins()))


def test_label_smoothing_takes_a_share_of_pairs_to_be_the_wrong_way_round() -> None:
    wanted = sum(-0.9 * math.log(sigmoid(m)) - 0.1 * math.log(1 - sigmoid(m)) for m in margins())
    assert found(label_smoothing=0.1).loss.item() == pytest.approx(wanted)


def test_hinge() -> None:
    assert found(form="hinge").loss.item() == pytest.approx(0.0 + 1.75)


def test_ipo_takes_means_per_token() -> None:
    wanted = sum((h / n - g / k - 1 / (2 * BETA)) ** 2 for (h, g), (n, k) in zip(RATIOS, LENGTHS, strict=True))
    assert found(form="ipo").loss.item() == pytest.approx(wanted)


def test_without_a_reference_all_answers_are_equally_likely_to_it() -> None:
    batch = batch_of([2, 1, 1, 2], groups=[0, 0, 1, 1])
    objective = Objective(beta=BETA, reference_free=True)
    wanted = sum(-math.log(sigmoid(BETA * m)) for m in (-3.0 + 4.0, -3.0 + 1.0))
    assert objective.loss(outputs_of(batch, LOGPROBS), batch).loss.item() == pytest.approx(wanted)
    assert objective.needs == set()
    assert Objective().needs == {"reference_logprobs"}


def test_metrics_are_sums_over_pairs() -> None:
    assert numbers(found().sums) == pytest.approx({
        "accuracy": 1, "margin": sum(margins()), "chosen_reward": BETA * (1.0 - 0.5), "rejected_reward": BETA * 0.0})


def test_the_gradient_pushes_the_answers_apart() -> None:
    """d L / d log pi(w) = -beta (1 - sigma(margin)) on every token of the chosen answer, and the opposite on l's."""
    batch = batch_of([2, 1, 1, 2], groups=[0, 0, 1, 1], reference_logprobs=REFERENCE)
    out = outputs_of(batch, LOGPROBS)
    Objective(beta=BETA).loss(out, batch).loss.backward()  # type: ignore[no-untyped-call]
    first, second = (BETA * (1 - sigmoid(m)) for m in margins())
    assert out.logprobs.grad is not None
    assert out.logprobs.grad.tolist() == pytest.approx([-first, -first, first, -second, second, second])


@pytest.mark.parametrize(("settings", "wrong"), [
    ({"beta": 0}, "beta"), ({"label_smoothing": 0.5}, "label_smoothing"),
    ({"label_smoothing": 0.1, "form": "ipo"}, "form sigmoid"),
    ({"reference_free": True, "reference": "x"}, "reference")])
def test_senseless_settings_are_refused(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Objective(**settings)
