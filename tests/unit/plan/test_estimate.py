"""The peak of a step: its moments by hand, what moves it, and the search for the tokens that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuneloop.catalog import Catalog
from tuneloop.methods.base import MethodMemory
from tuneloop.models.outline import shape_named
from tuneloop.models.shape import Shape
from tuneloop.plan import estimate
from tuneloop.plan.block import tensors
from tuneloop.plan.calibration import Fit
from tuneloop.plan.estimate import HOLES, Memory, training_memory

SHAPE: Shape = shape_named("smollm2-360m-instruct")
TOKENS, HEADS = 1000, 100
MIB = 2**20


def cost(kind: str = "lora", **options: object) -> MethodMemory:
    found: MethodMemory = Catalog("method", "tuneloop.methods", "Method").get(kind)(kind=kind, **options).memory(SHAPE)
    return found


def test_lora_by_hand_is_fullest_at_the_logits() -> None:
    method = cost()
    found = training_memory(SHAPE, method, TOKENS, heads=HEADS, accumulates=False)
    kept = tensors(SHAPE, method).kept_per_token + 3 * SHAPE.hidden + 4 * SHAPE.head_dim
    assert found.weights == 4 * SHAPE.parameters + 4 * method.trainable_parameters
    assert (found.gradients, found.optimizer) == (0, 8 * method.trainable_parameters)
    assert found.activations == pytest.approx(4 * TOKENS * kept, abs=1)
    assert found.head == 2 * 4 * HEADS * SHAPE.vocab + 2 * 4 * HEADS * SHAPE.hidden
    later = training_memory(SHAPE, method, TOKENS, heads=HEADS, accumulates=True)
    assert later.gradients == 4 * method.trainable_parameters       # left by earlier pieces of the step


def test_full_fine_tuning_of_few_tokens_is_fullest_at_the_update() -> None:
    found = training_memory(SHAPE, cost("full"), 8, heads=2, accumulates=False)
    assert found.gradients == 4 * SHAPE.parameters
    assert found.optimizer == 8 * SHAPE.parameters + 2 * 4 * SHAPE.vocab * SHAPE.hidden     # two like the embedding
    assert found.activations == found.head == 0
    many = training_memory(SHAPE, cost("full"), 20_000, heads=2, accumulates=False)
    assert many.gradients < found.gradients
    assert many.activations > 0


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block() -> None:
    method = cost()
    plain, again = (estimate.activation_bytes_per_token(SHAPE, twice, method) for twice in (False, True))
    around = 4 * (3 * SHAPE.hidden + 4 * SHAPE.head_dim)
    assert again - around == 4 * SHAPE.layers * SHAPE.hidden + (plain - around) // SHAPE.layers
    assert training_memory(SHAPE, method, TOKENS, True).total_bytes < training_memory(SHAPE, method, TOKENS).total_bytes


def test_a_head_that_trains_makes_its_gradient_beside_two_tensors_of_logits() -> None:
    found = training_memory(SHAPE, replace(cost(), frozen_head=False), TOKENS, heads=TOKENS)
    chunk, gradient = 4 * estimate.HEAD_CHUNK * SHAPE.vocab, 4 * SHAPE.hidden * SHAPE.vocab
    assert 4 * chunk < 2 * chunk + gradient
    assert found.head == 2 * chunk + gradient + 2 * 4 * TOKENS * SHAPE.hidden


def test_what_the_objective_reads_counts() -> None:
    plain = training_memory(SHAPE, cost(), TOKENS, heads=HEADS).head
    entropy = training_memory(SHAPE, cost(), TOKENS, heads=HEADS, reducers=frozenset({"entropy"})).head
    assert entropy - plain == 4 * HEADS * SHAPE.vocab + 4 * HEADS * SHAPE.hidden
    assert training_memory(SHAPE, cost(), TOKENS, heads=HEADS, reducers=frozenset({"scores"})).head == 0


@pytest.mark.parametrize(("more", "by"), [
    ({"beside_bytes": 7 * MIB}, 7 * MIB), ({"optimizer": "adamw_8bit"}, -5.96), ({"dtype_bytes": 2}, -0.5)])
def test_what_moves_the_peak(more: dict[str, object], by: float) -> None:
    before, after = training_memory(SHAPE, cost(), TOKENS), training_memory(SHAPE, cost(), TOKENS, **more)  # type: ignore[arg-type]
    if "beside_bytes" in more:
        assert after.weights - before.weights == by
    elif "optimizer" in more:
        assert after.optimizer - before.optimizer == pytest.approx(by * cost().trainable_parameters, abs=1)
    else:
        assert after.activations == pytest.approx((1 + by) * before.activations, abs=1)


def test_large_tensors_leave_no_holes() -> None:
    """Above 32 MiB nothing comes from glibc's heap: 4 bytes times 8,192 numbers times 1,024 tokens."""
    few = tensors(SHAPE, cost())
    edge = estimate.HEAP_BYTES // (4 * SHAPE.intermediate)
    below, above = (training_memory(SHAPE, cost(), tokens, heads=1).other for tokens in (edge - 1, edge + 1))
    wide = few.dropped(1e9) - few.dropped(SHAPE.intermediate)
    assert below - above == pytest.approx(4 * edge * HOLES[False].wide * wide, rel=0.02)


def test_the_bar_is_around_what_is_above_the_runtime_and_a_smaller_one_around_that() -> None:
    made = Memory(weights=800, gradients=50, optimizer=50, activations=80, head=10, runtime=1000, other=10, error=0.1)
    assert (made.total_bytes, made.low, made.high) == (2000, 1800, 2200)
    assert sum(made.parts.values()) == 2000


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_tokens_that_fit_are_the_most_that_fit(checkpointing: bool) -> None:
    def high(tokens: int) -> int:
        return training_memory(SHAPE, cost(), tokens, checkpointing, shared=True, heads=tokens).high

    limit = high(700) + 1
    found = estimate.fitting_tokens(SHAPE, cost(), limit, checkpointing)
    assert high(found) <= limit < high(found + 1)
    assert estimate.fitting_tokens(SHAPE, cost(), SHAPE.parameters, checkpointing) == 0


def test_a_fit_makes_the_bar_narrower_and_so_the_budget_larger() -> None:
    right = Fit(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1000, (0.0, 0.0))
    limit = training_memory(SHAPE, cost(), 1000).high
    assert estimate.fitting_tokens(SHAPE, cost(), limit, False, fit=right) \
        > estimate.fitting_tokens(SHAPE, cost(), limit, False)


def test_flops_by_hand() -> None:
    linear = sum(i * o * n for _, i, o, n in SHAPE.linear_shapes())
    width, lora, full = SHAPE.layers * SHAPE.heads * SHAPE.head_dim, cost(), cost("full")
    head, pairs = 2 * SHAPE.hidden * SHAPE.vocab * HEADS, 5000.0
    assert estimate.forward_flops(SHAPE, TOKENS, HEADS, pairs) == 2 * linear * TOKENS + head + 4 * width * pairs
    found = estimate.training_flops(SHAPE, lora, TOKENS, HEADS, pairs)
    assert found == 4 * linear * TOKENS + 6 * lora.trainable_parameters * TOKENS + 2 * head + 14 * width * pairs
    again = estimate.training_flops(SHAPE, lora, TOKENS, HEADS, pairs, checkpointing=True)
    assert again - found == 2 * linear * TOKENS + 4 * width * pairs
    assert estimate.training_flops(SHAPE, full, TOKENS, HEADS) == 6 * linear * TOKENS + 4 * head
