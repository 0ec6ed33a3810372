"""Remedies for forgetting: what can be done about a run whose result lost too much of what its base knew.

- scale: the adapter's change of the base times a factor below 1. Nothing is trained: the best factor is found on
  validation rows and on the retention suites, never on test rows, and a new run certifies the scaled adapter. The base
  and the adapter are the ends of a line in the space of weights (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903).
- replay: general rows among the training rows.
- kl: a pull to the base in the loss.
- rate: a third of the learning rate.

The last three are changed recipes beside the run's own. What each costs and cannot do stands in docs/forgetting.md.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Bootstrap, Interval
from tuneloop.evaluation.suites.catalog import RETENTION, Forgetting
from tuneloop.record import RunFolder, read_json, write_atomic, write_json
from tuneloop.types import Conversation

if TYPE_CHECKING:
    from tuneloop.any_model import Waiting
    from tuneloop.prepared import Prepared
    from tuneloop.recipe import Recipe
    from tuneloop.training.watch import Watcher

SCALES = (0.25, 0.5, 0.75, 1.0)
BARE = 0.0              # the scale at which a model is its base
ROWS = 200              # validation rows that choose the scale
GENERAL, SHARE, MOST = "builtin:general", 0.1, 0.5      # rows to mix in, their share of the training rows, the most
PULL = 1.0              # of sft's kl: docs/forgetting.md
SLOWER = 3              # the learning rate is divided by this
ALPHA = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
"""Tuners of PEFT whose change of a weight is linear in a scale, alpha / rank, and where their configuration has it."""

Given = dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """A remedy as it would be for one run."""

    by: str
    what: str
    costs: str
    refused: str = ""       # why this run cannot have it

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Point:
    """What the model is with its adapter at one scale."""

    scale: float
    score: Interval         # of the run's metric, on validation rows
    forgetting: Forgetting | None

    def within(self, bound: float) -> bool:
        """Whether the measured drop is within the bound; its interval may still reach beyond."""
        return self.forgetting is not None and self.forgetting.drop.value <= bound


@dataclass(frozen=True)
class Sweep:
    """The scales that were tried, the base (0) first, and which of them is chosen."""

    metric: str
    rows: int               # validation rows
    bound: float            # the goal's max_forgetting
    points: tuple[Point, ...]
    chosen: Point | None    # None: at no scale the drop is within the bound

    @property
    def sure(self) -> bool:
        """Whether the whole interval of the chosen scale's forgetting is within the bound."""
        found = self.chosen.forgetting if self.chosen else None
        return found is not None and found.drop.high <= self.bound

    def to_json(self) -> dict[str, Any]:
        points = [{"scale": p.scale, "score": p.score.to_json(),
                   "forgetting": p.forgetting.to_json() if p.forgetting else None} for p in self.points]
        return {"metric": self.metric, "validation_rows": self.rows, "max_forgetting": self.bound, "scales": points,
                "chosen": self.chosen.scale if self.chosen else None, "sure": self.sure}


