"""Methods × machines: what is recommended, what would make it fit, and what each cost factor changes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from plan_cases import job, question

from tiny import tiny_base
from tuneloop.methods.lora import Method as Lora
from tuneloop.models.outline import shape_named
from tuneloop.models.shape import read_shape
from tuneloop.plan import compare
from tuneloop.plan.hardware import named
from tuneloop.plan.offers import packaged

KINDS = ["lora", "qlora", "full"]
SHAPE = shape_named("8b-like")


def test_every_method_on_every_machine() -> None:
    asked = question(SHAPE, job(1000, 500), ["l4", "a100-80gb", "gcp-tpu-v5e"], KINDS)
    cells = asked.cells()
    assert [(one.hardware, one.method) for one in cells] == [
        (machine, kind) for machine in ("l4", "a100-80gb", "gcp-tpu-v5e") for kind in KINDS]
    fits = {(one.hardware, one.method): one.fits for one in cells}
    assert fits["l4", "lora"] == "yes"
    assert fits["l4", "full"] == "no"
    assert fits["gcp-tpu-v5e", "lora"] == "refused"


@pytest.mark.parametrize(("rows", "on", "methods", "said"), [
    (1000, ["l4", "a100-80gb"], KINDS, r"Use lora on a100-80gb: 1,000 training rows.*it is the fastest"),
    (1000, ["gcp-a100-80gb", "runpod-a100-secure"], KINDS, r"Use lora on runpod-a100-secure: .*it is the cheapest"),
    (60_000, ["h200"], KINDS, r"Use full on h200: 60,000 training rows are enough.*The recipe says lora, which is "
                              r"kept: it fits there, too"),
    (1000, ["t4"], KINDS, r"Use qlora on t4: lora cannot be had"),
    (1000, ["l4"], ["full"], r"Nothing fits. full needs .* GB of 24.0 GB .*To fit: method=lora, or a smaller base, "
                             r"such as"),
    (1000, ["aws-p4d"], ["full"], r"sharding, which `tuneloop run` does not do yet"),
    (1000, ["gcp-tpu-v5e"], ["lora"], r"Nothing fits. lora on gcp-tpu-v5e: tuneloop has no path for TPUs"),
])
def test_the_recommendation(rows: int, on: list[str], methods: list[str], said: str) -> None:
    asked = question(SHAPE, job(rows, 500), on, methods)
    told = compare.recommendation(asked, asked.cells())
    assert re.search(said, told), told


def test_this_machine_comes_first_where_it_does_within_a_day() -> None:
    here = replace(named("l4"), name="here")
    asked = question(SHAPE, job(100, 500), [here, "h200"], KINDS)
    assert "Use lora on here" in compare.recommendation(asked, asked.cells())
    slow = replace(here, flops_per_second=1e10)
    asked = question(SHAPE, job(100, 500), [slow, "h200"], KINDS)
    assert "Use lora on h200" in compare.recommendation(asked, asked.cells())


def test_a_planned_method_is_no_contradiction() -> None:
    asked = question(SHAPE, job(60_000, 500), ["h200"], KINDS, planned=True)
    assert "The recipe says" not in compare.recommendation(asked, asked.cells())


def test_a_larger_machine_is_named_where_the_recipes_method_fits_none() -> None:
    asked = question(shape_named("70b-like"), job(1000, 500), ["l4"], ["qlora"])
    told = compare.to_json(asked, asked.cells(), packaged())["recommendation"]
    assert "The cheapest machine on file where qlora fits one device: " in told
    assert compare.larger_machine(question(shape_named("405b-like"), job(10, 10), ["l4"], ["full"]), packaged()) == ""


def test_one_line_for_every_cost_factor() -> None:
    asked = question(SHAPE, job(1000, 500), ["runpod-a100-secure", "gcp-a100-80gb"], KINDS)
    lines = {one["factor"]: one["line"] for one in compare.sensitivity(asked, asked.cells())}
    assert list(lines) == ["model size", "method", "rows", "epochs", "hardware"]
    assert "2 times the time" in lines["model size"]
    assert "15B parameters" in lines["model size"]
    assert re.match(r"qlora takes 1\.\d times the time, 0\.\d+ times the memory, about \$", lines["method"])
    assert "twice as many (2,000)" in lines["rows"]
    assert "one more (4)" in lines["epochs"]
    assert lines["hardware"].startswith("gcp-a100-80gb takes 1 times the time")
    assert "at the price of 2025-05" in lines["hardware"]


def test_twice_the_blocks_is_counted_and_not_guessed(tmp_path: Path) -> None:
    for family in ("llama", "gpt2"):
        once = read_shape(tiny_base(tmp_path / family, family))
        more = {"n_layer": 4} if family == "gpt2" else {"num_hidden_layers": 4}
        twice = read_shape(tiny_base(tmp_path / f"{family}-deep", family, **more))
        made = compare.deeper(once)
        assert (made.layers, made.parameters, dict(made.weights)) == (4, twice.parameters, dict(twice.weights))
        assert Lora(rank=2).memory(made) == Lora(rank=2).memory(twice)


def test_packages_that_are_missing_here_do_not_count_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    asked = question(SHAPE, job(1000, 500), ["l4", replace(named("l4"), name="here")], ["qlora"])
    there, here = asked.cells()
    assert there.fits == "yes"
    assert here.fits == "refused"
    assert "bitsandbytes" in here.why


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "1 s"), (80, "80 s"), (600, "10 min"), (7200, "2 h"),
                                                (9e5, "10.4 days")])
def test_durations(seconds: float, shown: str) -> None:
    assert compare.duration(seconds) == shown
