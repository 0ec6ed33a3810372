"""`tuneloop certify` and `tuneloop replay` on real runs of a tiny base."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from toy import Interrupting, labels_csv, labels_recipe, losses, open_recipe, run
from tuneloop import cli_certify
from tuneloop.errors import UserError
from tuneloop.record import RunFolder
from tuneloop.replay import replay

app = typer.Typer()
app.command()(cli_certify.certify)
app.command()(cli_certify.replay)

pytestmark = pytest.mark.slow

CUT_AT = 7


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A finished run of a label task with dropout, and beside it its rows: do not write into it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELOOP_KEYS", str(folder / "keys"))
        run(labels_recipe(folder, tiny_llama, method={"kind": "lora", "rank": 4, "dropout": 0.1}), folder / "run")
    return folder / "run"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> RunFolder:
    """The finished run in a folder of its own, to write into."""
    shutil.copytree(finished, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def told(result: Result) -> Any:
    return json.loads(result.stdout)


# --- certify ---------------------------------------------------------------------------------------------------------

def test_a_run_is_certified_again_from_its_kept_answers_and_verified(copy: RunFolder) -> None:
    before = copy.read("certificate.json")
    for name in ("certificate.json", "report.html", "evaluation/predictions.jsonl", "evaluation/scores.json"):
        copy.file(name).unlink()
    done = command("certify", copy.path, "--json")
    assert done.exit_code == {"met": 0, "not met": 3, "undecided": 4}[before["verdict"]], done.output
    after = copy.read("certificate.json")
    assert told(done) == after
    for part in ("verdict", "scores", "differences", "goal"):
        assert after[part] == before[part]
    assert copy.has("report.html")

    found = command("certify", copy.path, "--verify", "--json")
    assert found.exit_code == 0, found.output
    assert told(found)["signature"] == "right"
    assert told(found)["not_recomputed"] == ["perplexity of rival"] * ("perplexity" in after["scores"]["rival"])
    shown = command("certify", copy.path, "--verify")
    assert shown.exit_code == 0
    assert "WRONG" not in shown.stdout
    assert set(copy.read("certificate.json")["signature"]["files"]) >= {
        "recipe.yaml", "record.json", "plan.json", "metrics.jsonl", "evaluation/predictions.jsonl",
        "adapter/adapter_model.safetensors"}


def test_open_answers_are_recomputed_too(tmp_path: Path, tiny_llama: Path) -> None:
    run(open_recipe(tmp_path, tiny_llama, training={"max_steps": 3}), tmp_path / "run")
    assert command("certify", tmp_path / "run").exit_code in (0, 3, 4)
    found = command("certify", tmp_path / "run", "--verify", "--json")
    assert (found.exit_code, told(found)["scores"], told(found)["not_recomputed"]) == (0, [], [])

    folder = RunFolder(tmp_path / "run")
    certificate = folder.read("certificate.json")
    certificate["scores"]["tuned"]["rouge_l"]["value"] += 0.01
    folder.write(certificate, "certificate.json")
    found = command("certify", tmp_path / "run", "--verify")
    assert found.exit_code == 1
    assert "rouge_l of tuned is" in found.stdout
    assert "The signature is wrong" in found.stdout


def test_a_tampered_adapter_is_told_before_it_is_certified_anew(copy: RunFolder) -> None:
    command("certify", copy.path)
    with open(copy.file("adapter", "adapter_model.safetensors"), "ab") as file:
        file.write(b"x")
    found = command("certify", copy.path, "--verify", "--json")
    assert (found.exit_code, told(found)["changed"]) == (1, ["adapter/adapter_model.safetensors"])
    done = CliRunner().invoke(app, ["certify", str(copy.path)])
    assert "adapter_model.safetensors is not what the certificate was made from" in done.stderr


def test_with_a_key(copy: RunFolder, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command("certify", copy.path)
    monkeypatch.setenv("TUNELOOP_KEYS", str(tmp_path / "elsewhere"))
    stranger = command("certify", copy.path, "--verify")
    assert stranger.exit_code == 1
    assert "--key" in stranger.stdout
    assert command("certify", copy.path, "--verify", "--key", keys / "signing.pub").exit_code == 0


def test_bad_input(copy: RunFolder, tmp_path: Path) -> None:
    copy.file("certificate.json").unlink()
    copy.file("evaluation", "tuned.json").unlink()
    for words in (("--verify",), (), ("--key", str(tmp_path / "key"))):
        error = command("certify", copy.path, *words).exception
        assert isinstance(error, UserError)
        assert error.exit_code == 2


# --- replay ----------------------------------------------------------------------------------------------------------

def test_a_replay_is_bit_equal_and_leaves_the_run_alone(finished: Path) -> None:
    before, temporary = content(finished), set(Path(tempfile.gettempdir()).glob("tuneloop-replay-*"))
    done = command("replay", finished, "--steps", "7", "--json")
    assert done.exit_code == 0, done.output
    assert told(done)["bit_equal"] is True
    assert (told(done)["steps"], told(done)["recorded_steps"]) == (7, len(losses(finished)))
    assert told(done)["tolerance"] == 0
    assert told(done)["environment"] == []
    assert content(finished) == before
    assert set(Path(tempfile.gettempdir()).glob("tuneloop-replay-*")) == temporary


def test_a_replay_of_more_steps_than_there_are(finished: Path) -> None:
    found = replay(RunFolder(finished), 500)
    assert (found.equal, found.first, found.steps) == (True, None, len(losses(finished)))


@pytest.mark.parametrize("name", ["loss", "learning_rate", "grad_norm"])
def test_a_tampered_line_is_found(name: str, copy: RunFolder) -> None:
    lines = copy.lines("metrics.jsonl")
    entry = next(line for line in lines if line["event"] == "step" and line["step"] == 4)
    entry[name] *= 1 + 1e-9
    copy.write_lines(lines, "metrics.jsonl")
    done = command("replay", copy.path, "--steps", "6")
    assert done.exit_code == 1
    assert f"at step 4 the {name.replace('_', ' ')} was {entry[name]!r}" in done.stdout
    assert "1.0e-09" in done.stdout
    assert command("replay", copy.path, "--steps", "3").exit_code == 0
    assert command("replay", copy.path, "--steps", "6", "--tolerance", "1e-8").exit_code == 0


def test_a_run_that_was_cut_off_can_be_replayed(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, method="full", training={"learning_rate": 0.003})

    def crash() -> None:
        raise SystemError

    with pytest.raises(SystemError):
        run(recipe, tmp_path / "run", watch=Interrupting(CUT_AT, crash))
    found = replay(RunFolder(tmp_path / "run"), 20)
    assert (found.equal, found.first) == (True, None)
    assert CUT_AT - 1 <= found.steps <= CUT_AT


def test_other_rows_or_another_recipe_are_refused_by_the_name_of_the_run(tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama, training={"max_steps": 2}), tmp_path / "run", "train")
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(recipe + "seed: 7\n")
    with pytest.raises(UserError, match=r"recipe of .* has changed") as refused:
        replay(RunFolder(tmp_path / "run"), 2)
    assert str(tmp_path / "run") in refused.value.found
    (tmp_path / "run" / "recipe.yaml").write_text(recipe)
    (tmp_path / "rows.csv").write_text(labels_csv().replace("thing 3 is blue", "thing 3 is rather blue"))
    with pytest.raises(UserError, match="data has changed") as refused:
        replay(RunFolder(tmp_path / "run"), 2)
    assert str(tmp_path / "run") in refused.value.found
