"""The whole loop on tiny bases: what a run leaves behind, and that stopping and going on changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from exact import gradients, plain_loss
from toy import (
    CUT_OFF,
    Interrupting,
    decided,
    labels_csv,
    labels_recipe,
    losses,
    metrics,
    open_recipe,
    python,
    resume,
    run,
    same_bits,
    tuneloop,
    weights,
)
from tuneloop.cli import app
from tuneloop.errors import UserError
from tuneloop.loop import STAGES
from tuneloop.models.load import load_model
from tuneloop.prepared import Prepared
from tuneloop.recipe import Recipe, load
from tuneloop.record import RunFolder
from tuneloop.training.source import samples_of_step
from tuneloop.training.watch import Silent

ALWAYS = {"recipe.yaml", "record.json", "plan.json", "metrics.jsonl", "samples.jsonl", "certificate.json",
          "report.html", "README.md", "data/report.json", "evaluation/predictions.jsonl", "evaluation/scores.json"}
ADAPTER = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/tokenizer.json"}
MODEL = {"model/config.json", "model/model.safetensors", "model/tokenizer.json"}
CUT_AT = 7          # a step after the first checkpoint and before the second


def last_step(folder: Path) -> int:
    return max(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A finished run of a label task, never interrupted. Its recipe and rows lie beside it."""
    folder = tmp_path_factory.mktemp("labels")
    run(labels_recipe(folder, tiny_llama), folder / "run")
    return folder / "run"


# --- what a run leaves behind ----------------------------------------------------------------------------------------

def left_behind(folder: Path, artefact: set[str]) -> None:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert ALWAYS | artefact <= found
    assert not [name for name in found if "partial" in name]


def test_a_label_task_from_rows_to_certificate(labels: Path) -> None:
    left_behind(labels, ADAPTER | {"evaluation/rival.json"})
    folder = RunFolder(labels)
    record, certificate = folder.read("record.json"), folder.read("certificate.json")

    assert certificate["verdict"] in ("met", "not met", "undecided")
    assert certificate["test_rows"] == 12
    assert set(certificate["scores"]) == {"base", "tuned", "rival"}
    assert set(certificate["scores"]["tuned"]) == {"accuracy", "macro_f1", "perplexity"}
    for score in certificate["scores"]["tuned"].values():
        assert score["low"] <= score["value"] <= score["high"]
    assert {(d["metric"], d["from"], d["to"]) for d in certificate["differences"]} >= {("accuracy", "base", "tuned")}
    tuned, base = (certificate["scores"][name]["perplexity"]["value"] for name in ("tuned", "base"))
    assert tuned < base / 2

    assert record["schema_version"] == certificate["schema_version"] == 1
    assert record["recipe"]["method"] == {"kind": "lora", "rank": 4}
    assert record["seeds"] == {"all": 0, "training": 0}
    assert len(record["base"]["sha256"]) == 64
    assert set(record["data"]["hashes"]) == {"train", "validation", "test"}
    assert set(record["timings_seconds"]) >= {"data", "baseline", "training", "evaluation"}
    assert record["training"]["steps"] == len(losses(labels)) == folder.read("plan.json")["steps"]
    assert record["environment"]["packages"]["torch"]
    assert record["trainable_parameters"] == sum(w.size for w in weights(labels).values())


