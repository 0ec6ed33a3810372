"""The spine: what a run is, from the recipe to the certificate. Read it top to bottom and know the product.

Every stage reads and writes the run folder, so that a run can stop after any of them and be resumed. The stages up to
the plan need no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from tuneloop.check import Subject, check
from tuneloop.data.examine import READING
from tuneloop.data.page import write_page
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.versions.file_state import changed_since
from tuneloop.data.versions.seen import write_seen
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.evaluation.blind import judged_in
from tuneloop.evaluation.certificate import goal_metric
from tuneloop.evaluation.evidence import Evidence
from tuneloop.evaluation.report import write_card, write_report
from tuneloop.evaluation.signing import write_signed
from tuneloop.models.resolve import Base, resolve
from tuneloop.models.shape import read_shape, weights_sha256
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.plan import hardware, make
from tuneloop.plan.make import Plan
from tuneloop.recipe import Recipe
from tuneloop.record import RunFolder, environment, find_runs, write_atomic
from tuneloop.training.watch import Silent, Watcher
from tuneloop.types import Answers, Conversation, Group, Rated, Rendered, Sample

if TYPE_CHECKING:
    from tuneloop.contest import Contest, Gradings

STAGES = ("check", "plan", "baseline", "train", "evaluate")
ASKED = frozenset({"reference_logprobs", "old_logprobs", "teacher"})     # needs that cost a pass over the rows


class Prepared:
    """Everything that is known before a weight is loaded: the first two stages."""

    def __init__(self, recipe: Recipe, watch: Watcher, given: dict[str, Any] | None = None) -> None:
        """`given`: the recipe as it was written, where `recipe` is a resumed run's, with absolute paths."""
        self.recipe, self.watch, self.given = recipe, watch, given or recipe.given
        self.base: Base = resolve(recipe.base, recipe.root, say=watch.say)
        self.shape = read_shape(self.base.path)
        recipe.method.check(self.shape)
        self.tokenizer = ChatTokenizer(self.base.path)
        self.rows: Rows = prepare(recipe.data, recipe.root, self.tokenizer,
                                  self.tokenizer.max_length - recipe.method.slots, recipe.seed,
                                  recipe.objective.batch_kind, self.given["data"])
        if not self.rows.test:
            raise UserError("No test rows are held out, so nothing could be said about the result.",
                            fix="set data.split.test, or name a file with data.test")
        self.asked = {need: self._other_model(name) for need, name in recipe.objective.asks.items()}
        if recipe.objective.compares and not any(row.has_contrast for row in self.rows.train):
            raise UserError("No prompt of the training rows has answers with different rewards, so this objective can "
                            "learn nothing from them.", wanted="several sampled answers of each prompt",
                            fix="set objective=ppo, or add answers that are better or worse than those")
        self.metric = goal_metric(recipe.goal, self.rows.task)
        recipe.evaluation.check_measures(recipe.goal)
        self.tested = _drawn(_models_to_follow(self.rows.test), recipe.evaluation.rows, recipe.seed)

    def _other_model(self, name: str) -> Base:
        """A reference model or teacher, which must know the base's tokens."""
        found = resolve(name, self.recipe.root, say=self.watch.say)
        self.tokenizer.check_same_tokens(ChatTokenizer(found.path), name)
        return found

    @cached_property
    def weights(self) -> dict[str, str]:
        """sha256 of the weights of the base, and of the models asked, by need."""
        return {"base": weights_sha256(self.base.path),
                **{need: weights_sha256(other.path) for need, other in self.asked.items()}}

    @property
    def test(self) -> list[Any]:
        """The test rows that are scored."""
        return [self.rows.test[i] for i in self.tested]

    @property
    def test_tokens(self) -> list[Rendered]:
        tokens = self.rows.tokens["test"]
        return [tokens[i] for i in self.tested]

    @property
    def references(self) -> list[str]:
        """What the test rows answer; where that is a call, the text that the chat template makes of it."""
        return [self.tokenizer.decode(tokens.last_answer.tolist(), special=False).strip()
                if isinstance(row, Conversation) and row.messages[-1].calls else row.answer
                for row, tokens in zip(self.test, self.test_tokens, strict=True)]

    @property
    def test_groups(self) -> list[Group]:
        return [self.rows.groups["test"][i] for i in self.tested]

    @property
    def choices(self) -> int:
        """Answers that a model chooses from in every test row; 0 where it writes its own."""
        return {"labels": len(self.rows.labels), "pairs": 2}.get(self.rows.task, 0)

    def plan(self) -> Plan:
        """What will be done and what it costs; refuses a base that does not fit."""
        shape, machine, recipe = self.shape, hardware.here(), self.recipe
        loaded = recipe.method.memory(shape).base_bytes
        make.check_fits(shape, machine, recipe.base, loaded)
        for other in self.asked.values():
            make.check_fits(read_shape(other.path), machine, other.name, beside=loaded)
        judged = self.test_groups if self.rows.task == "pairs" else [Group((row,)) for row in self.test_tokens]
        work = make.Workload(self.rows.groups["train"], self.rows.groups["validation"], judged,
                             self.choices, recipe.evaluation.max_new_tokens, len(recipe.objective.needs & ASKED),
                             recipe.objective.pace)
        return make.make(recipe.training, recipe.method, shape, work, machine)


