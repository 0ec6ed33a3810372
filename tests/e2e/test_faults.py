"""What goes wrong in the world: every fault gets a sentence and an exit code, and nothing that was finished is lost."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toy import (
    CUT_OFF,
    Interrupting,
    decided,
    labels_csv,
    labels_recipe,
    losses,
    open_rows,
    python,
    resume,
    run,
    same_bits,
    write_jsonl,
)
from tuneloop import cli
from tuneloop.errors import TrainingFailed
from tuneloop.plan import hardware
from tuneloop.recipe import load
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent

resource = pytest.importorskip("resource", reason="file size limits stand for a full disk")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 81265\n".format("0f" * 32)
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process and in `tmp_path`: exit code, and what it says (of a report: all of it)."""
    monkeypatch.chdir(tmp_path)

    def run_words(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tuneloop", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capfd.readouterr()
        return int(left.value.code or 0), shown.out + shown.err

    return run_words


def nothing_half_written(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if "partial" in path.name]


# --- rows ------------------------------------------------------------------------------------------------------------

def empty_answer(rows: Path) -> None:
    rows.write_text(labels_csv().replace("thing 3 is blue,negative", "thing 3 is blue,"))


def half_a_gzip(rows: Path) -> None:
    rows.write_bytes(gzip.compress(labels_csv().encode())[:-20])


def broken_json(rows: Path) -> None:
    write_jsonl(rows, open_rows())
    lines = rows.read_text().splitlines()
    lines[6] = lines[6][:-1]
    rows.write_text("\n".join(lines))


FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("rows.csv", lambda rows: None, "rows.csv does not exist"),
    "empty": ("rows.csv", lambda rows: rows.write_bytes(b""), "rows.csv"),
    "only a header": ("rows.csv", lambda rows: rows.write_text("text,label\n"), "rows.csv"),
    "a folder": ("rows.csv", lambda rows: rows.mkdir(), "rows.csv"),
    "no text": ("rows.csv", lambda rows: rows.write_bytes(bytes(range(256)) * 40), "rows.csv"),
    "a pointer": ("rows.csv", lambda rows: rows.write_text(POINTER), "Git"),
    "a pointer as JSONL": ("rows.jsonl", lambda rows: rows.write_text(POINTER), "Git"),
    "a pointer as gzip": ("rows.jsonl.gz", lambda rows: rows.write_text(POINTER), "Git"),
    "half a gzip": ("rows.csv.gz", half_a_gzip, "rows.csv.gz"),
    "broken JSON": ("rows.jsonl", broken_json, "rows.jsonl line 7"),
    "empty answers": ("rows.csv", empty_answer, "line 5: the answer is empty"),
    "one class": ("rows.csv", lambda rows: rows.write_text(labels_csv().replace("negative", "positive")),
                  "every answer is 'positive'"),
    "too few": ("rows.csv", lambda rows: rows.write_text(labels_csv(9)), "only 9 usable rows"),
    "an unknown column": ("rows.csv", lambda rows: rows.write_text(labels_csv().replace("label", "class", 1)), "label"),
}