def test_the_loss_falls_and_everything_is_written_down_on_the_way(labels: Path) -> None:
    steps = metrics(labels)
    assert losses(labels)[-1] < 0.7 * losses(labels)[0]
    assert [entry["step"] for entry in steps] == list(range(1, len(steps) + 1))
    for entry in steps:
        assert entry.keys() >= {"loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "memory_bytes"}
        assert entry["logical_tokens"] >= entry["tokens"] > 0
    assert steps[0]["learning_rate"] < steps[1]["learning_rate"]        # warm-up
    assert steps[-1]["learning_rate"] < 0.001                           # cosine
    looks = metrics(labels, "validation")
    assert [look["step"] for look in looks] == [5, 10, 15, 20, 21]
    samples = RunFolder(labels).lines("samples.jsonl")
    assert [sample["step"] for sample in samples] == [look["step"] for look in looks]
    assert len({sample["prompt"] for sample in samples}) == 1
    assert all(sample.keys() >= {"reference", "answer"} for sample in samples)


def test_predictions_name_their_rows_and_agree_with_the_scores(labels: Path) -> None:
    predictions = RunFolder(labels).lines("evaluation", "predictions.jsonl")
    certificate = RunFolder(labels).read("certificate.json")
    rows = labels_csv().splitlines()
    for entry in predictions:
        assert rows[entry["origin"]["line"] - 1] == f"{entry['prompt']},{entry['reference']}"
        assert entry["answers"].keys() == {"base", "tuned", "rival"}
    for model, scores in certificate["scores"].items():
        right = np.mean([entry["answers"][model] == entry["reference"] for entry in predictions])
        assert scores["accuracy"]["value"] == pytest.approx(right)


def test_the_report_is_self_contained_and_the_card_says_the_verdict(labels: Path) -> None:
    verdict = RunFolder(labels).read("certificate.json")["verdict"]
    report = (labels / "report.html").read_text()
    assert verdict.upper() in report
    assert "<script src" not in report
    assert 'href="http' not in report
    assert verdict in (labels / "README.md").read_text().lower()


def test_open_answers(tmp_path: Path, tiny_llama: Path) -> None:
    certificate = run(open_recipe(tmp_path, tiny_llama), tmp_path / "run")
    left_behind(tmp_path / "run", ADAPTER)
    assert certificate["task"] == "open"
    assert set(certificate["scores"]) == {"base", "tuned"}
    assert set(certificate["scores"]["tuned"]) == {"exact_match", "token_f1", "rouge_l", "perplexity"}
    assert certificate["metric"] == "rouge_l"
    assert any("resemblance" in note for note in certificate["notes"])
    assert losses(tmp_path / "run")[-1] < 0.8 * losses(tmp_path / "run")[0]


def test_full_fine_tuning_leaves_a_model(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, method="full", training={"learning_rate": 0.003})
    run(recipe, tmp_path / "run")
    left_behind(tmp_path / "run", MODEL)
    assert not (tmp_path / "run" / "adapter").exists()
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] / 2
    before = load_file(tiny_llama / "model.safetensors")
    after = weights(tmp_path / "run")
    assert all(not np.array_equal(before[name], after[name]) for name in after)


def test_the_goal_decides_the_exit_code(labels: Path, tmp_path: Path, tiny_llama: Path) -> None:
    gain = next(d for d in decided(labels)["differences"] if d["metric"] == "accuracy" and d["from"] == "base")
    assert gain["low"] < gain["high"]
    labels_recipe(tmp_path, tiny_llama)
    bounds = {"met": (-1, 0), "not met": (1, 3), "undecided": ((gain["low"] + gain["high"]) / 2, 4)}
    for verdict, (bound, code) in bounds.items():
        done = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), f"goal.better_than_base_by={bound}",
                                        "--runs", str(tmp_path / verdict), "--json"])
        assert done.exit_code == code, done.output
        assert json.loads(done.stdout)["verdict"] == verdict


def test_a_second_run_on_the_same_test_rows_says_so(labels: Path, tiny_llama: Path) -> None:
    again = run(load(labels.parent / "recipe.yaml"), labels.parent / "again")
    assert again["test_rows_used_before"] == 1
    assert decided(labels)["test_rows_used_before"] == 0
    assert same_bits(labels, labels.parent / "again")        # and the same recipe gives the same weights
    shutil.rmtree(labels.parent / "again")


# --- how training is cut and when it ends ----------------------------------------------------------------------------

def test_the_token_budget_never_changes_the_losses(labels: Path, tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama, training={"token_budget": 40}), tmp_path / "run", "train")
    assert all(entry["pieces"] > 1 for entry in metrics(tmp_path / "run"))
    assert all(entry["pieces"] == 1 for entry in metrics(labels))
    assert losses(tmp_path / "run") == pytest.approx(losses(labels), rel=1e-6)