class Patient:
    """A finished run that forgot too much, or may have."""

    def __init__(self, folder: RunFolder) -> None:
        from tuneloop.recipe import load
        from tuneloop.session import trained_folder

        self.folder = folder
        self.recipe: Recipe = load(folder.file("recipe.yaml"))
        self.artefact = trained_folder(folder, self.recipe.method)
        self.record: Given = folder.read("record.json")

    @cached_property
    def forgotten(self) -> Forgetting | None:
        """What the certificate says; None where the run asked no retention suite or has none yet."""
        found = self.folder.read("certificate.json").get("forgetting") if self.folder.has("certificate.json") else None
        return Forgetting(Interval(**found["drop"]), found["by_suite"], found["items"]) if found else None

    def bound(self, asked: float | None) -> float:
        """How much may be forgotten: as asked for, or by the goal."""
        found = self.recipe.goal.max_forgetting if asked is None else asked
        if found is None:
            raise UserError(f"The goal of {self.folder.path.name} does not bound what may be forgotten.",
                            fix="say how much, such as --max-forgetting 0.02")
        return found

    def offers(self) -> list[Offer]:
        """Every remedy, in the order of what it costs."""
        training = self.record.get("timings_seconds", {}).get("training")
        again = f"trains again, as long as before ({training / 60:,.1f} min)" if training else "trains again"
        told = {
            "scale": ("the adapter's change of the base × " + ", ".join(f"{scale:g}" for scale in SCALES),
                      f"no training: at most {ROWS} validation rows and the {len(RETENTION)} retention suites, asked "
                      f"{len(SCALES)} times"),
            "replay": (f"{SHARE:.0%} general rows among the training rows", f"{again}, and {SHARE:.0%} more for them"),
            "kl": ("a pull to the base in the loss", f"{again}, and a pass of the base over the training rows"),
            "rate": (f"a learning rate of {self.learning_rate / SLOWER:.3g} instead of {self.learning_rate:.3g}",
                     again)}
        return [Offer(by, what, costs, self._refusal(by)) for by, (what, costs) in told.items()]

    def _refusal(self, by: str) -> str:
        try:
            self.alpha_key() if by == "scale" else CHANGES[by](self)
        except UserError as error:
            return error.text
        return ""

    @property
    def learning_rate(self) -> float:
        """That of the plan, which is the recipe's where it gives one."""
        from tuneloop.plan.make import Plan

        return float(Plan.from_json(self.folder.read("plan.json"))["training.learning_rate"])

    # ── scaling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def alpha_key(self) -> str:
        """Where the adapter's configuration has its scale. Raises a UserError where a scale would not lead to the base.
        """
        method, other = self.recipe.method, "choose another remedy: replay, kl or rate"
        file = self.artefact / "adapter_config.json"
        kind = read_json(file).get("peft_type", "") if file.is_file() else ""
        if kind not in ALPHA:
            called = f"{method.kind} ({kind})" if method.kind == "peft" else method.kind
            raise UserError(f"What method {called} trains has no scale that leads back to the base.",
                            wanted=f"an adapter of one of these: {', '.join(ALPHA)}", fix=other)
        if method.load_options() and getattr(method, "start", "") == "loftq":
            raise UserError("An adapter that starts by loftq also makes good what quantising the base lost, and scaled "
                            "down it would not.", fix=other)
        extras = _extras(read_json(file)) if kind == "LORA" else []
        if extras:
            raise UserError(f"This adapter is LoRA with {', '.join(extras)}, which its scale does not reach.",
                            wanted="an adapter of matrices alone", fix=other)
        return ALPHA[kind]

    def sweep(self, bound: float, watch: Watcher, *, rows: int = ROWS, items: int | None = None) -> Sweep:
        """Measure every scale: the run's metric on `rows` validation rows, and forgetting on `items` of each suite.

        The choice is the best score among the scales whose forgetting is within the bound; of equal ones the smallest.
        """
        from tuneloop.evaluation.cache import Cached
        from tuneloop.evaluation.suites.catalog import forgetting, run_suites
        from tuneloop.grading.metrics import METRICS
        from tuneloop.prepared import Prepared

        self.alpha_key()
        ready = Prepared(self.recipe, watch, self.record["recipe"])
        asked = _Validation(ready, rows, self.record)
        points: list[Point] = []
        before: Any = None
        for scale, backend in self._scaled(ready):
            watch.stage(f"scale {scale:g}", len(asked.rows))
            cached = Cached(backend, prepare=backend.load)
            try:
                score = asked.score(cached, watch.advance)
                watch.stage(f"suites {scale:g}", None)
                after = run_suites(cached, RETENTION, items, watch.advance)
            finally:
                cached.close()
            before = after if scale == BARE else before
            lost = forgetting(before, after, resamples=self.recipe.evaluation.resamples, seed=self.recipe.seed)
            points.append(Point(scale, score, lost))
        chosen = best_within(points, bound, METRICS[ready.metric].better == "lower")
        return Sweep(ready.metric, len(asked.rows), bound, tuple(points), chosen)

    def _scaled(self, ready: Prepared) -> Any:
        """(scale, backend) of the base and every scale. They share one model, so they are asked one after the other."""
        from tuneloop.any_model import Waiting, identity_of, open_any

        tuned = open_any(str(self.folder.path), self.folder.path.parent)
        assert isinstance(tuned, Waiting)
        options = str(sorted(self.recipe.method.load_options().items()))
        base = identity_of(ready.base.path, ready.base.path, more=options)      # as the run itself asked it
        for scale in (BARE, *SCALES):
            identity = {BARE: base, 1.0: tuned.identity}.get(scale, f"{tuned.identity}:scale={scale:g}")
            yield scale, Waiting(f"scale {scale:g}", identity, _loader(tuned, scale))

    def at_scale(self, sweep: Sweep) -> RunFolder:
        """A new run beside this one, which has everything of it up to its training, with the adapter scaled; the loop
        goes on from there.
        """
        from tuneloop.training.checkpoint import publish

        if sweep.chosen is None or sweep.chosen.scale == 1.0:
            raise ValueError("there is nothing to scale")
        key, scale = self.alpha_key(), sweep.chosen.scale
        made = RunFolder.create(f"{self.recipe.name}-x{scale:g}", self.folder.path.parent)
        for name in ("recipe.yaml", "plan.json", "metrics.jsonl", "data"):
            _copy(self.folder.file(name), made.file(name))
        timings = {stage: seconds for stage, seconds in self.record.get("timings_seconds", {}).items()
                   if stage not in ("baseline", "evaluation")}
        made.write(self.record | {"run": made.path.name, "timings_seconds": timings,
                                  "mended_from": {"run": self.folder.path.name, "by": "scale", **sweep.to_json()}},
                   "record.json")

        def write(into: Path) -> None:
            shutil.copytree(self.artefact, into, dirs_exist_ok=True)
            _scale_files(into, key, scale, self.folder.path.name)

        publish(made.file(self.recipe.method.artefact), write)
        return made

    # ── changed recipes ──────────────────────────────────────────────────────────────────────────────────────────────

    def changed(self, by: str, max_forgetting: float | None = None) -> Path:
        """Write the changed recipe beside the run's own, with `max_forgetting` in its goal if given."""
        given = CHANGES[by](self)
        given["name"] = f"{self.recipe.name}-{by}"
        if max_forgetting is not None:
            given["goal"] = {**(given.get("goal") or {}), "max_forgetting": max_forgetting}
        path = self.folder.file(f"mend-{by}.yaml")
        write_atomic(path, yaml.safe_dump(given, sort_keys=False, allow_unicode=True))
        return path

    @property
    def given(self) -> Given:
        """A copy of the run's recipe as it was given, with absolute paths."""
        return copy.deepcopy(self.recipe.portable())


