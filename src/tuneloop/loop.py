"""The spine: what a run is, from the recipe to the certificate. Read it top to bottom and know the product.

Every stage reads and writes the run folder, so that a run can stop after any of them and be resumed. The stages up to
the plan need no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import yaml

from tuneloop.check import Subject, check
from tuneloop.data.checks.duplicates import LEAK
from tuneloop.data.examine import READING
from tuneloop.data.page import write_page
from tuneloop.data.versions.file_state import changed_since
from tuneloop.data.versions.seen import write_seen
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.evaluation.blind import judged_in
from tuneloop.evaluation.evidence import Evidence
from tuneloop.evaluation.report import write_card, write_report
from tuneloop.evaluation.signing import write_signed
from tuneloop.plan.make import Plan
from tuneloop.prepared import Prepared
from tuneloop.recipe import Recipe
from tuneloop.record import RunFolder, Value, environment, find_runs, write_atomic
from tuneloop.training.watch import Silent, Watcher
from tuneloop.truth import write_truth
from tuneloop.types import Answers

if TYPE_CHECKING:
    from tuneloop.contest import Contest, Gradings

STAGES = ("check", "plan", "baseline", "train", "evaluate")


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
            contest.exposed(session, "base")
            enough = contest.enough(base, others)
        if enough and recipe.training.only_if_needed:
            return folder.update_record(not_needed=enough)
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
    if ready.chosen:        # from here on the method of this run, in its own copy of the recipe
        recipe = ready.recipe
        begin(recipe, folder)
    elif "method_planned" in known:
        ready.chosen = Value(**known["method_planned"])
    now: dict[str, Any] = {
        "recipe_used": recipe.portable(), "data": ready.rows.identity,
        "objective": recipe.objective_record,
        "asked": {need: {"name": other.name, "sha256": ready.weights[need]}
                  for need, other in ready.asked.items()},
        "rewards": recipe.rewards_record,
        "policies": {policy.name: policy.sha256 for policy in ready.policies if policy.sha256},
        "suites": ready.suites,
        "base": {"name": given["base"], "path": str(ready.base.path), "source": ready.base.source,
                 "sha256": ready.weights["base"], "parameters": ready.shape.parameters,
                 "notes": [*ready.base.notes, *ready.tokenizer.notes]}}
    if known:
        _refuse_changes(known, now, folder)
    for line in [*ready.base.notes, *ready.tokenizer.notes, *ready.rows.report.lines(), *ready.leaks]:
        watch.say(line)
    folder.write(ready.rows.report.to_json(), "data", "report.json")
    write_seen(folder.path, ready.rows.seen)
    if not folder.has("data", "findings.json"):
        _examine(ready, folder, watch)
    folder.update_record(recipe=given, method=recipe.method.model_dump(),
                         **({"method_planned": ready.chosen.to_json()} if ready.chosen else {}),
                         seeds={"all": recipe.seed, "training": recipe.training_seed}, environment=environment(), **now)
    return ready


def _examine(ready: Prepared, folder: RunFolder, watch: Watcher) -> None:
    """Look for what is wrong with the rows, and say it; whatever must not be trained on has been refused before."""
    recipe = ready.recipe
    found = check(Subject(recipe.data, recipe.root, recipe.row_kind, ready.tokenizer, ready.given["data"]))
    folder.write(found.to_json(), "data", "findings.json")
    write_page(found, folder.file("data", "findings.html"))
    for finding in found.findings:
        if finding.check == READING:        # a set to compare with: the files of the parts have been read before
            raise UserError(f"{finding.what}.", fix=finding.fix)
        if finding.severity != "note":
            watch.say(f"{finding.check}: {finding}" + (f" ({finding.fix})" if finding.fix else ""))
    asked = {place for finding in found.findings if finding.kind == LEAK for place in finding.places}
    if near := len(asked.intersection(ready.rows.seen["train"])):      # what asks just the same has been taken out
        folder.update_record(near_leaks=near)


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
    unless_same(known.get("rewards", []), now["rewards"], "The graders that reward answers have",
                "put back what they were made of")
    unless_same(known.get("policies", {}), now["policies"], "The files of evaluation.policies have",
                "put the old ones back")
    unless_same(known.get("suites", now["suites"]), now["suites"], "The files of evaluation.suites have",
                "put the old ones back")
    unless_same(known["base"]["sha256"], now["base"]["sha256"], f"The weights of {now['base']['name']} have",
                "put the old weights back")


def _plan(ready: Prepared, folder: RunFolder, watch: Watcher) -> Plan:
    """Planned once: a resumed run goes on with the values that it began with."""
    if folder.has("plan.json"):
        return Plan.from_json(folder.read("plan.json"))
    plan = ready.plan()
    folder.write(plan.to_json(), "plan.json")
    if ready.chosen:
        watch.say(f"method: {ready.chosen.value} ({ready.chosen.why})")
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
                    recipe.evaluation.resamples, recipe.seed, ready.slices)
    certificate = seen.certify(used_before=_used_before(folder, rows), context={
        "run": folder.path.name, "base": record["base"], "data": ready.rows.hashes, "seed": recipe.seed,
        "environment": record["environment"], "contenders": contest.about(),
        "costs": contest.costs(models), "blind": judged_in(folder)} | further)
    if near := record.get("near_leaks"):
        certificate["notes"].insert(0, f"{near:,} training rows ask nearly what a test row asks, which flatters the "
                                    "tuned model: data/findings.html names them.")
    certificate["notes"] = [*ready.leaks, *certificate["notes"]]
    more = [*ready.notes, *contest.notes()]
    certificate["notes"] += [note for note in more if note not in certificate["notes"]]
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
            write_truth(folder)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


