"""Results that papers and the field's guides state, reproduced by the plan's arithmetic from stated assumptions."""

from __future__ import annotations

import pytest
from plan_cases import job

from tuneloop.methods.base import MethodSpec
from tuneloop.methods.lora import Method as Lora
from tuneloop.models.outline import shape_named
from tuneloop.plan import cost
from tuneloop.plan.auto import method_named
from tuneloop.plan.hardware import named
from tuneloop.plan.spec import TrainingSpec

GB = 1e9


def peak(shape: str, method: MethodSpec, **options: object) -> float:
    """GB on one device with 512 tokens at once, activations computed twice."""
    made = cost.memory(shape_named(shape), method, named("a6000"), 512, checkpointing=True,
                       **options)   # type: ignore[arg-type]
    return made.total_bytes / GB


def test_65b_fits_into_48_gb_with_qlora() -> None:
    """QLoRA (arXiv 2305.14314), abstract. With rank 64 on all layers, as there, it takes the paged optimizer."""
    assert peak("llama-65b", Lora(kind="qlora", bits=4)) < 48
    assert peak("llama-65b", Lora(kind="qlora", bits=4, rank=64), optimizer="paged_adamw") < 48
    assert peak("llama-65b", Lora(kind="qlora", bits=4, rank=64)) > 48
    assert peak("llama-65b", Lora()) > 2 * 48


def test_65b_takes_more_than_780_gb_in_16_bits() -> None:
    """Ibid.: weights and gradients in 16 bits, AdamW's moments in 32, that is 12 bytes a parameter."""
    found = peak("llama-65b", method_named("full"), numbers=cost.MIXED)
    assert 780 < found < 800
    own = peak("llama-65b", method_named("full"))       # tuneloop keeps the moments in the weights' own dtype
    assert own == pytest.approx(found * 8 / 12, rel=0.01)


def test_gpt3_with_lora_trains_ten_thousand_times_fewer_parameters() -> None:
    """LoRA (arXiv 2106.09685), section 4.2: rank 4 on queries and values takes 35 MB in 16 bits instead of 350 GB.

    GPT-3 has one layer for queries, keys and values, on which rank 4 has as many parameters as on two of the three.
    """
    shape = shape_named("gpt3-175b")
    trained = Lora(rank=4, targets=["c_attn"]).memory(shape).trainable_parameters
    assert trained == 96 * 2 * 4 * (12288 + 12288)
    assert shape.parameters / trained == pytest.approx(10_000, rel=0.1)
    assert 2 * trained / 1e6 == pytest.approx(35, rel=0.1)


def test_gpt3_with_lora_takes_about_a_third_of_the_memory() -> None:
    """Ibid.: 1.2 TB of memory become 350 GB. tuneloop's 16 bits: weights, gradient and two moments of 2 bytes each."""
    full, small = (peak("gpt3-175b", method) for method in (method_named("full"), Lora(rank=4, targets=["c_attn"])))
    assert small == pytest.approx(350, rel=0.05)
    assert full == pytest.approx(1200, rel=0.2)
    assert 0.2 < small / full < 0.4


@pytest.mark.parametrize(("shape", "kind", "rows", "tokens", "machines", "low", "high"), [
    ("7b-like", "lora", 50_000, 800, ["runpod-a100-secure", "gcp-a100-80gb"], 10, 50),
    ("13b-like", "full", 100_000, 1024, ["aws-p4d", "aws-p4de", "azure-a100-80gb"], 200, 500),
    ("70b-like", "qlora", 25_000, 512, ["gcp-a100-80gb"], 100, 300),
    ("70b-like", "qlora", 60_000, 512, ["runpod-a100-secure"], 100, 300),
])
def test_usual_costs(shape: str, kind: str, rows: int, tokens: int, machines: list[str], low: float,
                     high: float) -> None:
    """7B with LoRA 10 to 50 dollars, 13B in full 200 to 500, 70B with QLoRA 100 to 300: three epochs over rows of these
    sizes, training alone, at the prices of May 2025 in offers.yaml, and 35 % of the matrix rate.
    """
    for name in machines:
        found = cost.cell(shape_named(shape), method_named(kind), named(name), job(rows, tokens), TrainingSpec())
        assert found.usable
        assert found.usd is not None
        assert low < found.usd < high, name
