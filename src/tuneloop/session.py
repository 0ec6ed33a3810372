"""A loaded model during a run: answers before training, trains, answers after. What of the run needs torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop import needs
from tuneloop.adapters import require_same_base, weight_bytes, write_belonging
from tuneloop.any_model import asking, identity_of, identity_of_tuned, loaded_as, run_called
from tuneloop.compute.check import Packing, choose_packing, confirm_packing
from tuneloop.compute.model import ForestModel
from tuneloop.data.versions.learnt import LEARNS, read_learnt, write_learnt
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.evaluation.answers import choose_preferred, with_likelihood
from tuneloop.evaluation.asking import Asked, NotFiniteError, ask
from tuneloop.evaluation.cost import Spent
from tuneloop.inference.local import Local, generate, in_use
from tuneloop.models.aliases import published_name
from tuneloop.models.load import device, load_model
from tuneloop.models.shape import read_shape
from tuneloop.plan.fitting import advice
from tuneloop.plan.make import Plan
from tuneloop.record import RunFolder, read_json, write_json
from tuneloop.training.checkpoint import newest_step, publish, trainable
from tuneloop.training.loop import Settings, fit
from tuneloop.training.online import Online
from tuneloop.training.online import Settings as Rounds
from tuneloop.training.optimizer import check_optimizer
from tuneloop.training.watch import Watcher
from tuneloop.types import Answers, Group, Sampling, request_of, tools_of

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.grading.graders.base import Scorer
    from tuneloop.methods.base import MethodSpec
    from tuneloop.prepared import Prepared


class Session:
    """The base of a run in memory, and what it becomes."""

    def __init__(self, ready: Prepared, plan: Plan, folder: RunFolder, watch: Watcher,
                 base: nn.Module | None = None) -> None:
        """`base`: as `load_model` gives it, where it is in memory already."""
        self.ready, self.plan, self.folder, self.watch = ready, plan, folder, watch
        self.method = ready.recipe.method
        check_optimizer(plan["training.optimizer"], device().type)
        if base is None:
            base = load_model(ready.base.path, **self.method.load_options())
        branches = [branch for group in ready.rows.groups["train"] for branch in group.branches]
        self.packing: Packing = choose_packing(base, sorted(branches, key=len),
                                               share=self.method.exact_when_shared)
        watch.say(self.packing.why)
        self.trained_as: dict[str, Any] = folder.read("record.json").get("packing", asdict(self.packing))
        if not folder.has(self.method.artefact):        # what was trained stays recorded as it was
            folder.update_record(packing=asdict(self.packing))
        self.model = ForestModel(base, self.packing.mode)
        self.trained = False
        if ready.rewards is not None:
            ready.rewards.means.open_scorer = self.score

    def train(self, look: Callable[[int], None] | None = None) -> None:
        """Fit the method's parameters; the run folder then holds what was trained.

        `look` is called with the step after every look at the validation loss, instead of sampling answers.
        """
        if self.folder.has(self.method.artefact):
            return
        recipe, rows = self.ready.recipe, self.ready.rows
        train, validation = self.set_up(rows.groups["train"], rows.groups["validation"])
        settings = self.settings()
        self._rewind()
        if not recipe.online and not newest_step(self.folder.file("checkpoints")):
            self.watch.say("the longest batch is tried before the first step")
        self.watch.stage("training", settings.steps)
        progress = fit(self.model, recipe.objective, self._rounds(settings) if recipe.online else train, validation,
                       settings,
                       self.folder.file("checkpoints"), report=self._report, look=look or self._sample)
        self._publish()
        self.folder.update_record(training=self._summary(asdict(progress)),
                                  trainable_parameters=sum(p.numel() for p in trainable(self.model).values()))

    def set_up(self, train: Sequence[Group], validation: Sequence[Group]) -> tuple[Sequence[Group], Sequence[Group]]:
        """Apply the method to the base; returns the groups with every column that the objective needs."""
        recipe, plan = self.ready.recipe, self.plan
        if not recipe.online:
            train, validation = needs.add_columns(self, train, validation)
        scalar = needs.scalar_head(self.model.model, recipe.objective, recipe.training_seed)
        branches = sorted((branch for group in train for branch in group.branches), key=len)
        tuned = self.method.apply(self.model.model, recipe.training_seed, branches)
        if self.method.artefact == "adapter":       # layers of its own may not share as the base's do
            self.packing = confirm_packing(tuned, branches, self.packing)
            self.folder.update_record(packing=asdict(self.packing))
        self.model = ForestModel(tuned, self.packing.mode, scalar)
        self.trained = True
        if "old_values" in recipe.objective.needs and not recipe.online:
            train, validation = (needs.add_old_values(self.model, groups, plan["training.token_budget"],
                                                      self.packing.share) for groups in (train, validation))
        return train, validation

    def settings(self) -> Settings:
        """The hyperparameters of the plan, and what it expects of memory."""
        plan, ready = self.plan, self.ready
        values = {name: plan[f"training.{name}"] for name in (
            "batch_size", "learning_rate", "schedule", "warmup", "weight_decay", "max_grad_norm", "token_budget",
            "evaluate_every", "checkpoint_every", "patience", "checkpointing", "optimizer")}
        peak = ready.peak(plan)
        return Settings(steps=plan.steps, share=self.packing.share, seed=ready.recipe.training_seed,
                        advice=lambda: advice(peak, ready.work.longest(self.packing.share), plan.limit_bytes),
                        expects=lambda tokens: peak.at(tokens).total_bytes,
                        memory_bytes=plan.limit_bytes, **values)

    def _rounds(self, settings: Settings) -> Online:
        """Where a policy's own answers come from."""
        ready, rewards = self.ready, self.ready.rewards
        assert rewards is not None
        rounds = Rounds(ready.recipe.rollouts, settings.batch_size, settings.token_budget, settings.share,
                        settings.seed)
        policy = Local(self.model.model, ready.tokenizer, name="policy", packing=self.packing,
                       adapter=in_use(self.model.model))
        return Online(policy, self.model, lambda: self.method.reference(self.model.model), ready.recipe.objective,
                      ready.rows.train, ready.rows.validation, rewards.score, rounds, self.folder.file("rollouts"),
                      report=self._report)

    def score(self, run: str) -> Scorer:
        """The reward model of a run, on the base in memory."""
        from tuneloop.reward_model import LearntReward

        found = run_called(run, self.ready.recipe.root / "runs")
        if found is None:
            raise UserError(f"There is no run '{run}', whose reward model rewards asks.")
        learnt = LearntReward(found, self.ready.base.path, self.ready.tokenizer)
        return lambda cases: learnt.score(self.model.model, cases, self.packing, self.plan["training.token_budget"])

    @property
    def answering(self) -> tuple[str, ...]:
        """Who can be asked now: base and tuned model, one of them, or both where an adapter can be left out."""
        if not self.trained:
            return ("base",)
        return ("base", "tuned") if self.method.artefact == "adapter" else ("tuned",)

    def backend(self, name: str) -> Local:
        """The base, or the tuned model, to be asked anything; the base only before training where all of it trains."""
        if name == "tuned":
            self._load_tuned()
        elif name not in self.answering:
            raise RuntimeError(f"{name} is gone: all of it was trained")
        base, tuned = self.ready.base.path, self.folder.file(self.method.artefact)
        return Local(self.model.model, self.ready.tokenizer, name=name, packing=self.packing,
                     token_budget=self.plan["training.token_budget"],
                     identity=identity_of(base, base, more=loaded_as(self.method)) if name == "base" else
                     identity_of_tuned(base, tuned, self.method) if tuned.is_dir() else "in training",
                     adapter=in_use(self.model.model) if name == "tuned" else None)

    def answer(self, name: str) -> Asked:
        """The model's answers to the test rows, as it stands."""
        if name == "tuned":
            self._load_tuned()
        ready = self.ready
        options: dict[str, Any] = {"token_budget": self.plan["training.token_budget"], "share": self.packing.share}
        self.watch.stage({"base": "baseline"}.get(name, "evaluation"), len(ready.test))
        began = time.perf_counter()
        if ready.rows.task == "pairs":
            by_reward = self.model.scalar is not None and "scores" in ready.recipe.objective.needs
            answers = choose_preferred(name, self.model, ready.test_groups, ready.test, by_reward=by_reward,
                                       progress=self.watch.advance, **options)
            return Asked(self._finite(answers), "preferred", Spent(time.perf_counter() - began))
        requests = list(map(request_of, ready.test))
        sampling = Sampling(max_new_tokens=ready.recipe.evaluation.max_new_tokens)
        backend = self.backend(name)
        with asking(backend) if name == "base" else nullcontext(backend) as model:      # a tuned one is asked once
            try:
                found = ask(model, requests, ready.references, ready.rows.labels, sampling, name=name, likelihood=False,
                            progress=self.watch.advance)
            except NotFiniteError:
                raise self._not_finite(name) from None
        if ready.rows.task == "open":
            found = replace(found, answers=with_likelihood(found.answers, self.model, ready.test_tokens, **options))
        return replace(found, answers=self._finite(found.answers))

    def _load_tuned(self) -> None:
        """The tuned model of a resumed run that had finished training."""
        if self.trained:
            return
        artefact = self.folder.file(self.method.artefact)
        scalar = needs.scalar_head(self.model.model, self.ready.recipe.objective,
                                   self.ready.recipe.training_seed)
        self.packing = Packing(**self.trained_as)
        self.model = ForestModel(self.method.load(self.model.model, artefact), self.packing.mode,
                                 needs.load_scalar(scalar, artefact, self.ready.recipe.objective))
        self.trained = True

    def _finite(self, answers: Answers) -> Answers:
        """`answers`, or an error where the model computes no probabilities: what it says then means nothing."""
        if all(map(math.isfinite, answers.nll or [])):
            return answers
        raise self._not_finite(answers.name)

    def _not_finite(self, name: str) -> UserError:
        if name == "base":
            return UserError(f"{self.ready.recipe.base} gives no finite probabilities for the test rows: its weights "
                             "hold numbers that are not finite, or its precision overflows.",
                             fix="fetch the base again")
        return TrainingFailed("The tuned model gives no finite probabilities for the test rows.",
                              fix="start a new run with a lower training.learning_rate")

    def _publish(self) -> None:
        def write(into: Any) -> None:
            self.method.save(self.model.model, into)
            _make_portable(into, published_name(self.ready.given["base"]))
            needs.save_scalar(self.model.scalar, into, self.ready.recipe.objective)
            self.ready.tokenizer.save(into)
            base = self.ready.base.path
            write_belonging(into, published_name(self.ready.given["base"]), self.ready.weights["base"],
                            read_shape(base).parameters, self.method.model_dump(mode="json"))
            write_learnt(into, [*read_learnt(base), *(o.row for part in LEARNS for o in self.ready.rows.seen[part])])

        artefact = self.folder.file(self.method.artefact)
        publish(artefact, write)
        self.folder.update_record(adapter_bytes=weight_bytes(artefact))

    def _rewind(self) -> None:
        """Take back what a run that was cut off reported after its newest checkpoint: those steps are done again."""
        done = newest_step(self.folder.file("checkpoints"))
        for name in ("metrics.jsonl", "samples.jsonl"):
            if self.folder.has(name):
                self.folder.write_lines([line for line in self.folder.lines(name) if line["step"] <= done], name)

    def _report(self, entry: dict[str, Any]) -> None:
        self.folder.append(entry, "metrics.jsonl")
        self.watch.metric(entry)

    def _sample(self, step: int) -> None:
        """Answers to the same few validation prompts at every look, to read along; a reward model writes none."""
        chosen = self.ready.rows.validation[:self.plan["training.sample_prompts"]]
        if not chosen or "scores" in self.ready.recipe.objective.needs:
            return
        completions = generate(self.model.model, self.ready.tokenizer, [row.prompt for row in chosen],
                               Sampling(max_new_tokens=64), tools=[tools_of(row) for row in chosen])
        for row, completion in zip(chosen, completions, strict=True):
            entry = {"step": step, "prompt": row.prompt[-1].content, "reference": row.answer, "answer": completion.text,
                     "origin": asdict(row.origin)}
            self.folder.append(entry, "samples.jsonl")
            self.watch.sample(entry)

    def _summary(self, progress: dict[str, Any]) -> dict[str, Any]:
        return {"steps": progress["step"], "best_step": progress["best_step"],
                "best_validation_loss": progress["best_loss"], "stopped_early": progress["stopped_early"],
                **({"why": progress["why"]} if progress["why"] else {}),
                "tokens": progress["tokens"], "seconds": round(progress["seconds"], 1),
                "cpu_seconds": round(progress["cpu_seconds"], 1), "peak_memory_bytes": progress["peak_memory_bytes"],
                "reserved_memory_bytes": progress["reserved_memory_bytes"], "measured_by": progress["measured_by"],
                "expected": {"seconds": self.plan.seconds["training"],
                             "peak_memory_bytes": self.plan.memory.total_bytes}}


