"""Exports of real runs: they answer as the run does, or nothing is written; the report stays in the run."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from tiny import tiny_base
from toy import labels_recipe, open_recipe, run, tuneloop
from tuneloop.cli import app
from tuneloop.errors import UserError
from tuneloop.exports.equality import next_logprobs, prompts_of
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape, weights_sha256
from tuneloop.record import RunFolder
from tuneloop.session import open_run

QUICK: dict[str, Any] = {"training": {"epochs": 1}}
WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}       # bitsandbytes quantises blocks of 64


def invoke(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def exported(*words: str | Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(invoke("export", *words, "--json").stdout)
    return report


def refusal(*words: str | Path) -> UserError:
    with pytest.raises(UserError) as caught:
        invoke(*words)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    run(labels_recipe(folder, tiny_llama, **QUICK), folder / "run")
    return folder / "run"


def own_logprobs(folder: Path) -> tuple[Any, torch.Tensor]:
    model, tokenizer = open_run(RunFolder(folder))
    prompts = prompts_of(RunFolder(folder).lines("evaluation", "predictions.jsonl"), tokenizer)
    return prompts, next_logprobs(model, prompts)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_merged_in_each_dtype(dtype: str, lora: Path, tmp_path: Path) -> None:
    report = exported(lora, "--to", "merged", "--dtype", dtype, "--out", tmp_path / "out")
    assert report == RunFolder(lora).read("exports", f"merged-{dtype}.json")
    assert report["dtype"] == dtype == read_shape(tmp_path / "out").stored_dtype
    prompts, wanted = own_logprobs(lora)
    assert report["prompts"] == len(prompts) > 3
    found = next_logprobs(load_model(tmp_path / "out", dtype=torch.float32), prompts)
    apart = float((wanted - found).abs().max())
    assert report["max_difference"] <= apart + 1e-6 <= report["tolerance"]
    assert (report["max_difference"] > 1e-5) == (dtype != "float32")
    weights = lora / "adapter" / "adapter_model.safetensors"
    assert report["adapter_bytes"] == weights.stat().st_size == RunFolder(lora).read("record.json")["adapter_bytes"]


def test_the_default_dtype_is_that_of_the_bases_files(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    load_model(base, dtype=torch.bfloat16).save_pretrained(base)  # type: ignore[operator]
    run(labels_recipe(tmp_path, base, **QUICK), tmp_path / "run")
    assert exported(tmp_path / "run")["dtype"] == "bfloat16"
    assert read_shape(tmp_path / "run" / "merged").stored_dtype == "bfloat16"


def test_an_adapter_for_plain_peft(lora: Path, tmp_path: Path, tiny_llama: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = exported(lora, "--to", "adapter", "--out", tmp_path / "out")
    assert report["read_by"] == "peft"
    assert report["max_difference"] <= 1e-5
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors",
                                                              "tokenizer.json", "tuneloop.json"}
    prompts, wanted = own_logprobs(lora)
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    found = next_logprobs(PeftModel.from_pretrained(base, tmp_path / "out").eval(), prompts)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert tuple(AutoTokenizer.from_pretrained(tmp_path / "out")(prompts[0].text, add_special_tokens=False)
                 ["input_ids"]) == prompts[0].ids


def test_a_full_fine_tuning_is_a_model_and_no_adapter(tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama, method={"kind": "full"}, **QUICK), tmp_path / "run")
    assert "no adapter" in refusal("export", tmp_path / "run", "--to", "adapter").found
    assert exported(tmp_path / "run")["max_difference"] <= 1e-5


def test_a_quantised_run_says_what_its_base_lost(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = tiny_base(tmp_path / "base", **WIDE)
    run(labels_recipe(tmp_path, base, method={"kind": "qlora", "rank": 4}, **QUICK), tmp_path / "run")
    report = exported(tmp_path / "run", "--out", tmp_path / "out")
    assert report["max_difference"] <= 1e-3
    lost = report["quantised_base"]
    assert lost["bits"] == 4
    assert lost["max_difference"] > 1e-2
    prompts, trained = own_logprobs(tmp_path / "run")
    found = next_logprobs(load_model(tmp_path / "out", dtype=torch.float32), prompts)
    assert float((trained - found).abs().max()) >= lost["max_difference"] - 1e-5
    shown = invoke("export", tmp_path / "run", "--out", tmp_path / "again").output
    assert "trained on a base in 4 bits" in shown
    assert not read_shape(tmp_path / "out").quantised


def test_what_cannot_be_merged_is_refused_before_anything_loads(tmp_path: Path, tiny_llama: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    run(labels_recipe(tmp_path, tiny_llama, **QUICK), tmp_path / "run")
    from tuneloop import session
    from tuneloop.methods.lora import Method

    monkeypatch.setattr(Method, "mergeable", False)
    monkeypatch.setattr(session, "load_model", None)
    for to in ("merged", "gguf"):
        error = refusal("export", tmp_path / "run", "--to", to)
        assert "method lora" in error.found
        assert "--to adapter" in error.fix
    assert not (tmp_path / "run" / "merged").exists()


def test_what_differs_is_refused_and_nothing_is_left(lora: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneloop.exports import merged

    real = merged.write

    def spoilt(model: Any, *rest: Any) -> None:
        next(model.parameters()).data.mul_(1.5)
        real(model, *rest)

    monkeypatch.setattr(merged, "write", spoilt)
    for to in ("float32", "bfloat16"):
        error = refusal("export", lora, "--dtype", to, "--out", tmp_path / "out")
        assert "differs from the tuned one" in error.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "said"), [
    (["--to", "onnx"], "--to adapter"),
    (["--to", "adapter", "--dtype", "float16"], "--dtype"),
    (["--to", "merged", "--quantise", "q8_0"], "--quantise"),
    (["--to", "gguf", "--quantise", "q2"], "q4_0"),
    (["--dtype", "int8"], "bfloat16"),
])
def test_options_that_mean_nothing(words: list[str], said: str, lora: Path, tmp_path: Path) -> None:
    assert said in refusal("export", lora, *words, "--out", tmp_path / "out").text
    assert not (tmp_path / "out").exists()


def test_refusals_exit_with_2(lora: Path, tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "there").mkdir()
    for to in ("merged", "adapter", "gguf"):
        done = tuneloop("export", lora, "--to", to, "--out", tmp_path / "there", cwd=tmp_path)
        assert done.returncode == 2
        assert "exists already" in done.stderr
    run(labels_recipe(tmp_path, tiny_llama), tmp_path / "half", "plan")
    for to in ("merged", "adapter", "gguf"):
        assert "no trained model yet" in refusal("export", tmp_path / "half", "--to", to).found


def test_gguf_without_its_package(lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *r: None if n == "gguf" else real(n, *r))
    assert "pip install" in refusal("export", lora, "--to", "gguf", "--out", tmp_path / "out").fix


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    run(labels_recipe(tmp_path, base, **QUICK), tmp_path / "run")
    note = RunFolder(tmp_path / "run").read("adapter", "tuneloop.json")
    before = weights_sha256(base)
    assert note["base"] == {"name": str(base), "sha256": before, "parameters": read_shape(base).parameters}
    assert note["method"]["kind"] == "lora"
    shutil.rmtree(base)
    tiny_base(base, seed=7)
    for words in (["chat", tmp_path / "run", "-m", "Hi"], ["export", tmp_path / "run"]):
        error = refusal(*words)
        assert before[:12] in error.found
        assert weights_sha256(base)[:12] in error.found
        assert error.fix


@pytest.mark.parametrize("quantise", ["f16", "q8_0", "q4_0"])
def test_gguf(quantise: str, tmp_path: Path) -> None:
    pytest.importorskip("tuneloop.exports.gguf_tokenizer")
    base = tiny_base(tmp_path / "base", **WIDE)
    run(labels_recipe(tmp_path, base, **QUICK), tmp_path / "run")
    report = exported(tmp_path / "run", "--to", "gguf", "--quantise", quantise, "--out", tmp_path / "out")
    assert (tmp_path / "out" / report["file"]).is_file()
    assert not [p for p in (tmp_path / "out").iterdir() if p.is_dir()]
    assert 0 < report["divergence"] <= report["tolerance"]
    assert report == RunFolder(tmp_path / "run").read("exports", f"gguf-{quantise}.json")
    assert report["read_by"].startswith(("llama_cpp", "transformers"))


def test_runs_are_combined(lora: Path, tmp_path: Path, tiny_llama: Path) -> None:
    run(open_recipe(tmp_path, tiny_llama, **QUICK), tmp_path / "other")
    words = [lora, tmp_path / "other", "--weights", "0.5,0.5", "--how", "cat"]
    assert "combines 2 adapters" in " ".join(invoke("combine", *words, "--out", tmp_path / "both").output.split())
    from peft import PeftModel

    models = [PeftModel.from_pretrained(load_model(tiny_llama, dtype=torch.float32), str(p))  # type: ignore[arg-type]
              for p in (lora / "adapter", tmp_path / "other" / "adapter", tmp_path / "both")]
    one, other, both = ({n: m.get_delta_weight("default") for n, m in model.named_modules()
                         if hasattr(m, "get_delta_weight")} for model in models)
    assert all(torch.allclose(both[n], (one[n] + other[n]) / 2, atol=1e-6) for n in both)
    assert len(both) == 14
    again = [tmp_path / "both", lora, "--weights", "1,1", "--how", "svd", "--out", tmp_path / "again"]
    assert invoke("combine", *again).exit_code == 0      # folders as well as runs
    assert "exists already" in refusal("combine", *words, "--out", tmp_path / "both").found
    assert "no numbers" in refusal("combine", *words[:2], "--weights", "a,b", "--out", tmp_path / "new").found
    assert "equal ranks" in refusal("combine", tmp_path / "both", lora, "--weights", "1,1", "--how", "linear",
                                    "--out", tmp_path / "new").found
    assert not (tmp_path / "new").exists()