REPORTED = {"too few": "There are 9 rows to learn from"}
"""What `check` says, where that is not what a refused run says."""


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_that_cannot_be_trusted(fault: str, call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    name, make, told = FAULTS[fault]
    labels_recipe(tmp_path, tiny_llama)
    (tmp_path / "rows.csv").unlink()
    make(tmp_path / name)
    words = [f"data.train={name}"]
    if "jsonl" in name:
        words += ["data.prompt=null", "data.answer=null"]
    before = sorted(tmp_path.iterdir())
    code, error = call("run", "recipe.yaml", *words)
    assert code == 2
    assert told in error, error
    code, report = call("check", "recipe.yaml", *words)
    assert code == 2
    assert all(part in report for part in REPORTED.get(fault, told).split(": ")), report
    if (tmp_path / "runs").exists():
        (tmp_path / "runs").rmdir()         # it is empty: a run that was refused leaves no folder
    assert sorted(tmp_path.iterdir()) == before


def test_a_refused_run_leaves_its_folder_name_free(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    rows = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text("")
    assert call("run", "recipe.yaml", "--folder", "mine")[0] == 2
    (tmp_path / "rows.csv").write_text(rows)
    assert call("run", "recipe.yaml", "--folder", "mine", "--until", "check")[0] == 0


def test_no_test_rows(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, error = call("run", "recipe.yaml", "data.split.test=0")
    assert code == 2
    assert "No test rows are held out" in error


def test_a_goal_of_another_task(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, error = call("run", "recipe.yaml", "goal.metric=rouge_l")
    assert code == 2
    assert "goal.metric is rouge_l, but the answers of this data are labels" in error


# --- bases -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("base", ["nobody/has-this-one", "./nowhere", "smolm", "model.gguf"])
def test_an_unknown_base(base: str, call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, error = call("run", "recipe.yaml", f"base={base}")
    assert code == 2
    assert base in error
    assert not list((tmp_path / "runs").iterdir())


def test_a_damaged_base(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    labels_recipe(tmp_path, tmp_path / "base")
    weights.write_bytes(weights.read_bytes()[:-100])
    code, error = call("run", "recipe.yaml", "--until", "plan")
    assert code == 2
    assert "model.safetensors" in error
    weights.unlink()
    code, error = call("check", "recipe.yaml")
    assert code == 2
    assert "is not a whole base: model.safetensors missing" in error


def test_a_base_without_finite_weights(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_llama, tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    next(iter(weights.values())).flat[:] = np.nan
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    labels_recipe(tmp_path, tmp_path / "base")
    code, error = call("run", "recipe.yaml")
    assert code == 2
    assert "gives no finite probabilities" in error


def test_a_base_that_does_not_fit_is_not_loaded(call: Call, tmp_path: Path, tiny_llama: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    labels_recipe(tmp_path, tiny_llama)
    small = replace(hardware.here(), available_bytes=100 * 2**20)
    with monkeypatch.context() as patched:
        patched.setattr(hardware, "here", lambda: small)
        patched.setattr("tuneloop.session.load_model", lambda *_, **__: pytest.fail("the base was loaded"))
        code, error = call("run", "recipe.yaml", "--folder", "run")
        assert code == 2
        assert "does not fit in memory" in error
        assert call("plan", "recipe.yaml")[0] == 2
    assert call("run", "--resume", "run", "--until", "baseline")[0] == 0      # memory was freed


# --- folders ---------------------------------------------------------------------------------------------------------

def test_a_run_never_overwrites_a_folder(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("the only copy")
    code, error = call("run", "recipe.yaml", "--folder", "mine")
    assert code == 2
    assert "exists already" in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    code, error = call("run", "recipe.yaml", "--folder", "rows.csv/run")
    assert code == 2
    assert "cannot be created" in error


def test_what_is_resumed_must_be_a_run(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    (tmp_path / "mine").mkdir()
    for words, told in ((["mine"], "is not a run folder"), (["latest"], "There are no runs"),
                        (["mine", "recipe.yaml"], "keeps its recipe")):
        code, error = call("run", "--resume", *words)
        assert code == 2
        assert told in error
    assert call("run", "recipe.yaml", "--until", "lunch")[0] == 2


HOLD = "import sys, time; from pathlib import Path; from tuneloop.record import RunFolder\n" \
       "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(600)"


def test_two_processes_never_share_a_folder(call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama), tmp_path / "run", "check")
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            code, error = call("run", "--resume", "run")
            assert code == 2
            assert "Another tuneloop is running in run" in error
            assert not (tmp_path / "run" / "plan.json").exists()
        finally:
            holder.kill()
    assert call("run", "--resume", "run", "--until", "plan")[0] == 0        # a killed process holds nothing


# --- a full disk -----------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[Callable[[], None]]:
    """A switch that lets the system refuse, as a full disk would, to write files beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullAt(Silent):
    """Fills the disk when a stage begins."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name, self.action = name, action

    def stage(self, name: str, total: int | None) -> None:
        if name == self.name:
            self.action()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(labels_recipe(folder, tiny_llama), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(("size", "when", "kept"), [
    (8_000, 7, "step-5"),               # the best parameters at step 10
    (40_000, 7, "step-5"),              # they fit, the checkpoint does not
    (8_000, 2, None),                   # the first one
    (100, 7, "step-5"),                 # a line of metrics.jsonl
    (8_000, 19, "step-15"),
    (100, "baseline", None),            # evaluation/base.json
    (100, "evaluation", "step-21"),     # evaluation/tuned.json
])
def test_a_full_disk(size: int, when: int | str, kept: str | None, undisturbed: Path, tmp_path: Path,
                     tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    with no_file_larger_than(size) as fill:
        watch = FullAt(when, fill) if isinstance(when, str) else Interrupting(when, fill)
        with pytest.raises(TrainingFailed, match="could not be written") as caught:
            run(recipe, tmp_path / "run", watch=watch)
    assert caught.value.exit_code == 1
    assert "--resume" in caught.value.text
    assert nothing_half_written(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoints/step-*")] == ([kept] if kept else [])
    resume(recipe, tmp_path / "run")
    assert decided(tmp_path / "run") == decided(undisturbed)
    assert same_bits(tmp_path / "run", undisturbed)
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_a_full_disk_while_the_result_is_written(undisturbed: Path, tmp_path: Path, tiny_llama: Path) -> None:
    """Everything is trained, and the adapter's files are larger than what fits."""
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "run", "train")
    shutil.rmtree(tmp_path / "run" / "adapter")
    with no_file_larger_than(8_000) as fill:
        fill()
        with pytest.raises(TrainingFailed, match="adapter could not be written"):
            resume(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    resume(recipe, tmp_path / "run")
    assert same_bits(tmp_path / "run", undisturbed)


def test_a_full_disk_as_a_user_sees_it(tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    fill = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))"
    done = python(CUT_OFF, "7", fill, "run", "recipe.yaml", "--folder", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "free disk space, then continue with `tuneloop run --resume" in done.stderr
    assert "step-5" in done.stderr
    assert nothing_half_written(tmp_path / "run")


# --- numbers ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("every", "told"), [(5, "the loss is"), (1, "the validation loss is")])
def test_a_loss_that_is_not_finite(every: int, told: str, call: Call, tmp_path: Path, tiny_llama: Path) -> None:
    labels_recipe(tmp_path, tiny_llama)
    code, error = call("run", "recipe.yaml", "training.learning_rate=1e30", f"training.evaluate_every={every}",
                       "--folder", "run")
    assert code == 1
    assert told in error
    assert "lower training.learning_rate" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "adapter").exists()
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line


def test_what_was_good_before_a_loss_that_is_not_finite_is_kept(tmp_path: Path, tiny_llama: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama)
    run(recipe, tmp_path / "run", "plan")
    folder = RunFolder(tmp_path / "run")

    from tuneloop import loop, session
    trained: list[Any] = []
    fit = session.fit

    def seen(model: Any, *given: Any, **named: Any) -> Any:
        trained.append(model)
        return fit(model, *given, **named)

    def poison() -> None:
        next(p for p in trained[0].parameters() if p.requires_grad).data.fill_(float("nan"))

    monkeypatch.setattr(session, "fit", seen)
    with pytest.raises(TrainingFailed, match=r"stopped at step 8.*not applied"):
        loop.run(recipe, folder, Interrupting(7, poison))
    assert [path.name for path in (tmp_path / "run").glob("checkpoints/step-*")] == ["step-5"]
    resume(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 21
