"""`tuneloop eval` and `tuneloop compare`: any models on the rows of any file, with intervals and paired differences."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.any_model import Waiting, asking, run_called, short_name
from tuneloop.errors import UserError
from tuneloop.evaluation.asking import Asked, ask, ask_pairs
from tuneloop.evaluation.compare import Stack, compare, has_perplexity, stack_of_answers, stack_of_perplexity
from tuneloop.evaluation.cost import Price, cost
from tuneloop.evaluation.intervals import LEVEL, Bootstrap
from tuneloop.evaluation.power import advice
from tuneloop.grading.metrics import METRICS, Kind, Metric, Options, Scores, View, chosen, names
from tuneloop.inference.remote import with_calls
from tuneloop.record import RunFolder, write_atomic, write_json
from tuneloop.types import (
    Conversation,
    Message,
    Preference,
    Prompt,
    Rated,
    Request,
    Sample,
    Sampling,
    Text,
    request_of,
)

if TYPE_CHECKING:
    from tuneloop.data.examine import Reading
    from tuneloop.inference.backend import Backend
    from tuneloop.training.watch import Watcher

SCHEMA_VERSION = 1
PERPLEXITY = "perplexity"
RESULT, ROWS = "result.json", "rows.jsonl"


@dataclass(frozen=True)
class Rows:
    """Test rows as models are asked them. Of pairs, `references` are the preferred answers and `worse` the others."""

    file: str
    task: Kind
    samples: list[Any]
    references: list[str]
    labels: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[Request]:
        return list(map(request_of, self.samples))


@dataclass(frozen=True)
class Judging:
    """How to judge."""

    metrics: Sequence[str] = ()             # those of the task unless given
    max_new_tokens: int = 256
    resamples: int = 2000
    seed: int = 0
    options: Options = field(default_factory=Options)
    machine: Price | None = None            # of models that run here
    remote: Price | None = None             # of models behind a URL
    cache: Path | None = None               # the user's cache folder unless given


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

def read_rows(source: str, reading: Reading, *, metrics: Sequence[str] = (), labels: Sequence[str] = (),
              count: int | None = None, seed: int = 0) -> Rows:
    """The rows of a source as questions with known answers; `count` of them drawn with the seed.

    Answers are labels where `labels` names them, or where they look like labels and no metric of open answers is asked
    for. Raises a UserError where no row can be judged.
    """
    from tuneloop.data import task as tasks
    from tuneloop.data.examine import samples_of

    unread = Counter[str]()
    found, notes = _questions(list(samples_of(source, reading, unread)))
    notes += [f"{rows:,} rows were left out: {what}" for what, rows in unread.items()]
    if not found:
        raise UserError(f"{source} has no row that a model could be judged by." + "".join(f" {n}." for n in notes),
                        wanted="rows with a prompt and the right answer, or with a preferred answer and another")
    if count is not None and count < len(found):
        drawn = sorted(np.random.default_rng(seed).choice(len(found), count, replace=False).tolist())
        found = [found[i] for i in drawn]
    if isinstance(found[0], Preference):
        if labels:
            raise UserError(f"The rows of {source} are pairs of answers, which have no labels.",
                            fix="leave out --labels")
        return Rows(source, "pairs", found, [p.chosen for p in found], worse=[p.rejected for p in found], notes=notes)
    asked_open = bool(metrics) and all(name in METRICS and METRICS[name].kind == "open" for name in metrics)
    task: Kind = "labels" if labels else "open" if asked_open else tasks.decide(found, "auto")
    if task != "labels":
        references = [with_calls(row.answer, row.messages[-1].calls) for row in found]
        return Rows(source, "open", found, references, notes=notes)
    found = [tasks.with_clean_label(row) for row in found]
    if not labels:
        labels = sorted({row.answer for row in found})
        notes.append(f"The {len(labels)} labels are those that the rows have; --labels names others.")
    return Rows(source, "labels", found, [row.answer for row in found], list(labels), notes=notes)


def _questions(samples: Sequence[Sample]) -> tuple[list[Any], list[str]]:
    """Pairs as they are; everything else as a conversation that ends with the right answer."""
    found: list[Any] = []
    skipped: Counter[str] = Counter()
    for sample in samples:
        if isinstance(sample, Preference | Conversation):
            found.append(sample)
        elif isinstance(sample, Text):
            skipped["plain text asks nothing"] += 1
        elif isinstance(sample, Rated) and not sample.desirable:
            skipped["people did not like the answer"] += 1
        elif isinstance(sample, Prompt) and not sample.references:
            skipped["they have no right answer"] += 1
        else:
            found.append(Conversation((*sample.prompt, Message("assistant", sample.answer)), sample.origin))
    several = sum(isinstance(sample, Prompt) and len(sample.references) > 1 for sample in samples)
    notes = [f"{rows:,} rows were left out: {why}" for why, rows in skipped.items()]
    return found, notes + [f"{several:,} rows have several right answers; the first one counts."] * bool(several)


def reading_for(runs: Sequence[RunFolder], source: str) -> Reading:
    """Rows by the templates of the runs' recipe, which the model was trained on, where the source has their columns.

    Raises a UserError where the recipes differ.
    """
    from tuneloop.data.examine import Reading
    from tuneloop.data.read import open_source
    from tuneloop.recipe import load

    parts = [load(run.file("recipe.yaml"), run_own_code=False).data for run in runs]
    found = {(data.prompt, data.answer, data.system) for data in parts if data.prompt}
    first = next(iter(open_source(source, Path.cwd()).rows()), None) if found else None
    fitting = {one for one in found if first is not None and _columns(*one) <= set(first.values)}
    if len(fitting) > 1:
        raise UserError("The recipes of these runs make different prompts of the rows.", fix="say which with --prompt "
                        "and --answer")
    prompt, answer, system = fitting.pop() if fitting else (None, None, None)
    return Reading(Path.cwd(), prompt=prompt, answer=answer, system=system)


def trained_on(models: Sequence[str], runs: Path, rows: Rows) -> list[str]:
    """A warning for every run, or model in a folder, that has been trained with some of these rows, as far as it says.
    """
    from tuneloop.data.versions.learnt import knows, learnt_by

    notes = []
    for called in (model for model in models if "://" not in model):
        run, path = run_called(called, runs), Path(called)
        learnt = learnt_by(run.path if run else path.parent if path.is_file() else path)
        if seen := sum(knows(learnt, sample.origin.row) for sample in rows.samples):
            notes.append(f"{run.path.name if run else short_name(called)} was trained with {seen:,} of these "
                         f"{len(rows.samples):,} rows, which flatters its result.")
    return notes


def _columns(*templates: str | None) -> set[str]:
    return {column for text in templates if text for _, column, _, _ in string.Formatter().parse(text) if column}


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def check_names(models: Sequence[str]) -> None:
    """Raise a UserError for a model that is named twice."""
    twice = [name for name, times in Counter(models).items() if times > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice, and would be compared with itself.", fix="name each model once")


def metrics_for(rows: Rows, asked: Sequence[str]) -> tuple[list[Metric], bool]:
    """The metrics, and whether perplexity is asked for. Raises a UserError for one that does not fit the rows."""
    others = [name for name in asked if name != PERPLEXITY]
    return chosen(rows.task, others if asked else names(rows.task)), PERPLEXITY in asked


def judge(backends: Sequence[Backend], rows: Rows, how: Judging, watch: Watcher) -> tuple[dict[str, Any], list[Any]]:
    """What every model reached, with 95 % intervals, and how they differ in pairs; and a line for each row.

    Answers come from the cache where they were given before. One model is in memory at a time.
    """
    metrics, perplexity = metrics_for(rows, how.metrics)
    asked = {backend.name: _asked(backend, rows, how, watch) for backend in backends}
    views = [View(rows.references, one.answers, rows.samples, how.options) for one in asked.values()]
    stacks = [stack_of_answers(metric, views) for metric in metrics]
    notes = [*rows.notes, *(note for one in asked.values() for note in one.notes)]
    if perplexity:
        for one in asked.values():
            if one.answers.nll is None:
                raise UserError(f"{one.answers.name} does not say how likely the right answers are, so it has no "
                                "perplexity.", fix="leave perplexity out")
            if not has_perplexity(one.answers):
                raise UserError(f"A right answer is next to impossible for {one.answers.name}, so its perplexity is no "
                                "number: its weights are broken, or its precision overflows.",
                                fix="leave perplexity out")
        stacks.append(stack_of_perplexity([one.answers for one in asked.values()]))
    scores = _of_rows(metrics, views)
    leading = next((m.name for m in metrics if m.name in scores and m.better == "higher" and m.in_unit), None)
    notes += _same(backends)
    pairs = list(combinations(asked, 2))
    every = np.arange(len(rows.references))
    differences = compare(stacks, pairs, resamples=how.resamples, seed=how.seed) if pairs else []
    if differences and leading == "accuracy":
        apart = max(one.wins + one.losses for one in differences if one.metric == leading) / len(every)
        notes += [advice(len(every), apart)] if apart else []
    result = {
        "schema_version": SCHEMA_VERSION, "file": rows.file, "rows": len(rows.references), "task": rows.task,
        "labels": rows.labels, "metrics": [stack.metric for stack in stacks], "confidence": LEVEL,
        "models": [_model(backend, asked[backend.name], stacks, every, how, scores.get(leading or "", {}))
                   for backend in backends],
        "correct_means": leading,
        "differences": [one.to_json() for one in differences], "notes": notes}
    return result, _lines(rows, asked, scores, leading)


def _asked(backend: Backend, rows: Rows, how: Judging, watch: Watcher) -> Asked:
    watch.stage(backend.name, len(rows.references))
    with asking(backend, how.cache) as cached:
        if rows.task == "pairs":
            return ask_pairs(cached, rows.requests, rows.references, rows.worse, progress=watch.advance)
        return ask(cached, rows.requests, rows.references, rows.labels, Sampling(how.max_new_tokens),
                   likelihood=_needs_likelihood(how.metrics), progress=watch.advance)


def _needs_likelihood(metrics: Sequence[str]) -> bool:
    return any(name == PERPLEXITY or "likelihood" in METRICS[name].needs for name in metrics)


def _model(backend: Backend, asked: Asked, stacks: Sequence[Stack], every: Any, how: Judging,
           right: dict[str, Scores]) -> dict[str, Any]:
    bootstrap = Bootstrap(len(every), how.resamples, how.seed)
    measured = bootstrap.measure([stack.over(stack.places(backend.name, every)) for stack in stacks])
    correct = float(right[backend.name].sum()) if right else 0.0
    price = how.machine if isinstance(backend, Waiting) else how.remote
    return {"name": backend.name, "identity": backend.identity, "how": asked.how, "unread": asked.unread,
            "scores": {stack.metric: one.interval(stack.within).to_json()
                       for stack, one in zip(stacks, measured, strict=True)},
            "cost": cost(asked.spent, len(every), correct, price).to_json()}


def _of_rows(metrics: Sequence[Metric], views: Sequence[View]) -> dict[str, dict[str, Scores]]:
    """metric -> model -> scores of the rows, (n,), of metrics that are means of rows."""
    found: dict[str, dict[str, Scores]] = {}
    for metric in metrics:
        for view in views:
            scores = metric.function(view) if metric.view else metric.function(view.references, view.answers.texts)
            if not callable(scores):
                found.setdefault(metric.name, {})[view.answers.name] = scores
    return found


def _same(backends: Sequence[Backend]) -> list[str]:
    return [f"{a.name} and {b.name} are the same model." for a, b in combinations(backends, 2)
            if a.identity == b.identity]


def _lines(rows: Rows, asked: dict[str, Asked], scores: dict[str, dict[str, Scores]],
           leading: str | None) -> list[dict[str, Any]]:
    """Row by row: what was asked and answered, its scores, and which models did best where they differ."""
    lines = []
    for i, sample in enumerate(rows.samples):
        of_leading = {name: float(of[i]) for name, of in scores.get(leading or "", {}).items()}
        top = max(of_leading.values(), default=0.0)
        best = [name for name, score in of_leading.items() if score == top]
        lines.append({
            "row": i, "origin": asdict(sample.origin), "prompt": sample.prompt[-1].content if sample.prompt else "",
            "reference": rows.references[i], "answers": {name: one.answers.texts[i] for name, one in asked.items()},
            "scores": {metric: {name: float(of[i]) for name, of in models.items()}
                       for metric, models in scores.items()},
            "best": best if len(best) < len(of_leading) else []})
    return lines


def check_out(folder: Path | None) -> None:
    """Raise a UserError where the folder for results holds some already."""
    for name in (RESULT, ROWS):
        if folder is not None and (folder / name).exists():
            raise UserError(f"{folder / name} exists already.", fix="choose another folder with --out")


def write(folder: Path, result: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
    """Write result.json and rows.jsonl."""
    write_atomic(folder / ROWS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_json(folder / RESULT, result)
