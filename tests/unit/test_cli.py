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
    for panel, commands in {"Start": "demo init models doctor", "Data": "check", "Train": "plan run search",
                            "Judge": "runs", "Use": "chat export", "Bridges": "schema new test"}.items():
        assert re.search(rf"─ {panel} ─", shown), panel
        for command in commands.split():
            assert re.search(rf"│ {command} ", shown), command
    for code in ("0 done", "1 failed", "2 input wrong", "3 goal not met", "4 undecided"):
        assert code in shown


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["new", "objective", "my_loss"]])
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


@pytest.mark.parametrize("own", [False, True], ids=["built-in", "own"])
@pytest.mark.parametrize("blocked", [NONE, FINDER], ids=["none", "finder"])
def test_check_and_plan_need_no_torch(blocked: str, own: bool, finished: Path) -> None:
    words = ["recipe.yaml", "--json"]
    if own:
        if not (finished / "my_loss.py").exists():
            invoke("new", "objective", "my_loss", "--into", finished)
        words.insert(1, "objective=./my_loss.py:MyLoss")
    both = ("from tuneloop.cli import app\nfor command in ('check', 'plan'):\n"
            f"    app([command, *{words}], standalone_mode=False)\n")
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
    assert report["split"] == {"train": 45, "validation": 3, "test": 12}      # near-duplicates stay together


def test_plan_says_where_every_value_comes_from(finished: Path) -> None:
    shown = invoke("plan", finished / "recipe.yaml", "training.learning_rate=null").output
    for told in ("training.learning_rate", "planned", "given", "default", "peak memory", "steps", "baseline"):
        assert told in shown
    planned = json.loads(invoke("plan", finished / "recipe.yaml", "training.epochs=2", "--json").stdout)
    assert planned["values"]["training.epochs"] == {"value": 2.0, "origin": "given"}
    assert planned["steps"] == 12
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
    assert record["seeds"] == {"all": 0, "training": 0}


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
    assert "--to merged" in refusal("export", "first", "--to", "onnx", "--runs", finished / "runs")
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


# --- new and test ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "stem", "cls"), [
    ("my_loss", "my_loss", "MyLoss"), ("FocalLoss", "focal_loss", "FocalLoss"), ("soft-max", "soft_max", "SoftMax"),
    ("other.py", "other", "Other")])
def test_new_objective_writes_a_loss_and_its_test(name: str, stem: str, cls: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = invoke("new", "objective", name).output
    assert {file.name for file in tmp_path.iterdir()} == {f"{stem}.py", f"test_{stem}.py"}
    assert f"tuneloop test objective ./{stem}.py:{cls}" in said
    both = "".join(file.read_text() for file in tmp_path.iterdir())
    assert f"class {cls}(base.Objective)" in both
    assert f"from {stem} import {cls}" in both
    assert name == "my_loss" or ("my_loss" not in both and "MyLoss" not in both)
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120",
                           "--select=E,F,W,I,B,UP", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_new_objective_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_mine.py").write_text("mine")
    assert "test_mine.py exists already" in refusal("new", "objective", "mine", "--into", "deep")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["test_mine.py"]
    invoke("new", "objective", "mine", "--into", "deeper/still")
    assert (tmp_path / "deeper" / "still" / "mine.py").exists()
    for name, told in (("torch", "the name of an installed package"), ("json", "the name of an installed package"),
                       ("3x", "cannot be the name"), ("class", "cannot be the name"), ("a b", "cannot be the name"),
                       ("../up", "cannot be the name")):
        assert told in refusal("new", "objective", name)
    assert "wanted: tuneloop new objective NAME" in refusal("new", "metric", "mine")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal("new", "objective", "mine", "--into", "file")


def test_test_objective_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("new", "objective", "my_loss")
    right = invoke("test", "objective", "./my_loss.py:MyLoss", "gamma=3")
    assert right.exit_code == 0
    assert len(re.findall(r"^pass ", right.output, re.MULTILINE)) == 10
    assert "keeps the contract" in right.output

    code = (tmp_path / "my_loss.py").read_text()
    (tmp_path / "my_loss.py").write_text(code.replace("(losses * batch.weights).sum(), {", "losses.mean(), {"))
    wrong = invoke("test", "objective", "./my_loss.py:MyLoss")
    assert wrong.exit_code == 1
    assert re.search(r"^FAIL +cut ", wrong.output, re.MULTILINE)
    assert "cut: The loss is a mean over the batch's supervised tokens: return the sum." in wrong.output
    assert "not measured" in wrong.output

    told = invoke("test", "objective", "./my_loss.py:MyLoss", "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert (found["objective"], found["ok"]) == ("./my_loss.py:MyLoss", False)
    assert [check["name"] for check in found["checks"] if check["ok"] is False] == ["cut"]


def test_test_objective_of_a_built_in_one() -> None:
    assert json.loads(invoke("test", "objective", "dpo", "beta=0.3", "form=ipo", "--json").stdout)["ok"] is True
    assert "did you mean 'dpo'?" in refusal("test", "objective", "dop")
    assert "There is no file ./gone.py" in refusal("test", "objective", "./gone.py:Gone")
    assert "beta must be greater than 0" in refusal("test", "objective", "dpo", "beta=-1")
    assert "wanted: tuneloop test objective NAME" in refusal("test", "method", "lora")


DOC = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_documentation_of_objectives_is_complete() -> None:
    from tuneloop.recipe import OBJECTIVES, parse

    text = DOC.read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `objective: ([^`]+)` \|", text, re.MULTILINE))
    assert sorted(table) == OBJECTIVES.names
    for name, example in table.items():
        recipe = parse(f"base: b\ndata: {{train: rows.csv}}\nobjective: {example}\n", shown="doc", root=Path())
        assert recipe.objective_record["kind"] == name
        papers = set(re.findall(r"\d{4}\.\d{5}", next(x for x in text.splitlines() if x.startswith(f"| `{name}` |"))))
        own = set(re.findall(r"\d{4}\.\d{5}", sys.modules[type(recipe.objective).__module__].__doc__ or "")
                  + re.findall(r"\d{4}\.\d{5}", type(recipe.objective).__doc__ or ""))
        assert papers <= own, name


def test_the_walk_through_of_the_documentation_works(tmp_path: Path, tiny_llama: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the page, in its order, in a folder that holds a recipe."""
    monkeypatch.chdir(tmp_path)
    labels_recipe(tmp_path, tiny_llama, training={"epochs": 1})
    blocks = re.findall(r"```sh\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    commands = [re.split(r"\s#", line)[0].split() for block in blocks for line in block.splitlines() if line]
    assert [command[1] for command in commands] == ["new", "test", "-m", "run"]
    for command in commands:
        if command[0] == "python":
            done = subprocess.run([sys.executable, *command[1:], "-q", "-p", "no:cacheprovider"], cwd=tmp_path,
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
        else:
            assert command[0] == "tuneloop"
            assert invoke(*command[1:]).exit_code in ((0, 3, 4) if command[1] == "run" else (0,))
    [run_folder] = (tmp_path / "runs").iterdir()
    assert RunFolder(run_folder).read("record.json")["recipe_used"]["objective"] == f"{tmp_path}/my_loss.py:MyLoss"
    assert all("confidence" in line for line in RunFolder(run_folder).lines("metrics.jsonl") if line["event"] == "step")


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