def _make_portable(folder: Path, base: str) -> None:
    """Name the base in an adapter's files as others know it, not by its place on this machine; no empty model card."""
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / "adapter_config.json"
    if config.is_file():
        write_json(config, read_json(config) | {"base_model_name_or_path": base})


def trained_folder(folder: RunFolder, method: MethodSpec) -> Path:
    """What a run's training left, or a UserError where there is nothing that answers."""
    artefact = folder.file(method.artefact)
    if not artefact.is_dir():
        raise UserError(f"{folder.path} has no trained model yet.",
                        fix=f"finish it: tuneloop run --resume {folder.path}")
    if (artefact / needs.REWARD_FILE).exists():
        raise UserError(f"{folder.path} trained a reward model, which scores answers and writes none.",
                        wanted="a run of another objective")
    return artefact


def open_run(folder: RunFolder, *, whole_base: bool = False, **options: Any) -> tuple[nn.Module, Any]:
    """The tuned model of a run and its tokenizer, ready to answer.

    `whole_base` loads a base in full precision that was quantised in training: an adapter can be merged only into that.
    `options` are those of `load_model`.
    """
    from tuneloop.models.resolve import resolve
    from tuneloop.models.tokenizer import ChatTokenizer
    from tuneloop.recipe import load

    recipe = load(folder.file("recipe.yaml"), run_own_code=False)
    artefact = trained_folder(folder, recipe.method)
    base = resolve(recipe.base, recipe.root).path
    if recipe.method.artefact == "adapter":     # a whole model needs no base
        require_same_base(artefact, base)
    model = load_model(base, **({} if whole_base else recipe.method.load_options()) | options)
    return recipe.method.load(model, artefact).eval(), ChatTokenizer(artefact)