def exceeded(certificate: Given) -> tuple[float, float] | None:
    """(drop, bound) where a certificate measured more forgetting than its goal allows; None where it did not."""
    bound, found = (certificate.get("goal") or {}).get("max_forgetting"), certificate.get("forgetting")
    if bound is None or not found or found["drop"]["value"] <= bound:
        return None
    return found["drop"]["value"], bound


def best_within(points: Sequence[Point], bound: float, lower_is_better: bool = False) -> Point | None:
    """The best score among the adapter's scales whose forgetting is within the bound; of equal ones the smallest."""
    sign = -1 if lower_is_better else 1
    fitting = [point for point in points if point.scale != BARE and point.within(bound)]
    return max(fitting, key=lambda point: (sign * point.score.value, -point.scale), default=None)


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def _replay(run: Patient) -> Given:
    """General rows mixed in; where they are already, twice as many."""
    if run.recipe.objective.batch_kind is not Conversation:
        raise UserError("The general rows are questions with answers, which this objective does not learn from.",
                        fix="mix in rows of its own kind: data.mix")
    given = run.given
    mixed = [dict(source) for source in given["data"].get("mix") or ()]
    general = next((source for source in mixed if source["from"] == GENERAL), None)
    if general is None:
        mixed.append({"from": GENERAL, "weight": SHARE})
    else:
        general["weight"] = min(2 * general["weight"], MOST)
    if sum(source["weight"] for source in mixed) > MOST:
        raise UserError(f"Other rows would be more than {MOST:.0%} of the training rows.", fix="choose another remedy")
    given["data"] = {**given["data"], "mix": mixed}
    return given


def _kl(run: Patient) -> Given:
    """A pull to the base; where the objective has one already, twice as strong."""
    options = {name: value for name, value in run.recipe.objective_record.items() if name != "sha256"}
    key = "kl" if options["kind"] == "sft" else "beta"
    pulls = "reference_logprobs" in run.recipe.objective.needs and isinstance(options.get(key), float)
    if not pulls and key == "beta":
        raise UserError(f"Objective {options['kind']} has no pull to a reference model that could be stronger.",
                        fix="choose another remedy")
    given = run.given
    named = given.get("objective")
    named = dict(named) if isinstance(named, dict) else {"kind": options["kind"]}
    given["objective"] = named | {key: 2 * options[key] if pulls else PULL}
    return given