def test_the_first_step_is_that_of_plain_transformers_and_peft(labels: Path) -> None:
    """The loss and the norm of its gradient, whatever the optimizer then makes of them."""
    recipe = load(labels.parent / "recipe.yaml")
    ready = Prepared(recipe, Silent())
    model = recipe.method.apply(load_model(ready.base.path), recipe.seed)
    train = ready.rows.tokens["train"]
    rows = [train[i] for i in samples_of_step(len(train), 8, step=0, seed=recipe.seed)]
    loss = plain_loss(model, rows)
    norm = sum(float(g.double().pow(2).sum()) for g in gradients(model, loss).values()) ** 0.5
    first = metrics(labels)[0]
    assert (first["loss"], first["grad_norm"]) == (pytest.approx(loss.item(), rel=1e-5), pytest.approx(norm, rel=1e-5))


def test_max_steps_ends_the_training(labels: Path, tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, training={"max_steps": 3, "schedule": "constant", "warmup": 0})
    run(recipe, tmp_path / "run", "train")
    assert len(losses(tmp_path / "run")) == 3
    assert {entry["learning_rate"] for entry in metrics(tmp_path / "run")} == {0.01}
    assert losses(tmp_path / "run")[0] == losses(labels)[0]         # the same samples, the same start


def test_early_stopping_keeps_the_best_parameters(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, training={
        "learning_rate": 2.0, "warmup": 0, "schedule": "constant", "evaluate_every": 1, "patience": 1, "epochs": 9})
    run(recipe, tmp_path / "run", "train")
    told = RunFolder(tmp_path / "run").read("record.json")["training"]
    looks = metrics(tmp_path / "run", "validation")
    assert told["stopped_early"]
    assert told["steps"] == told["best_step"] + 1 == len(looks)
    assert [look["best"] for look in looks] == [True] * told["best_step"] + [False]
    assert told["best_validation_loss"] == min(look["loss"] for look in looks)

    best = load_file(tmp_path / "run" / "checkpoints" / f"best-{told['best_step']}" / "parameters.safetensors")
    kept = weights(tmp_path / "run")
    assert {name.removeprefix("model.").replace(".default", "") for name in best} == kept.keys()
    for name, value in best.items():
        assert np.array_equal(value, kept[name.removeprefix("model.").replace(".default", "")])

    resume(recipe, tmp_path / "run")        # and a resumed run does not go on where this one stopped
    assert len(losses(tmp_path / "run")) == told["steps"]


# --- stopping and going on -------------------------------------------------------------------------------------------

