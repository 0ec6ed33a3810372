"""What a recipe reaches on kinds of rows that training did not see: a run for each cluster of rows worded alike.

The rows are sorted into clusters. Each run trains without the rows of one of them and answers that one's test rows
alone (`data.split.leave_out`), so that together the runs answer all test rows, each by a model that never saw its
cluster. Each run is an ordinary one, with a record and a certificate of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tuneloop.data.leave_out import Cluster, takes_all, too_small
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.evaluation.certificate import checks_of, verdict_of
from tuneloop.evaluation.goal import Goal
from tuneloop.evaluation.intervals import Bootstrap, Interval
from tuneloop.evaluation.report import LEFT_OUT
from tuneloop.record import RunFolder, find_runs
from tuneloop.several import answers_of, base_and_tuned, decided_here, write_together

if TYPE_CHECKING:
    from tuneloop.recipe import Recipe
    from tuneloop.training.watch import Watcher

SCHEMA_VERSION = 1
FEWEST_CLUSTERS = 2
SETTING = "data.split.leave_out={{clusters: {clusters}, cluster: {cluster}}}"

RecipeWith = Callable[[list[str]], "Recipe"]
"""The recipe with these overrides."""


@dataclass(frozen=True)
class Skipped:
    """A cluster that could not be left out."""

    cluster: Cluster
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self.cluster) | {"why": f"{self.cluster.name}: {self.why}"}


@dataclass(frozen=True)
class Plan:
    """The clusters that are left out, one in each run, and those that cannot be."""

    clusters: list[Cluster]
    skipped: list[Skipped]


def require_clusters(count: int) -> None:
    """Raise a UserError for fewer clusters than can be told apart."""
    if count < FEWEST_CLUSTERS:
        raise UserError(f"--leave-out-clusters {count} leaves nothing to train on.",
                        wanted=f"at least {FEWEST_CLUSTERS} clusters", fix="--leave-out-clusters 4")


def plan(recipe_with: RecipeWith, count: int, watch: Watcher) -> Plan:
    """Sort the rows into `count` clusters, with all that a run would refuse before it loads a model.

    Raises a UserError where fewer than FEWEST_CLUSTERS of them can be left out.
    """
    from tuneloop.prepared import Prepared

    require_clusters(count)
    found = Prepared(recipe_with([SETTING.format(clusters=count, cluster="null")]), watch).rows.report.clusters
    why = {one.cluster: too_small(one) or takes_all(one, found) for one in found}
    made = Plan([one for one in found if not why[one.cluster]],
                [Skipped(one, why[one.cluster]) for one in found if why[one.cluster]])
    if len(made.clusters) < FEWEST_CLUSTERS:
        raise UserError(f"Only {len(made.clusters)} of {count} clusters can be left out. " + _listed(made.skipped),
                        fix="fewer clusters, or a larger data.split.test")
    return made


def recipe_without(recipe_with: RecipeWith, count: int, cluster: Cluster) -> Recipe:
    """The recipe of the run that does not see this cluster."""
    return recipe_with([SETTING.format(clusters=count, cluster=cluster.cluster)])


def run_each(made: Plan, run: Callable[[Cluster], RunFolder]) -> tuple[list[RunFolder], list[Skipped]]:
    """Every run, and every cluster without one: what a run refuses, such as training rows of a single label, costs the
    others nothing. Raises the refusal where no run is left, and whatever fails in training.
    """
    done, skipped = [], list(made.skipped)
    refused: UserError | None = None
    for cluster in made.clusters:
        try:
            done.append(run(cluster))
        except TrainingFailed:
            raise
        except UserError as error:
            refused = error
            skipped.append(Skipped(cluster, error.found.rstrip(".")))
    if refused and not done:
        raise refused
    return done, skipped


def run_of(recipe: Recipe, beside: RunFolder) -> RunFolder | None:
    """The newest run beside another that has this very recipe."""
    wanted = recipe.portable()
    return next((folder for folder in find_runs(beside.path.parent)
                 if yaml.safe_load(folder.file("recipe.yaml").read_text(encoding="utf-8")) == wanted), None)


def together(runs: Sequence[RunFolder], skipped: Sequence[Skipped] = (), resamples: int = 2000,
             seed: int = 0) -> dict[str, Any]:
    """What finished runs reach on all their test rows, beside the base on the same rows, with 95 % intervals.

    The interval is for other rows of these clusters; clusters of other kinds are not drawn. Raises a UserError where
    the runs are not such as leave out different clusters of the same rows.
    """
    certificates = [run.read("certificate.json") for run in runs]
    metric, task = certificates[0]["metric"], certificates[0]["task"]
    parts = [_part(run, certificate, metric) for run, certificate in zip(runs, certificates, strict=True)]
    if (len({one["cluster"] for one in parts}) < len(parts) or len({one["of"] for one in parts}) > 1
            or len({certificate["metric"] for certificate in certificates}) > 1):
        raise UserError("These runs do not leave out different clusters of the same rows, or have other goals.",
                        wanted="runs of one recipe that differ in data.split.leave_out.cluster alone")
    references = [line["reference"] for run in runs for line in run.lines("evaluation", "predictions.jsonl")]
    bootstrap = Bootstrap(len(references), resamples, seed)
    before, after = base_and_tuned(task, metric, references, [answers_of(runs, name) for name in ("base", "tuned")],
                                   bootstrap)
    base, tuned = (measured.interval((0.0, 1.0)) for measured in (before, after))
    gain = (after - before).interval((-1.0, 1.0))
    checks = checks_of(Goal(**decided_here(certificates[0]["goal"])), metric, tuned, {"base": gain}, len(references))
    verdict = verdict_of([check["verdict"] for check in checks])
    return {"schema_version": SCHEMA_VERSION, "metric": metric, "rows": len(references),
            "clusters": [{key: value for key, value in one.items() if key != "of"} for one in parts],
            "skipped": [one.to_json() for one in skipped], "base": base.to_json(), "tuned": tuned.to_json(),
            "gain": gain.to_json(), "verdict": verdict, "checks": checks,
            "sentence": f"{verdict.upper()}: {_sentence(metric, len(references), parts, tuned, gain)}"}


def write(runs: Sequence[RunFolder], found: dict[str, Any]) -> Path:
    """Keep what was found beside the runs, under the first one's name, and in each of them, for its report."""
    return write_together(runs, found, "clusters", LEFT_OUT)


