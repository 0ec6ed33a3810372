"""Data files of machines: whole, dated, sourced; a user's own on top; what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from toy import tuneloop
from tuneloop.errors import Problems, UserError
from tuneloop.plan.offers import packaged, read_market

NEEDED = {"AWS EC2", "AWS SageMaker", "Google Cloud", "Azure", "Lambda", "RunPod"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_everything_packaged_is_dated_and_sourced() -> None:
    market = packaged()
    for entry in (*market.accelerators.values(), *market.offers.values()):
        assert entry.as_of.startswith("20")
        assert entry.source.startswith("https://")
    assert {offer.provider for offer in market.offers.values()} == NEEDED
    assert {a.kind for a in market.accelerators.values()} == {"cuda", "tpu"}


@pytest.mark.parametrize(("name", "gb", "tflops"), [
    ("a100-40gb", 40, 312), ("a100-80gb", 80, 312), ("h100-80gb", 80, 989), ("l4", 24, 121), ("rtx4090", 24, 165)])
def test_what_datasheets_say(name: str, gb: float, tflops: float) -> None:
    found = packaged().accelerators[name]
    assert (found.memory_gb, found.tflops["bfloat16"]) == (gb, tflops)


def test_a_price_without_a_date_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "basement: {accelerator: rtx3090, usd_per_hour: 0.2}\n"
                             "attic: {accelerator: rtx3090, usd_per_hour: 0.2, as_of: soon}\n")
    with pytest.raises(Problems) as caught:
        read_market(path)
    for name, why in (("basement", "has no date"), ("attic", "is dated 'soon'")):
        assert f"{path}: the entry '{name}' {why}" in caught.value.text
    assert "as_of" in caught.value.text


def test_it_is_refused_on_the_command_line_with_exit_code_2(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b\nc,d\n")
    (tmp_path / "recipe.yaml").write_text(f"base: {tiny_llama}\ndata: {{train: rows.csv}}\n")
    written(tmp_path, "basement: {accelerator: rtx3090, usd_per_hour: 0.2}\n")
    done = tuneloop("plan", "--offers", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.yaml: the entry 'basement' has no date" in done.stderr


def test_a_machine_of_ones_own_costs_its_share_and_its_power(tmp_path: Path) -> None:
    path = written(tmp_path, "basement: {accelerator: rtx4090, purchase_usd: 3000, life_years: 3, utilisation: 0.5, "
                             "watts: 600, usd_per_kwh: 0.3, as_of: 2026-11-01, kind: on premise}\n")
    offer = read_market(path).offers["basement"]
    assert offer.as_of == "2026-11-01"
    assert offer.hourly_usd == pytest.approx(3000 / (3 * 8766 * 0.5) + 0.6 * 0.3)


def test_a_file_replaces_and_adds(tmp_path: Path) -> None:
    path = written(tmp_path, "accelerators:\n  gb300: {memory_gb: 288, bandwidth_gb_s: 8000, tflops: {bfloat16: 2500}, "
                             "source: mine, as_of: 2026-11}\n"
                             "aws-p4d: {accelerator: a100-40gb, devices: 8, usd_per_hour: 20, as_of: 2026-11}\n"
                             "rack: {accelerator: gb300, usd_per_hour: 9, as_of: 2026-11}\n")
    market = read_market(path)
    assert market.offers["aws-p4d"].hourly_usd == 20
    assert market.accelerators["gb300"].dtype == "bfloat16"
    assert "aws-p5" in market.offers
    assert packaged().offers["aws-p4d"].hourly_usd != 20


@pytest.mark.parametrize(("text", "said"), [
    ("x: {accelerator: a100, usd_per_hour: 1, as_of: 2026-11}", "the accelerator 'a100', which nobody described"),
    ("x: {accelerator: l4, as_of: 2026-11}", "missing purchase_usd, life_years, watts, usd_per_kwh"),
    ("x: {accelerator: l4, usd_per_hour: -1, as_of: 2026-11}", "'x' has usd_per_hour: -1"),
    ("x: {usd_per_hour: 1, as_of: 2026-11}", "'x' has no accelerator"),
    ("x: {accelerator: l4, usd_per_hour: 1, purchase_usd: 1, as_of: 2026-11}", "not both"),
    ("[1, 2]", "holds no offers"),
    ("a: [", "is not YAML"),
])
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml") as caught:
        read_market(written(tmp_path, text))
    assert said in caught.value.text


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_market(tmp_path / "none.yaml")