def run(recipe: Recipe, folder: RunFolder, watch: Watcher | None = None, until: str = "evaluate") -> dict[str, Any]:
    """The whole loop up to the stage `until`. Returns the certificate, or the record if there is none yet."""
    watch = watch or Silent()
    with folder.locked():
        with _timed(folder, "data"):
            ready = _check(recipe, folder, watch)
        if until == "check":
            return folder.update_record()
        plan = _plan(ready, folder, watch)
        if until == "plan":
            return folder.update_record()

        from tuneloop.contest import Contest
        from tuneloop.session import Session  # torch from here on

        contest = Contest.begin(ready, folder, watch)
        with _timed(folder, "baseline"):
            session = Session(ready, plan, folder, watch)
            base = contest.answers(session, "base")
            others = contest.others(session)
            suites = contest.suites(session, "base")
        if until == "baseline":
            return folder.update_record()
        with _timed(folder, "training"):
            session.train()
        if until == "train":
            return folder.update_record()
        with _timed(folder, "evaluation"):
            tuned = contest.answers(session, "tuned")
            suites_after = contest.suites(session, "tuned")
            models = [base, tuned, *others]
            further = contest.further(session, models)
        return _certify(ready, folder, contest, models, (suites, suites_after), further)


def _check(recipe: Recipe, folder: RunFolder, watch: Watcher) -> Prepared:
    """Read, check, split and render the rows; refuse what cannot be trusted."""
    known = folder.read("record.json") if folder.has("record.json") else {}
    given = known.get("recipe", recipe.given)
    ready = Prepared(recipe, watch, given)
    now: dict[str, Any] = {
        "recipe_used": recipe.portable(), "data": ready.rows.identity,
        "objective": recipe.objective_record,
        "asked": {need: {"name": other.name, "sha256": ready.weights[need]}
                  for need, other in ready.asked.items()},
        "base": {"name": given["base"], "path": str(ready.base.path), "source": ready.base.source,
                 "sha256": ready.weights["base"], "parameters": ready.shape.parameters,
                 "notes": [*ready.base.notes, *ready.tokenizer.notes]}}
    if known:
        _refuse_changes(known, now, folder)
    for line in [*ready.base.notes, *ready.tokenizer.notes, *ready.rows.report.lines()]:
        watch.say(line)
    folder.write(ready.rows.report.to_json(), "data", "report.json")
    write_seen(folder.path, ready.rows.seen)
    if not folder.has("data", "findings.json"):
        _examine(ready, folder, watch)
    folder.update_record(recipe=given, method=recipe.method.model_dump(),
                         seeds={"all": recipe.seed, "training": recipe.training_seed}, environment=environment(), **now)
    return ready


def _examine(ready: Prepared, folder: RunFolder, watch: Watcher) -> None:
    """Look for what is wrong with the rows, and say it; whatever must not be trained on has been refused before."""
    recipe = ready.recipe
    found = check(Subject(recipe.data, recipe.root, recipe.objective.batch_kind, ready.tokenizer, ready.given["data"]))
    folder.write(found.to_json(), "data", "findings.json")
    write_page(found, folder.file("data", "findings.html"))
    for finding in found.findings:
        if finding.check == READING:        # a set to compare with: the files of the parts have been read before
            raise UserError(f"{finding.what}.", fix=finding.fix)
        if finding.severity != "note":
            watch.say(f"{finding.check}: {finding}" + (f" ({finding.fix})" if finding.fix else ""))


def _refuse_changes(known: dict[str, Any], now: dict[str, Any], folder: RunFolder) -> None:
    """A run goes on with what it began with: its result could not be told from a mixture otherwise."""
    def unless_same(before: Any, after: Any, what: str, fix: str) -> None:
        if before != after:
            raise UserError(f"{what} changed since {folder.path} began.", fix=f"start a new run, or {fix}")

    if known["recipe_used"] != now["recipe_used"]:
        raise UserError(f"The recipe of {folder.path} has changed since the run began; its goal was declared then.",
                        fix="start a new run with the new recipe")
    before, after = ([record["data"][key] for key in ("hashes", "order")] for record in (known, now))
    told = ["put the old rows back, in their old order", *changed_since(known)]
    unless_same(before, after, "The data has", "; ".join(told))
    unless_same(known["objective"].get("sha256"), now["objective"].get("sha256"), "The file of the objective has",
                "put the old file back")
    unless_same(known["objective"], now["objective"], "The options that tuneloop knows of the objective have",
                "go on with the version of tuneloop that began it")
    unless_same(known.get("asked", {}), now["asked"], "The weights of the reference model or teacher have",
                "put the old ones back")
    unless_same(known["base"]["sha256"], now["base"]["sha256"], f"The weights of {now['base']['name']} have",
                "put the old weights back")