def lines(found: dict[str, Any]) -> list[str]:
    """For the terminal: the verdict, and what is not in it."""
    return [found["sentence"], *(f"Not left out: {one['why']}." for one in found["skipped"])]


def _part(run: RunFolder, certificate: dict[str, Any], metric: str) -> dict[str, Any]:
    """One cluster, by the certificate of the run that did not see it."""
    left = run.read("record.json")["recipe_used"]["data"].get("split", {}).get("leave_out") or {}
    report = run.read("data", "report.json")
    if left.get("cluster") is None:
        raise UserError(f"{run.path} leaves out no cluster.", wanted="a run of tuneloop run --leave-out-clusters")
    [gain] = [one for one in certificate["differences"] if one["metric"] == metric and one["from"] == "base"]
    return {"cluster": left["cluster"], "of": left["clusters"], "words": report["clusters"][left["cluster"]]["words"],
            "run": run.path.name, "rows": certificate["test_rows"], "training_rows": report["split"]["train"],
            **{name: certificate["scores"][name][metric] for name in ("base", "tuned")},
            "gain": {end: gain[end] for end in ("value", "low", "high")}}


def _sentence(metric: str, rows: int, parts: Sequence[dict[str, Any]], tuned: Interval, gain: Interval) -> str:
    sure = "better than the base" if gain.low > 0 else "worse than the base" if gain.high < 0 else (
        "not certainly better than the base")
    worst = min(parts, key=lambda one: one["tuned"]["value"])
    return (f"On {rows:,} test rows in {len(parts)} clusters, each answered by a model that was trained without its "
            f"cluster, the recipe is {sure}: {metric} {tuned.value:.1%} (95 % interval {tuned.low:.1%} to "
            f"{tuned.high:.1%}), {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}); "
            f"lowest on {_named(worst)}, {worst['tuned']['value']:.1%} of {worst['rows']:,} rows.")


def _named(part: dict[str, Any]) -> str:
    return f"cluster {part['cluster']}" + (f" ({', '.join(part['words'])})" if part["words"] else "")


def _listed(skipped: Sequence[Skipped]) -> str:
    return "; ".join(f"{one.cluster.name}: {one.why}" for one in skipped) + "."