def _rate(run: Patient) -> Given:
    given = run.given
    slower = float(f"{run.learning_rate / SLOWER:.3g}")
    given["training"] = {**(given.get("training") or {}), "learning_rate": slower}
    return given


CHANGES: dict[str, Callable[[Patient], Given]] = {"replay": _replay, "kl": _kl, "rate": _rate}
WAYS = ("scale", *CHANGES)


# ── validation rows ──────────────────────────────────────────────────────────────────────────────────────────────────

class _Validation:
    """The validation rows of a run that choose the scale."""

    def __init__(self, ready: Prepared, count: int, record: Given) -> None:
        from tuneloop.types import Rated

        if ready.rows.hashes != record["data"]["hashes"]:
            raise UserError("The rows are not those of the run any more, so its validation rows are not known.",
                            fix="put the old rows back")
        judged = [i for i, row in enumerate(ready.rows.validation) if not isinstance(row, Rated) or row.desirable]
        if not judged:
            raise UserError("The run held out no validation rows, and test rows must not choose the scale.",
                            fix="choose another remedy: replay, kl or rate")
        if count < len(judged):
            drawn = np.random.default_rng(ready.recipe.seed).choice(len(judged), count, replace=False)
            judged = [judged[i] for i in sorted(drawn.tolist())]
        self.ready = ready
        self.rows: list[Any] = [ready.rows.validation[i] for i in judged]
        tokens = ready.rows.tokens["validation"]
        self.references = [self._reference(row, tokens[i]) for row, i in zip(self.rows, judged, strict=True)]

    def _reference(self, row: Any, tokens: Any) -> str:
        """As of test rows: where the answer is a call, the text that the chat template makes of it."""
        if isinstance(row, Conversation) and row.messages[-1].calls:
            return self.ready.tokenizer.decode(tokens.last_answer.tolist(), special=False).strip()
        return str(row.answer)

    def score(self, backend: Any, progress: Callable[[int], None]) -> Interval:
        """The run's metric, with its interval."""
        from tuneloop.evaluation.asking import ask, ask_pairs
        from tuneloop.grading.metrics import METRICS, Options, View
        from tuneloop.types import Sampling, request_of

        recipe = self.ready.recipe
        requests = list(map(request_of, self.rows))
        if self.ready.rows.task == "pairs":
            asked = ask_pairs(backend, requests, self.references, [row.rejected for row in self.rows],
                              progress=progress)
        else:
            asked = ask(backend, requests, self.references, self.ready.rows.labels,
                        Sampling(recipe.evaluation.max_new_tokens), likelihood=False, progress=progress)
        metric = METRICS[self.ready.metric]
        options = Options(rewards=self.ready.rewards)
        statistic = metric.of(View(self.references, asked.answers, self.rows, options))
        [measured] = Bootstrap(len(self.rows), recipe.evaluation.resamples, recipe.seed).measure([statistic])
        return measured.interval(metric.within)


# ── adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────────

def set_scale(model: Any, scale: float) -> int:
    """Set what an adapter adds to `scale` times what it was trained to add; returns the number of layers.

    `scale` counts from the adapter's configuration, not from what was set before.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer) and hasattr(layer, "set_scale")]
    for layer in layers:
        for name in layer.scaling:
            layer.set_scale(name, scale)
    return len(layers)


def _loader(tuned: Waiting, scale: float) -> Callable[[], tuple[Any, Any]]:
    def load() -> tuple[Any, Any]:
        local = tuned.load()
        set_scale(local.model, scale)
        return local.model, local.tokenizer
    return load


def _scale_files(folder: Path, key: str, scale: float, run: str) -> None:
    """Put the scale into an adapter's configuration, for every tool that reads PEFT's layout, and note it beside it."""
    from tuneloop.adapters import BELONGS_TO

    config = read_json(folder / "adapter_config.json")
    config[key] *= scale
    config["alpha_pattern"] = {layer: alpha * scale for layer, alpha in (config.get("alpha_pattern") or {}).items()}
    write_json(folder / "adapter_config.json", config)
    noted = read_json(folder / BELONGS_TO)
    write_json(folder / BELONGS_TO, noted | {"scaled": {"by": scale, "from": run}})


def _extras(config: Given) -> list[str]:
    from tuneloop.inference.routed import EXTRAS

    return [name for name in EXTRAS if config.get(name)] + ([] if config.get("bias", "none") == "none" else ["biases"])


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        shutil.copyfile(source, target)