def goes_on_as_if_nothing_had_happened(recipe: Recipe, folder: Path, reference: Path) -> None:
    resume(recipe, folder)
    assert decided(folder) == decided(reference)
    assert same_bits(folder, reference)
    assert losses(folder) == losses(reference)
    assert RunFolder(folder).lines("samples.jsonl") == RunFolder(reference).lines("samples.jsonl")
    left_behind(folder, set())


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_stopping_after_a_stage(stage: str, labels: Path, tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    record = run(recipe, tmp_path / "run", until=stage)
    assert "verdict" not in record
    reached = STAGES.index(stage)
    for name, since in {"data/report.json": 0, "plan.json": 1, "evaluation/base.json": 2, "adapter": 3}.items():
        assert (tmp_path / "run" / name).exists() == (reached >= since), name
    goes_on_as_if_nothing_had_happened(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", labels)


class CrashError(BaseException):
    """Stands for the end of the process: nothing handles it."""


def crash() -> None:
    raise CrashError


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("action", "stops_with", "saved"), [(interrupt, KeyboardInterrupt, CUT_AT),
                                                             (crash, CrashError, 5)], ids=["interrupted", "crashed"])
@pytest.mark.parametrize("method", [{"kind": "lora", "rank": 4, "dropout": 0.3}, {"kind": "full"}],
                         ids=["dropout", "full"])
def test_cut_off_while_training(method: dict[str, Any], action: Callable[[], None], stops_with: type[BaseException],
                                saved: int, tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, method=method, training={"learning_rate": 0.003, "epochs": 2})
    (tmp_path / "whole").mkdir()
    run(recipe, tmp_path / "whole" / "run")
    with pytest.raises(stops_with):
        run(recipe, tmp_path / "run", watch=Interrupting(CUT_AT, action))
    assert len(losses(tmp_path / "run")) >= CUT_AT - 1
    assert last_step(tmp_path / "run") == saved
    goes_on_as_if_nothing_had_happened(recipe, tmp_path / "run", tmp_path / "whole" / "run")


def test_dropout_drops_something_else_at_every_step(tmp_path: Path, tiny_llama: Path) -> None:
    """One batch, a learning rate of almost nothing: only what is dropped can change the loss."""
    recipe = labels_recipe(tmp_path, tiny_llama, method={"kind": "lora", "rank": 4, "dropout": 0.5}, training={
        "learning_rate": 1e-12, "batch_size": 42, "epochs": 4, "evaluate_every": 9})
    run(recipe, tmp_path / "run", "train")
    assert len(set(losses(tmp_path / "run"))) == 1      # B is zero at the start, so dropout cannot show in the loss …
    norms = {entry["grad_norm"] for entry in metrics(tmp_path / "run")}
    assert len(norms) == len(losses(tmp_path / "run"))  # … but it does in the gradient


@pytest.mark.parametrize(("name", "code", "saved"), [("SIGINT", 1, CUT_AT), ("SIGKILL", -9, 5)])
def test_a_process_that_is_stopped_can_go_on(name: str, code: int, saved: int, labels: Path, tmp_path: Path,
                                             tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    done = python(CUT_OFF, str(CUT_AT), f"os.kill(os.getpid(), signal.{name})", "run", "recipe.yaml", "--folder", "run",
                  cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if name == "SIGINT":
        assert "tuneloop run --resume run" in done.stderr
    assert last_step(tmp_path / "run") == saved
    goes_on_as_if_nothing_had_happened(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", labels)


def test_resuming_from_the_command_line(labels: Path, tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama), tmp_path / "runs" / "run", "baseline")
    done = tuneloop("run", "--resume", "latest", cwd=tmp_path)
    assert done.returncode in (0, 3, 4)
    assert decided(tmp_path / "runs" / "run") == decided(labels)
    assert decided(labels)["sentence"].split(":")[0] in done.stdout


def test_a_finished_run_that_is_resumed_asks_nothing_again(labels: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(labels, copy)
    resume(load(copy / "recipe.yaml"), copy)
    assert decided(copy) == decided(labels)
    assert (copy / "metrics.jsonl").read_text() == (labels / "metrics.jsonl").read_text()


# --- what must not change meanwhile ----------------------------------------------------------------------------------

def test_other_rows_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "run", "plan")
    before = (tmp_path / "run" / "record.json").read_text()
    (tmp_path / "rows.csv").write_text(labels_csv().replace("thing 3 is blue", "thing 3 is rather blue"))
    with pytest.raises(UserError, match="data has changed"):
        resume(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "record.json").read_text() == before


def test_the_same_rows_in_another_order_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    """What the base has answered, and which rows a step has seen, is known by their numbers."""
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "run", "plan")
    head, *rows = labels_csv().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([head, *reversed(rows), ""]))
    with pytest.raises(UserError, match="in their old order"):
        resume(recipe, tmp_path / "run")


def test_another_base_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "base")
    recipe = labels_recipe(tmp_path, tmp_path / "base")
    run(recipe, tmp_path / "run", "plan")
    file = tmp_path / "base" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"weights of .* have changed"):
        resume(recipe, tmp_path / "run")


def test_a_resumed_run_keeps_the_names_that_were_given(tmp_path: Path, tiny_llama: Path) -> None:
    """Inside, its recipe has absolute paths; what is shown and published does not name places on this machine."""
    labels_recipe(tmp_path, tiny_llama, training={"max_steps": 3})
    (tmp_path / "base").symlink_to(tiny_llama)
    words = ["base=base", "evaluation.rows=6"]
    assert tuneloop("run", "recipe.yaml", *words, "--folder", "r", "--until", "baseline", cwd=tmp_path).returncode == 0
    assert tuneloop("run", "--resume", "r", cwd=tmp_path).returncode in (0, 3, 4)
    run_folder = RunFolder(tmp_path / "r")
    assert run_folder.read("record.json")["base"]["name"] == "base"
    assert run_folder.read("data", "report.json")["files"][0]["file"] == "rows.csv"
    assert run_folder.read("adapter", "adapter_config.json")["base_model_name_or_path"] == "base"
    assert not (tmp_path / "r" / "adapter" / "README.md").exists()
    assert str(tmp_path) not in (tmp_path / "r" / "README.md").read_text()
    assert "{text}" in (tmp_path / "r" / "README.md").read_text()