def _plan(ready: Prepared, folder: RunFolder, watch: Watcher) -> Plan:
    """Planned once: a resumed run goes on with the values that it began with."""
    if folder.has("plan.json"):
        return Plan.from_json(folder.read("plan.json"))
    plan = ready.plan()
    folder.write(plan.to_json(), "plan.json")
    for note in plan.notes:
        watch.say(note)
    watch.say("this will take about: " + ", ".join(f"{name} {_duration(s)}" for name, s in plan.seconds.items()))
    return plan


def _certify(ready: Prepared, folder: RunFolder, contest: Contest, models: list[Answers],
             suites: tuple[Gradings, Gradings], further: dict[str, Any]) -> dict[str, Any]:
    """Decide the verdict on intervals and write down everything that supports it."""
    recipe, test = ready.recipe, ready.test
    record = folder.update_record()
    references = ready.references
    rows = [{"row": i, "origin": asdict(row.origin), "prompt": row.prompt[-1].content, "reference": references[i],
             "answers": {m.name: m.texts[i] for m in models}} for i, row in enumerate(test)]
    seen = Evidence(recipe.goal, ready.rows.task, references, models, test, recipe.evaluation.metrics, suites,
                    recipe.evaluation.resamples, recipe.seed)
    certificate = seen.certify(used_before=_used_before(folder, rows), context={
        "run": folder.path.name, "base": record["base"], "data": ready.rows.hashes, "seed": recipe.seed,
        "environment": record["environment"], "contenders": contest.about(),
        "costs": contest.costs(ready.metric, models), "blind": judged_in(folder)} | further)
    certificate["notes"] += [note for note in contest.notes() if note not in certificate["notes"]]
    folder.write_lines(rows, "evaluation", "predictions.jsonl")
    folder.write({key: certificate[key] for key in ("scores", "differences")}, "evaluation", "scores.json")
    certificate = write_signed(certificate, folder)
    write_card(folder)
    write_report(folder)
    return certificate


def _used_before(folder: RunFolder, rows: list[dict[str, Any]]) -> int:
    """How many certified runs beside this one were judged on some of the same rows, known by what their files hold.

    Not by the prompt, which the recipe may change. A resumed run keeps its first count.
    """
    if folder.has("certificate.json"):
        return int(folder.read("certificate.json")["test_rows_used_before"])

    def tested(lines: list[dict[str, Any]]) -> set[str]:
        return {line["origin"].get("row", "") for line in lines} - {""}

    mine = tested(rows)
    return sum(other.has("certificate.json") and other.path.resolve() != folder.path.resolve()
               and bool(mine & tested(other.lines("evaluation", "predictions.jsonl")))
               for other in find_runs(folder.path.parent))


def begin(recipe: Recipe, folder: RunFolder) -> None:
    """Write the recipe into its new run folder, with absolute paths, so that the run can be resumed from anywhere."""
    write_atomic(folder.file("recipe.yaml"), yaml.safe_dump(recipe.portable(), sort_keys=False, allow_unicode=True))


@contextmanager
def _timed(folder: RunFolder, name: str) -> Iterator[None]:
    """Add the stage's seconds to the record; over a resumed run they sum up."""
    began = time.perf_counter()
    refused = False
    try:
        yield
    except UserError as error:
        refused = not isinstance(error, TrainingFailed)     # then nothing was done
        raise
    finally:
        if folder.has("record.json") and not refused:
            timings = folder.read("record.json").get("timings_seconds", {})
            seconds = timings.get(name, 0.0) + time.perf_counter() - began
            folder.update_record(timings_seconds=timings | {name: round(seconds, 1)})


def _models_to_follow(rows: list[Sample]) -> list[int]:
    """Numbers of the rows whose answer a model can be judged by: not of those that people disliked."""
    found = [i for i, row in enumerate(rows) if not isinstance(row, Rated) or row.desirable]
    if not found:
        raise UserError("People liked none of the answers held out, so there is nothing to judge a model by.",
                        fix="raise data.split.test, or name a file with data.test")
    return found


def _drawn(rows: list[int], wanted: int | None, seed: int) -> list[int]:
    if wanted is None or wanted >= len(rows):
        return rows
    return [rows[i] for i in sorted(np.random.default_rng(seed).choice(len(rows), wanted, replace=False).tolist())]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


