"""The command line: what each command answers, and that the light ones need none of the heavy libraries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from toy import labels_csv, labels_recipe, open_recipe, python, run, tuneloop
from tuneloop import __version__
from tuneloop.cli import app
from tuneloop.errors import UserError
from tuneloop.recipe import load
from tuneloop.record import RunFolder

HEAVY = ("torch", "transformers", "peft", "accelerate", "numpy", "sklearn", "safetensors", "yaml", "gguf")


def invoke(*words: str | Path) -> Result:
    """A command in this process; a user error is raised, as `main` would print it."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*words: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        invoke(*words)
    return caught.value.text


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with recipe.yaml, rows.csv and runs/first, which is finished."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = labels_recipe(folder, tiny_llama, training={"epochs": 1},
                           data={"train": "rows.csv", "prompt": "Look: {text}", "answer": "{label}"})
    run(recipe, folder / "runs" / "first")
    return folder


# --- help and start-up -----------------------------------------------------------------------------------------------

def test_help_shows_the_panels_and_their_commands() -> None:
    shown = invoke("--help").output
    for panel, commands in {"Start": "demo init models doctor", "Data": "check", "Train": "plan run", "Judge": "runs",
                            "Use": "chat export", "Bridges": "schema"}.items():
        assert re.search(rf"─ {panel} ─", shown), panel
        for command in commands.split():
            assert re.search(rf"│ {command} ", shown), command
    for code in ("0 done", "1 failed", "2 input wrong", "3 goal not met", "4 undecided"):
        assert code in shown


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = ("import sys; from tuneloop import cli\ntry: cli.main()\n"
            f"finally: print('\\nimported:', *(name for name in {HEAVY} if name in sys.modules))")
    done = python(code, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "imported:"


def test_what_is_no_command_or_option_exits_with_2(tmp_path: Path) -> None:
    assert invoke("trian").exit_code == 2
    assert invoke("run", "--fodler", "x").exit_code == 2
    assert invoke().exit_code in (0, 2)
    assert __version__


def test_main_prints_a_user_error_and_exits_with_its_code(tmp_path: Path) -> None:
    done = tuneloop("run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "There is no recipe recipe.yaml.\n  fix:    `tuneloop init DATA_FILE` writes one\n"


# --- without torch ---------------------------------------------------------------------------------------------------

NONE = "import sys; sys.modules['torch'] = None\n"
FINDER = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Refuses())
"""
MAIN = "from tuneloop import cli\ncli.main()"


@pytest.mark.parametrize("blocked", [NONE, FINDER], ids=["none", "finder"])
def test_check_and_plan_need_no_torch(blocked: str, finished: Path) -> None:
    both = ("from tuneloop.cli import app\nfor command in ('check', 'plan'):\n"
            "    app([command, 'recipe.yaml', '--json'], standalone_mode=False)\n")
    done = python(blocked + both, cwd=finished)
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    checked, end = decoder.raw_decode(done.stdout)
    planned, _ = decoder.raw_decode(done.stdout[end:].lstrip())
    assert checked["task"] == "labels"
    assert planned["values"]["training.learning_rate"] == {"value": 0.01, "origin": "given"}


@pytest.mark.parametrize("blocked", [NONE, FINDER], ids=["none", "finder"])
def test_a_gguf_base_that_is_not_converted_says_what_to_do(blocked: str, finished: Path, own_cache: Path) -> None:
    (finished / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    done = python(blocked + MAIN, "plan", "recipe.yaml", "base=model.gguf", cwd=finished)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "needs torch" in done.stderr
    assert "pip install torch" in done.stderr
    assert f"tuneloop models fetch {finished / 'model.gguf'}" in done.stderr


# --- check and plan --------------------------------------------------------------------------------------------------

def test_check_says_what_the_rows_are(finished: Path) -> None:
    shown = invoke("check", finished / "recipe.yaml").output
    assert "60 rows" in shown
    assert "its loss mask covers exactly the answer" in shown
    report = json.loads(invoke("check", finished / "recipe.yaml", "--json").stdout)
    assert report["split"] == {"train": 42, "validation": 6, "test": 12}


def test_plan_says_where_every_value_comes_from(finished: Path) -> None:
    shown = invoke("plan", finished / "recipe.yaml", "training.learning_rate=null").output
    for told in ("training.learning_rate", "planned", "given", "default", "peak memory", "steps", "baseline"):
        assert told in shown
    planned = json.loads(invoke("plan", finished / "recipe.yaml", "training.epochs=2", "--json").stdout)
    assert planned["values"]["training.epochs"] == {"value": 2.0, "origin": "given"}
    assert planned["steps"] == 11
    assert set(planned["seconds"]) == {"baseline", "training", "evaluation"}


def test_one_recipe_at_a_time(finished: Path) -> None:
    assert "More than one recipe" in refusal("plan", "a.yaml", "b.yaml")


# --- init ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["labels", "open"])
def test_init_writes_a_recipe_that_loads(kind: str, tmp_path: Path, tiny_llama: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make = labels_recipe if kind == "labels" else open_recipe
    make(tmp_path, tiny_llama)
    (tmp_path / "recipe.yaml").unlink()
    rows = "rows.csv" if kind == "labels" else "rows.jsonl"
    shown = invoke("init", rows, "--base", tiny_llama).output
    assert shown.count("assistant:") == 3
    recipe = load(tmp_path / "recipe.yaml")
    assert (recipe.data.train, recipe.base) == (rows, str(tiny_llama))
    assert recipe.goal.metric == ("accuracy" if kind == "labels" else "rouge_l")
    invoke("check")         # recipe.yaml by default


def test_init_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(labels_csv())
    (tmp_path / "recipe.yaml").write_text("mine")
    assert "exists already" in refusal("init", "rows.csv")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    invoke("init", "rows.csv", "--out", "other.yaml")
    assert load(tmp_path / "other.yaml").base == "smollm2-135m-instruct"


# --- runs ------------------------------------------------------------------------------------------------------------

def test_runs_lists_them(finished: Path, tmp_path: Path) -> None:
    shown = invoke("runs", "--runs", finished / "runs").output
    assert "first" in shown
    assert "lora" in shown
    listed = json.loads(invoke("runs", "--runs", finished / "runs", "--json").stdout)
    verdict = RunFolder(finished / "runs" / "first").read("certificate.json")["verdict"]
    assert [(entry["run"], entry["verdict"]) for entry in listed] == [("first", verdict)]
    assert "There are no runs" in invoke("runs", "--runs", tmp_path).output
    assert json.loads(invoke("runs", "--runs", tmp_path, "--json").stdout) == []


def test_runs_show(finished: Path, tmp_path: Path) -> None:
    for name in ("first", "latest", str(finished / "runs" / "first")):
        shown = json.loads(invoke("runs", "show", name, "--runs", finished / "runs", "--json").stdout)
        assert shown["record"]["run"] == shown["certificate"]["run"] == "first"
    shown = invoke("runs", "show", "first", "--runs", finished / "runs").output
    assert "training.learning_rate" in shown
    assert "accuracy" in shown
    assert "is not a run folder" in refusal("runs", "show", "second", "--runs", finished / "runs")
    assert "no command" in refusal("runs", "delete", "first", "--runs", finished / "runs")


def test_runs_show_of_an_unfinished_run(tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama), tmp_path / "runs" / "half", "plan")
    assert "--resume" in invoke("runs", "show", "half", "--runs", tmp_path / "runs").output
    assert json.loads(invoke("runs", "--runs", tmp_path / "runs", "--json").stdout)[0]["verdict"] == "unfinished"
    assert "no trained model yet" in refusal("chat", "half", "-m", "hello", "--runs", tmp_path / "runs")
    assert "no trained model yet" in refusal("export", "half", "--runs", tmp_path / "runs")


def test_run_until_a_stage_answers_with_the_record(finished: Path, tmp_path: Path) -> None:
    done = invoke("run", finished / "recipe.yaml", "--until", "plan", "--runs", tmp_path, "--json")
    record = json.loads(done.stdout)
    assert Path(record["folder"]).parent == tmp_path
    assert record["seeds"] == {"all": 0}


# --- chat ------------------------------------------------------------------------------------------------------------

def test_chat_puts_what_is_typed_into_the_prompt_that_was_trained_on(finished: Path) -> None:
    from tuneloop.session import open_run

    said = invoke("chat", "first", "-m", "thing 4 is red", "--max-new-tokens", "8", "--runs", finished / "runs").output
    raw = invoke("chat", "first", "-m", "Look: thing 4 is red", "--raw", "--max-new-tokens", "8",
                 "--runs", finished / "runs").output
    assert said.strip()
    assert said == raw

    model, tokenizer = open_run(RunFolder(finished / "runs" / "first"))
    import torch

    from tuneloop.types import Message
    ids = torch.tensor(tokenizer.encode([tokenizer.prompt_text([Message("user", "Look: thing 4 is red")])]))
    generate: Any = model.generate
    new = generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
                   eos_token_id=tokenizer.end_of_turn_id, pad_token_id=tokenizer.pad_id)[0, ids.shape[1]:]
    assert said.strip() == tokenizer.decode(new, special=False).strip()


def test_chat_reads_lines_until_it_is_told_to_leave(finished: Path) -> None:
    result = CliRunner().invoke(app, ["chat", "first", "--max-new-tokens", "4", "--runs", str(finished / "runs")],
                                input="thing 4 is red\n\nthing 5 is blue\n/exit\nnot asked\n")
    assert result.exit_code == 0, result.output
    assert "takes the place of {text}" in result.output
    assert CliRunner().invoke(app, ["chat", "first", "--runs", str(finished / "runs")], input="").exit_code == 0


# --- export ----------------------------------------------------------------------------------------------------------

def test_export_writes_a_model_that_plain_transformers_loads(finished: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneloop.session import open_run

    exported = invoke("export", "first", "--to", "merged", "--out", tmp_path / "merged", "--runs", finished / "runs")
    assert "answers as the run does" in exported.output
    tuned, tokenizer = open_run(RunFolder(finished / "runs" / "first"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("adapter*"))
    plain = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = plain("Look: thing 4 is red", return_tensors="pt").input_ids
    assert plain.pad_token_id == tokenizer.pad_id
    assert plain.chat_template == tokenizer.inner.chat_template
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tuned(input_ids=ids).logits, rtol=0, atol=1e-4)


def test_export_never_overwrites_and_knows_its_formats(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "exists already" in refusal("export", "first", "--out", tmp_path / "there", "--runs", finished / "runs")
    assert "--to merged" in refusal("export", "first", "--to", "gguf", "--runs", finished / "runs")
    assert list((tmp_path / "there").iterdir()) == []


def test_an_export_that_answers_differently_is_refused(finished: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneloop.methods import lora

    def spoilt(self: Any, model: Any) -> Any:
        merged = model.merge_and_unload()
        next(merged.parameters()).data.mul_(1.5)
        return merged

    monkeypatch.setattr(lora.Method, "merge", spoilt)
    assert "differs from the tuned one" in refusal("export", "first", "--out", tmp_path / "merged",
                                                   "--runs", finished / "runs")
    assert not (tmp_path / "merged").exists()


# --- the rest --------------------------------------------------------------------------------------------------------

def test_models_lists_what_can_be_named() -> None:
    listed = json.loads(invoke("models", "--json").stdout)
    assert {"name", "parameters", "licence", "fits"} <= listed[0].keys()
    assert "smollm2-135m-instruct" in {entry["name"] for entry in listed}
    assert "smollm2-135m-instruct" in invoke("models").output
    assert "no command" in refusal("models", "eat", "this")


def test_schema_and_doctor_answer_in_json() -> None:
    assert json.loads(invoke("schema").stdout)["title"] == "tuneloop recipe"
    assert {"name", "ok", "detail", "fix"} <= json.loads(invoke("doctor", "--json").stdout)[0].keys()


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tuneloop", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "tuneloop" in done.stdout
