"""The arithmetic of a method on a machine, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_cases import job

from tuneloop.methods.lora import Method as Lora
from tuneloop.methods.prefix import Method as Prefix
from tuneloop.models.outline import shape_named
from tuneloop.plan import cost, estimate
from tuneloop.plan.auto import method_named
from tuneloop.plan.hardware import named
from tuneloop.plan.spec import TrainingSpec

SHAPE = shape_named("8b-like")
A100, T4 = named("a100-80gb"), named("t4")
LINEAR = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)       # weights of the blocks' layers
LORA = 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432)


def parts(kind: str, **options: object) -> cost.Parts:
    return cost.memory(SHAPE, method_named(kind), A100, 1000, checkpointing=False, **options)   # type: ignore[arg-type]


def test_full_fine_tuning_by_hand() -> None:
    found, count = parts("full"), SHAPE.parameters
    assert (found.weights, found.gradients, found.optimizer) == (2 * count, 2 * count, 4 * count)
    assert found.activations == 1000 * estimate.activation_bytes_per_token(SHAPE) // 2
    assert found.total_bytes == sum(vars(found).values())
    assert parts("full", optimizer="adamw_8bit").optimizer == 2 * count
    assert parts("full", optimizer="paged_adamw").optimizer == 0


def test_lora_by_hand() -> None:
    found = parts("lora")       # the base in bfloat16, the adapter and its moments in float32
    assert found.weights == 2 * SHAPE.parameters + 4 * LORA
    assert (found.gradients, found.optimizer) == (4 * LORA, 8 * LORA)


def test_qlora_by_hand() -> None:
    found = parts("qlora")
    assert found.weights == pytest.approx(2 * (SHAPE.parameters - LINEAR) + 0.516 * LINEAR + 4 * LORA, abs=4)


def test_a_frozen_second_adapter_is_counted_in_float32() -> None:
    plain, pissa = (cost.loaded_bytes(Lora(start=start), SHAPE, 2) for start in ("default", "pissa"))
    assert pissa - plain == 4 * LORA
    assert plain == 2 * SHAPE.parameters


def test_a_card_without_bfloat16_holds_float32() -> None:
    found = cost.memory(SHAPE, method_named("lora"), T4, 0, checkpointing=False)
    assert found.weights == 4 * SHAPE.parameters + 4 * LORA


def test_sharding_divides_states_and_not_activations() -> None:
    one, eight = parts("full"), parts("full", devices=8)
    block = 2 * 128256 * 4096       # the embedding is larger than a block
    assert cost.largest_block(SHAPE) == block // 2
    assert eight.weights == one.weights // 8 + block
    assert (eight.gradients, eight.optimizer) == (one.gradients // 8, one.optimizer // 8)
    assert (eight.activations, eight.head, eight.runtime) == (one.activations, one.head, one.runtime)


def test_time_by_hand() -> None:
    work = job(1600, 500, epochs=1)     # 100 steps of 8,000 tokens, half of them supervised
    found = cost.seconds(SHAPE, method_named("lora"), A100, work, checkpointing=False)
    flops = 100 * (2 * 2 * (LINEAR * 8000 + 4096 * 128256 * 4000)    # forward, and the gradient to activations
                   + 6 * LORA * 8000)                                # the update's own products
    assert found == {"baseline": 0, "training": pytest.approx(flops / (312e12 * 0.35)), "evaluation": 0}
    again = cost.seconds(SHAPE, method_named("lora"), A100, work, checkpointing=True)["training"]
    assert again - found["training"] == pytest.approx(100 * 2 * LINEAR * 8000 / (312e12 * 0.35))
    quantised = cost.seconds(SHAPE, method_named("qlora"), A100, work, checkpointing=False)["training"]
    assert quantised == pytest.approx(found["training"] / cost.QUANTISED)
    eight = cost.seconds(SHAPE, method_named("lora"), A100, work, checkpointing=False, devices=8)["training"]
    assert eight == pytest.approx(found["training"] / (8 * cost.SHARDED))


def test_generating_answers_reads_all_weights_for_every_token() -> None:
    work = job(16, 10, test_rows=160, answer_tokens=100)
    found = cost.seconds(SHAPE, method_named("lora"), A100, work, checkpointing=False)["evaluation"]
    assert found == pytest.approx(100 * 10 * 2 * SHAPE.parameters / 2039e9, rel=0.01)


def test_money_energy_and_disk_of_a_cell() -> None:
    machine = named("gcp-a100-80gb")
    found = cost.cell(SHAPE, method_named("lora"), machine, job(50_000, 500), TrainingSpec())
    hours = found.total_seconds / 3600
    assert found.usd == pytest.approx(hours * 5.07)
    assert found.kwh == pytest.approx(hours * 0.4)
    assert found.disk_bytes == SHAPE.stored_bytes + 4 * LORA * (1 + 2 * 3 + 2)
    assert found.price_as_of == "2025-05"
    assert found.fits == "yes"
    written = found.to_json()
    assert written["memory"]["low_bytes"] < written["memory"]["total_bytes"] < written["memory"]["high_bytes"]


def test_what_fits_keeps_the_error_bar_free() -> None:
    assert cost.verdict(100, 115) == "yes"
    assert cost.verdict(100, 114) == "tight"
    assert cost.verdict(100, 99) == "no"


def test_activations_are_computed_twice_where_the_longest_row_would_not_fit() -> None:
    short, long = (cost.cell(SHAPE, method_named("lora"), named("l4"), job(100, tokens), TrainingSpec())
                   for tokens in (200, 8000))
    assert not short.checkpointing
    assert long.checkpointing
    given = cost.cell(SHAPE, method_named("lora"), named("l4"), job(100, 200), TrainingSpec(checkpointing=True))
    assert given.checkpointing


def test_virtual_tokens_are_among_the_activations() -> None:
    few, many = (cost.cell(SHAPE, Prefix(tokens=n), A100, job(16, 20), TrainingSpec(batch_size=1)) for n in (10, 110))
    assert many.parts["activations"] - few.parts["activations"] == 100 * estimate.activation_bytes_per_token(SHAPE) // 2


def test_one_device_is_used_where_it_is_enough_and_all_where_it_is_not() -> None:
    small, large = (cost.cell(shape_named(name), method_named("full"), named("aws-p4d"), job(1000, 500), TrainingSpec())
                    for name in ("qwen2.5-0.5b-instruct", "13b-like"))
    assert (small.devices_used, large.devices_used) == (1, 8)
    assert "one of 8 devices works" in small.assumed
    assert "nothing like it has been run" in large.assumed


def test_a_tpu_is_refused_with_a_reason() -> None:
    found = cost.cell(SHAPE, method_named("lora"), named("gcp-tpu-v5e"), job(100, 100), TrainingSpec())
    assert (found.fits, found.total_bytes, found.usd) == ("refused", 0, None)
    assert "no path for TPUs" in found.why


def test_the_recipes_limit_holds_elsewhere_too() -> None:
    free = cost.cell(SHAPE, method_named("lora"), A100, job(100, 100), TrainingSpec())
    bound = cost.cell(SHAPE, method_named("lora"), A100, job(100, 100), TrainingSpec(memory_gb=10))
    assert (free.limit_bytes, bound.limit_bytes) == (80_000_000_000, 10 * 2**30)
    assert bound.fits == "no"


def test_a_machine_without_known_watts_has_no_energy() -> None:
    found = cost.cell(SHAPE, method_named("lora"), replace(A100, watts=None), job(100, 100), TrainingSpec())
    assert found.kwh is None
    assert found.to_json()["kwh"] is None
