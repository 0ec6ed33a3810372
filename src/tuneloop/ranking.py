"""`tuneloop rank`: what is judged, a file or the blind pairs of a run, and all that is done with it but showing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.errors import UserError
from tuneloop.people.attention import attention
from tuneloop.people.blind import BlindRun
from tuneloop.people.desk import Desk, Work
from tuneloop.people.export import Exported, Format, Sources, export, select
from tuneloop.people.items import Ask, items_of
from tuneloop.people.questions import SCHEME, read_questions
from tuneloop.people.standing import Standing, standing_of
from tuneloop.people.store import SUFFIX, Judgements
from tuneloop.record import RunFolder, find_runs, write_atomic

if TYPE_CHECKING:
    from tuneloop.people.ai import ByModel
    from tuneloop.training.watch import Watcher

CHECKS, CHECKS_OF_RUNS = 0.1, 0.25      # tests of attention for each item; a run has few


@dataclass(frozen=True)
class Asked:
    """How items are made and shared; None where it was not said."""

    ask: Ask | None = None
    per_prompt: int | None = None
    pairs: int | None = None
    checks: float | None = None
    shared: float = 1.0


@dataclass(frozen=True)
class Target:
    """What is judged, and where it is kept."""

    title: str              # how people know it
    path: Path
    work: Work
    store: Judgements
    run: BlindRun | None = None

    def saved(self) -> None:
        """Something was kept: of a run the certificate's file follows."""
        if self.run is not None:
            self.run.write(self.store)

    def desk(self, annotator: str) -> Desk:
        return Desk(self.work, self.store, annotator, saved=self.saved)

    def standing(self) -> Standing:
        return standing_of(len(self.work.items), self.store)

    @property
    def next_steps(self) -> list[str]:
        """What to type when everything is judged."""
        if self.run is not None:
            return [f"tuneloop certify {self.run.folder.path}"]
        return [f"tuneloop rank {self.path} --export preference --out pairs.jsonl"]

    def _refuse_run(self, option: str, wanted: str) -> None:
        if self.run is not None:
            raise UserError(f"{option} is not for the blind pairs of a run.", wanted=wanted)

    def export(self, form: Format, out: Path | None, *, only: Sequence[str], without: Sequence[str], source: Sources,
               each: bool) -> tuple[Exported, list[str]]:
        """Write rows, and return them with the names of those among their authors who seem to click at random.

        Raises a UserError where nothing comes of it, and for a file that exists.
        """
        self._refuse_run("--export", "a file of collected answers: these are test rows, and a model must not learn "
                         "from what it is judged by")
        if out is None or out.suffix != ".jsonl":
            raise UserError(f"--export needs a .jsonl file{f', and {out} is none' if out else ''}.",
                            fix=f"--out {form}.jsonl")
        if out.exists():
            raise UserError(f"{out} exists already.", fix="choose another name with --out, or remove it first")
        standing = select(self.store, only=only, without=without, source=source)
        found = export(self.work.questions, standing, form, each=each)
        write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows))
        names = dict.fromkeys(said.annotator for said in standing if said.source == "person")
        return found, [name for name in names if attention(name, self.store.standing(name)).state == "at random"]

    def judge(self, called: str, rubric: Path | None, key_env: str, runs: Path, watch: Watcher) -> ByModel:
        """Have a model judge."""
        from tuneloop.any_model import asking, open_any
        from tuneloop.grading.judge import HELPFUL, Judge, read_rubric
        from tuneloop.people.ai import judge_all

        self._refuse_run("--judge", "people; what a model says of a run stands in its certificate, where the recipe "
                         "has evaluation.judge")
        text = read_rubric(rubric) if rubric else HELPFUL
        with asking(open_any(called, runs, key_env=key_env, say=watch.say)) as backend:
            watch.stage(backend.name, None)
            return judge_all(self.work, self.store, Judge(backend, text), watch.advance)


def open_target(called: str, runs: Path, asked: Asked) -> Target:
    """A run by its folder, name or 'latest'; else a file. Raises a UserError for what is neither."""
    if (folder := _run(called, runs)) is not None:
        return _of_run(folder, asked)
    if asked.pairs is not None:
        raise UserError("--pairs is for a run.", fix="of a file take --per-prompt")
    if not called.startswith(SCHEME) and not Path(called).is_file():
        raise UserError(f"There is no file and no run {called}.",
                        fix="`tuneloop collect recipe.yaml` makes a file; `tuneloop runs` lists the runs")
    path = Path(called)
    questions = read_questions(path)
    ask = asked.ask or "compare"
    if ask != "compare" and asked.per_prompt is not None:
        raise UserError("--per-prompt counts pairs.", fix="leave it out, or --ask compare")
    work = Work({one.id: one for one in questions}, items_of(questions, ask, asked.per_prompt), ask,
                CHECKS if asked.checks is None else asked.checks, asked.shared)
    return Target(path.name, path, work, Judgements(path.with_name(path.name + SUFFIX)))


def _of_run(folder: RunFolder, asked: Asked) -> Target:
    if asked.ask not in (None, "compare") or asked.per_prompt is not None:
        raise UserError("The answers of a run are compared, base against tuned.",
                        fix="leave out --ask and --per-prompt")
    blind = BlindRun.of(folder, asked.pairs)
    work = Work(blind.questions, blind.items, "compare", CHECKS_OF_RUNS if asked.checks is None else asked.checks,
                asked.shared)
    target = Target(folder.path.name, folder.path, work, blind.store(), blind)
    target.saved()      # what a killed process kept and could not write
    return target


def _run(called: str, runs: Path) -> RunFolder | None:
    if called == "latest":
        found = find_runs(runs)
        if not found:
            raise UserError(f"There are no runs in {runs}.", fix="`tuneloop run recipe.yaml` makes one")
        return found[0]
    return next((RunFolder(path) for path in (Path(called), runs / called) if (path / "recipe.yaml").is_file()), None)
