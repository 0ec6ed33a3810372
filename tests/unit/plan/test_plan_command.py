"""`tuneloop plan` and what a recipe asks of the plan: machines, shapes, `method: auto`, `deploy:`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from toy import labels_recipe, python, resume, run, tuneloop
from tuneloop import prepared
from tuneloop.cli import app
from tuneloop.errors import UserError
from tuneloop.recipe import load, parse, schema
from tuneloop.record import RunFolder

DATA = "data: {train: rows.csv, prompt: '{text}', answer: '{label}'}\n"


def plan(folder: Path, *words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", str(folder / "recipe.yaml"), *words, "--json"], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    made = tmp_path_factory.mktemp("plan")
    labels_recipe(made, tiny_llama)
    return made


# --- here and elsewhere ----------------------------------------------------------------------------------------------

def test_the_plan_for_here_stays_and_a_comparison_is_added(folder: Path) -> None:
    found = plan(folder)
    assert found["values"]["training.learning_rate"] == {"value": 0.01, "origin": "given"}
    cells = found["comparison"]["cells"]
    assert [(one["hardware"], one["method"]) for one in cells] == [("here", kind) for kind in ("lora", "qlora", "full")]
    own = cells[0]
    assert own["memory"]["total_bytes"] == found["memory"]["total_bytes"]
    assert own["seconds"]["training"] == pytest.approx(found["seconds"]["training"], abs=0.2)
    assert {one["factor"] for one in found["comparison"]["sensitivity"]} == {
        "model size", "method", "rows", "epochs", "hardware"}
    assert found["comparison"]["recommendation"].startswith("Use lora on here")
    assert len(found["bases"]) == 7


def test_machines_and_methods_by_name(folder: Path) -> None:
    found = plan(folder, "--on", "a100-80gb,aws-p4d,gcp-tpu-v5e", "--methods", "full,lora")
    assert "values" not in found
    cells = {(one["hardware"], one["method"]): one for one in found["comparison"]["cells"]}
    assert next(iter(cells)) == ("a100-80gb", "lora")     # the recipe's method comes first
    assert cells["aws-p4d", "full"]["usd"] is not None
    assert cells["a100-80gb", "full"]["usd"] is None
    assert "no path for TPUs" in cells["gcp-tpu-v5e", "lora"]["why"]
    assert cells["aws-p4d", "lora"]["trainable"] == 4 * 2 * (2 * 64 + 2 * 48 + 3 * 96)      # the recipe's rank of 4


def test_what_does_not_fit_here_may_fit_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(prepared.hardware.here(), available_bytes=100 * 2**20)
    monkeypatch.setattr(prepared.hardware, "here", lambda: small)
    cells = plan(folder, "--on", "here,l4", "--methods", "lora")["comparison"]["cells"]
    assert [one["fits"] for one in cells] == ["refused", "yes"]
    assert "does not fit in memory" in cells[0]["why"]
    with pytest.raises(UserError, match="does not fit in memory"):
        plan(folder)


def test_a_price_of_ones_own(folder: Path) -> None:
    [cell] = plan(folder, "--on", "l4", "--methods", "lora", "--price", "2")["comparison"]["cells"]
    assert cell["usd_per_hour"] == 2
    [here] = plan(folder, "--methods", "lora", "evaluation.price.machine_usd_per_hour=3")["comparison"]["cells"]
    assert here["usd_per_hour"] == 3


def test_offers_of_ones_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rack: {accelerator: l40s, usd_per_hour: 1, as_of: 2026-11}\n")
    found = plan(folder, "--on", "rack", "--offers", str(tmp_path / "mine.yaml"), "--methods", "lora")
    assert found["comparison"]["cells"][0]["usd_per_hour"] == 1


def test_what_is_printed(folder: Path) -> None:
    done = tuneloop("plan", "--on", "here,lambda-a10", cwd=folder)
    assert done.returncode == 0, done.stderr
    for told in ("training.learning_rate", "peak memory about", "lambda-a10", "weights", "activations", "Use lora on",
                 "Base:", "model size:", "hardware:", "Prices are dated", "Elsewhere nothing was measured"):
        assert told in done.stdout, told


def test_a_launch_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    plan(folder, "--on", "lambda-a10", "--launch", str(file), "training.epochs=1")
    task = yaml.safe_load(file.read_text())
    assert task["run"].strip() == "tuneloop run recipe.yaml training.epochs=1 --folder run"
    with pytest.raises(UserError, match="one machine that is not here"):
        plan(folder, "--launch", str(file))


@pytest.mark.parametrize(("words", "said"), [
    (["--on", "a100"], "No machine is called 'a100'"),
    (["--methods", "loar"], "Unknown method 'loar'"),
    (["--on", "l4,t4", "--price", "1"], "--price is for one machine"),
    (["base=70b-lik"], "did you mean '70b-like'"),
    (["deploy.on=a100"], "No machine is called 'a100'"),
    (["method.rank=1000"], "method.rank 1000 is larger than the layer"),
    (["method.targets=[nothing]"], "layers that this base does not have: nothing"),
    (["method.kind=ia3", "method.rank=null"], "'rank' is an option of"),
])
def test_bad_input_is_refused(words: list[str], said: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        plan(folder, *words)
    assert said in caught.value.text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("words", "said"), [
    (["method={kind: ia3, targets: [nope]}"], "layers that this base does not have: nope"),
    (["method={kind: full, layers: 9}"], "asks for 9 of 2 blocks"),
    (["method={kind: lora, rank: 64}"], "at most 16"),
])
def test_what_a_method_cannot_do_exits_with_2(words: list[str], said: str, folder: Path) -> None:
    done = tuneloop("plan", "recipe.yaml", *words, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_quantised_base_cannot_train_in_full(folder: Path, tmp_path: Path, tiny_llama: Path) -> None:
    base = tmp_path / "quantised"
    base.mkdir()
    for file in tiny_llama.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    for method, said in (("full", "quantised weights cannot train"), ("qlora", "are quantised already")):
        with pytest.raises(UserError, match=said):
            plan(folder, f"base={base}", f"method={method}")


# --- shapes without files --------------------------------------------------------------------------------------------

def test_a_shape_is_planned_from_the_rows_characters(folder: Path) -> None:
    found = plan(folder, "base=70b-like", "--on", "a100-80gb,l4", "--methods", "qlora")
    assert found["base"] == {"name": "70b-like", "parameters": 70_553_706_496, "by_shape": True}
    assert [one["fits"] for one in found["comparison"]["cells"]] == ["yes", "no"]
    job = found["comparison"]["job"]
    rows = (folder / "rows.csv").read_text().splitlines()[1:]
    assert job["rows"] == len(rows) - 6 - 12       # the shares of data.split
    assert "4 characters each" in job["counted"]
    text, label = rows[0].split(",")
    assert job["longest"] == pytest.approx(len(text) / 4 + 4 + len(label) / 4 + 4, abs=3)


def test_a_shape_needs_no_torch(folder: Path) -> None:
    code = ("import sys; sys.modules['torch'] = None\nfrom tuneloop.cli import app\n"
            "app(['plan', 'recipe.yaml', 'base=gpt3-175b', '--on', 'h200', '--json'], standalone_mode=False)\n")
    done = python(code, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["base"]["by_shape"]


def test_pairs_are_counted_with_both_answers(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(
        {"prompt": f"question {i}", "chosen": "good " * 40, "rejected": "bad " * 40}) + "\n" for i in range(40)))
    (tmp_path / "recipe.yaml").write_text("base: 8b-like\ndata: {train: pairs.jsonl}\nobjective: dpo\n")
    job = plan(tmp_path, "--on", "h200")["comparison"]["job"]
    assert job["longest"] == pytest.approx((12 + 200 + 160) / 4 + 12, abs=4)


def test_a_run_of_a_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown base '70b-like'"):
        run(parse("base: 70b-like\n" + DATA, shown="r", root=folder), tmp_path / "run")


# --- method: auto ----------------------------------------------------------------------------------------------------

def auto(folder: Path, tiny_llama: Path) -> Path:
    labels_recipe(folder, tiny_llama, method="auto")
    return folder / "recipe.yaml"


def test_auto_is_resolved_written_down_and_kept(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = load(auto(tmp_path, tiny_llama))
    assert recipe.auto
    run(recipe, tmp_path / "run", "check")
    folder = RunFolder(tmp_path / "run")
    record = folder.read("record.json")
    assert record["recipe"]["method"] == "auto"
    assert record["method"]["kind"] == "lora"
    assert record["method_planned"]["origin"] == "planned"
    again = load(folder.file("recipe.yaml"))
    assert (again.method.kind, again.auto) == ("lora", False)
    resume(again, folder.path, "plan")
    planned = folder.read("plan.json")["values"]["method"]
    assert planned == record["method_planned"]
    assert "training rows, fewer than 50,000" in planned["why"]
    assert folder.read("record.json")["recipe"]["method"] == "auto"


def test_a_resumed_run_keeps_what_another_machine_would_not_choose(tmp_path: Path, tiny_llama: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared.auto, "ALL_WEIGHTS_FROM_ROWS", 10)
    run(load(auto(tmp_path, tiny_llama)), tmp_path / "run", "plan")
    folder = RunFolder(tmp_path / "run")
    assert folder.read("plan.json")["values"]["method"]["value"] == "full"
    monkeypatch.undo()
    result = resume(load(folder.file("recipe.yaml")), folder.path)
    assert result["verdict"]
    assert folder.has("model", "model.safetensors")


def test_auto_keeps_to_the_memory_there_is(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepared.hardware.here()
    recipe = load(auto(tmp_path, tiny_llama))
    monkeypatch.setattr(prepared.hardware, "here", lambda: replace(real, available_bytes=100 * 2**20))
    with pytest.raises(UserError, match=r"No method can train this base here: lora: .* does not fit in memory"):
        run(recipe, tmp_path / "run", "plan")


def test_auto_takes_no_options(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'method\.rank'"):
        load(auto(tmp_path, tiny_llama), ["method.rank=8"])
    assert {"const": "auto", "description": "Chosen by the plan, which says why."} in \
        schema()["properties"]["method"]["anyOf"]


def test_elsewhere_auto_is_the_recommendation(tmp_path: Path, tiny_llama: Path) -> None:
    auto(tmp_path, tiny_llama)
    found = plan(tmp_path, "--on", "t4")
    assert found["comparison"]["recommendation"].startswith("Use lora on t4")
    assert "The recipe says" not in found["comparison"]["recommendation"]


# --- deploy ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("key", "note"), [
    ("deploy.memory_gb=0.1", "GB to serve, and deploy.memory_gb is 0.1: choose a smaller one"),
    ("deploy.p95_ms=0.000001", "and deploy.p95_ms is 1e-06"),
])
def test_the_plan_says_what_deployment_does_not_allow(key: str, note: str, folder: Path) -> None:
    assert any(note in told for told in plan(folder, key)["notes"])


@pytest.mark.parametrize(("key", "said"), [
    ("deploy.format=onnx", "'deploy.format' is 'onnx'"), ("deploy.memory_gb=-1", "greater than 0"),
    ("deploy.memory=1", "unknown key 'deploy.memory'")])
def test_deploy_is_checked(key: str, said: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(folder / "recipe.yaml", [key])
    assert said in caught.value.text


def test_what_serves_is_named_or_here(folder: Path) -> None:
    slow, fast = (plan(folder, f"deploy.on={where}", "deploy.p95_ms=0.0000001")["notes"] for where in ("t4", "h200"))
    assert "served on t4" in slow[-1]
    assert "served on h200" in fast[-1]
