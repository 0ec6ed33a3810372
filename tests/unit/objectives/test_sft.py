"""The loss of supervised fine-tuning, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tuneloop.compute.model import to_batch
from tuneloop.compute.packing import build_forest
from tuneloop.objectives.sft import Objective
from tuneloop.types import Batch, Outputs, Rendered

HALF, THIRD, TENTH = math.log(1 / 2), math.log(1 / 3), math.log(1 / 10)


def batch_of(*weights: list[float]) -> Batch:
    """Rows whose first token is the prompt and whose further ones carry these weights."""
    rows = [Rendered(np.arange(len(w) + 1) + 10 * i, np.array([0, *w], np.float32)) for i, w in enumerate(weights)]
    return to_batch(build_forest(rows))


def outputs(batch: Batch, logprobs: list[float]) -> Outputs:
    return Outputs(torch.tensor(logprobs, requires_grad=True), batch.branch_of, batch.forest.branches)


def test_the_loss_is_the_sum_of_the_answers_negative_logprobs() -> None:
    batch = batch_of([1, 1], [1])
    out = outputs(batch, [HALF, THIRD, TENTH])      # the targets' probabilities: 1/2 and 1/3; 1/10
    assert Objective().loss(out, batch).loss.item() == pytest.approx(math.log(2 * 3 * 10), rel=1e-6)
    assert out.per_branch().tolist() == pytest.approx([HALF + THIRD, TENTH])


def test_weights_multiply_their_tokens() -> None:
    batch = batch_of([2, 0.5], [3])
    out = outputs(batch, [HALF, THIRD, TENTH])
    loss = Objective().loss(out, batch).loss
    assert loss.item() == pytest.approx(2 * math.log(2) + 0.5 * math.log(3) + 3 * math.log(10), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert out.logprobs.grad is not None
    assert out.logprobs.grad.tolist() == [-2, -0.5, -3]


def test_a_token_without_weight_is_no_target() -> None:
    batch = batch_of([1, 0, 1])
    assert batch.targets.tolist() == [1, 3]
    assert Objective().loss(outputs(batch, [HALF, TENTH]), batch).loss.item() == pytest.approx(math.log(20), rel=1e-6)


def test_the_mean_is_over_tokens_and_not_over_rows() -> None:
    """The loop divides by the weights of the whole step: -log(1/2) once and -log(1/10) three times make four tokens."""
    assert Objective().denominator == "weight"
    batch = batch_of([1], [1, 1, 1])
    loss = Objective().loss(outputs(batch, [HALF, TENTH, TENTH, TENTH]), batch).loss
    assert loss.item() / float(batch.weights.sum()) == pytest.approx((math.log(2) + 3 * math.log(10)) / 4, rel=1e-6)


def test_label_smoothing_spreads_a_share_of_the_target_over_the_vocabulary() -> None:
    """A vocabulary of two: p = (1/4, 3/4), target the first; the target distribution is (1 - e/2, e/2)."""
    batch = batch_of([2.0])
    mean = (math.log(1 / 4) + math.log(3 / 4)) / 2
    objective = Objective(label_smoothing=0.2)
    out = Outputs(torch.tensor([math.log(1 / 4)]), batch.branch_of, 1, mean_logprobs=torch.tensor([mean]))
    wanted = -2.0 * (0.9 * math.log(1 / 4) + 0.1 * math.log(3 / 4))
    assert objective.loss(out, batch).loss.item() == pytest.approx(wanted, rel=1e-6)
    assert objective.needs == {"mean_logprobs"}
    assert Objective().needs == set()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_senseless_label_smoothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        Objective(label_smoothing=share)


# --- the pull to the base --------------------------------------------------------------------------------------------

def with_reference(batch: Batch, logprobs: list[float]) -> Batch:
    return replace(batch, named={"reference_logprobs": torch.tensor(logprobs)})


def test_kl_adds_k3_of_every_token_by_its_weight() -> None:
    """p = 1/2 against the base's 1/3: r = 2/3, so that k3 = 2/3 - log(2/3) - 1; the second token has not moved."""
    batch = with_reference(batch_of([2, 1]), [THIRD, TENTH])
    found = Objective(kl=0.5).loss(outputs(batch, [HALF, TENTH]), batch)
    moved = 2 / 3 - math.log(2 / 3) - 1
    assert found.sums["kl"].item() == pytest.approx(2 * moved, rel=1e-6)
    assert found.loss.item() == pytest.approx(2 * math.log(2) + math.log(10) + 0.5 * 2 * moved, rel=1e-6)


def test_kl_pulls_back_what_has_grown_and_its_balance_is_where_the_docstring_says() -> None:
    """With c = 4 the gradient of a token's loss is 0 at p = ref 4 / 3."""
    batch = with_reference(batch_of([1, 1, 1]), [math.log(0.3)] * 3)
    out = outputs(batch, [math.log(0.3), math.log(0.4), math.log(0.8)])
    Objective(kl=4.0).loss(out, batch).loss.backward()  # type: ignore[no-untyped-call]
    assert out.logprobs.grad is not None
    assert out.logprobs.grad.tolist() == pytest.approx([-1, 0, -1 + 4 * (1 - 0.3 / 0.8)], abs=1e-6)


def test_without_kl_nothing_is_asked_and_not_a_bit_changes() -> None:
    batch = batch_of([0.3, 1.7], [1])
    values = [-0.123456, -2.34567, -0.777]
    plain = Objective().loss(outputs(batch, values), batch)
    with_column = with_reference(batch, [-9.0, -9.0, -9.0])
    assert Objective(kl=0.0).needs == frozenset()
    assert Objective(kl=0.1).needs == {"reference_logprobs"}
    assert torch.equal(Objective(kl=0.0).loss(outputs(batch, values), with_column).loss, plain.loss)
    assert torch.equal(plain.loss, (-torch.tensor(values) * batch.weights).sum())
    assert not plain.sums


def test_a_push_away_from_the_base_is_refused() -> None:
    with pytest.raises(ValueError, match="kl must be at least 0"):
        Objective(kl=-0.1)
