"""The rules of `method: auto` and of the base, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_cases import job

from tuneloop.errors import UserError
from tuneloop.models.outline import shape_named
from tuneloop.plan.auto import Circumstances, base_sentence, bases, choose
from tuneloop.plan.hardware import named
from tuneloop.plan.serve import serving
from tuneloop.plan.spec import DeploySpec, TrainingSpec

CAN = {"lora": "", "qlora": "", "full": ""}
TOO_LARGE = "it needs 90 GB of 80 GB"


@pytest.mark.parametrize(("rows", "bounds", "deploy", "refused", "kind", "why"), [
    (500, False, {}, {}, "lora", "500 training rows, fewer than 50,000"),
    (50_000, False, {}, {}, "full", "50,000 training rows are enough to move all weights"),
    (50_000, True, {}, {}, "lora", "the goal bounds forgetting"),
    (50_000, False, {"format": "adapter"}, {}, "lora", "deploy.format is adapter"),
    (50_000, False, {"format": "gguf"}, {}, "full", "50,000"),
    (50_000, False, {}, {"full": TOO_LARGE}, "lora", f"full fine-tuning cannot be had ({TOO_LARGE})"),
    (500, False, {}, {"lora": TOO_LARGE}, "qlora", f"lora cannot be had ({TOO_LARGE})"),
    (500, False, {}, {"lora": "no", "qlora": "no"}, "full", "neither lora nor qlora"),
])
def test_the_choice_and_its_reason(rows: int, bounds: bool, deploy: dict[str, str], refused: dict[str, str], kind: str,
                                   why: str) -> None:
    found, told = choose(CAN | refused, Circumstances(rows, bounds, DeploySpec(**deploy)))      # type: ignore[arg-type]
    assert found == kind
    assert why in told


def test_nothing_fits() -> None:
    with pytest.raises(UserError, match="No method can train this base here: lora: a; qlora: b; full: c") as caught:
        choose({"lora": "a.", "qlora": "b", "full": "c"}, Circumstances(10, False, DeploySpec()))
    assert "smaller base" in caught.value.fix


def test_serving_by_hand() -> None:
    shape, machine = shape_named("8b-like"), named("l4")
    work = job(100, 1000, answer_tokens=200)
    found = serving(shape, DeploySpec(), work, machine)
    cache = 2 * 32 * 8 * 128 * 2 * 1200
    assert found.memory_bytes == 2 * shape.parameters + cache + 500_000_000
    written = 200 * 2 * shape.parameters / 300e9
    assert found.answer_ms > 1000 * written
    assert found.answer_ms == pytest.approx(1000 * written, rel=0.1)
    gguf = serving(shape, DeploySpec(format="gguf"), work, machine)
    assert gguf.memory_bytes - cache - 500_000_000 == pytest.approx(shape.parameters * 34 / 32)


@pytest.mark.parametrize(("deploy", "said"), [
    ({"memory_gb": 10}, "GB to serve, and deploy.memory_gb is 10"),
    ({"memory_gb": 10, "format": "gguf"}, None),
    ({"p95_ms": 1000}, "and deploy.p95_ms is 1000"),
    ({"p95_ms": 60_000}, None),
])
def test_what_deployment_does_not_allow(deploy: dict[str, object], said: str | None) -> None:
    asked = DeploySpec(**deploy)        # type: ignore[arg-type]
    misses = serving(shape_named("8b-like"), asked, job(100, 1000, answer_tokens=200), named("l4")).misses(asked)
    assert [said in miss for miss in misses if said] == ([True] if said else [])
    assert bool(misses) == bool(said)


def advice(machine: str = "l4", **deploy: object) -> list[str]:
    asked = DeploySpec(**deploy)        # type: ignore[arg-type]
    found = bases(job(1000, 200), named(machine), named(machine), TrainingSpec(), asked)
    assert [one.parameters for one in found] == sorted(one.parameters for one in found)
    return [one.name for one in found if one.fits]


def test_bases_keep_to_memory_and_time() -> None:
    everything = advice()
    assert everything[-1] == "smollm2-1.7b-instruct"
    small = advice(memory_gb=1.5)
    assert small == everything[:len(small)]
    assert 0 < len(small) < len(everything)
    assert advice(p95_ms=0.001) == []


def test_a_base_that_trains_for_days_is_not_recommended() -> None:
    slow = replace(named("l4"), flops_per_second=1e8)
    asked = DeploySpec()
    found = bases(job(1000, 200), slow, slow, TrainingSpec(), asked)
    assert not any(one.fits for one in found)
    assert "none of `tuneloop models` trains on l4 within 24 hours" in base_sentence(found, "l4", labels=True)


def test_for_labels_the_smallest_is_the_first_to_try() -> None:
    asked = DeploySpec()
    found = bases(job(1000, 200), named("l4"), named("l4"), TrainingSpec(), asked)
    assert "smollm2-135m-instruct may do" in base_sentence(found, "l4", labels=True)
    assert "may do" not in base_sentence(found, "l4", labels=False)
