"""What is known of a run before a weight is loaded: its rows, tokens, test rows and plan. Needs no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.data.canaries import check_canaries
from tuneloop.data.leave_out import share_of
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.versions.learnt import knows, read_learnt
from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import goal_metric
from tuneloop.evaluation.flags import flags_of, require_both
from tuneloop.evaluation.judged import read_policies
from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.suites.local import require_suites
from tuneloop.grading.rewards import Rewards
from tuneloop.models.resolve import Base, resolve
from tuneloop.models.shape import read_shape, weights_sha256
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.objectives.base import REDUCERS
from tuneloop.plan import auto, calibration, hardware, make, serve
from tuneloop.plan.job import Job, job_of
from tuneloop.plan.make import Plan
from tuneloop.plan.times import Beside
from tuneloop.recipe import Recipe
from tuneloop.record import Value
from tuneloop.training.rollout_spec import RolloutSpec
from tuneloop.training.watch import Watcher
from tuneloop.types import Conversation, Group, Rated, Rendered, Sample

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend
    from tuneloop.methods.base import MethodSpec

PERTURBED_ROWS = 100        # test rows that are asked again with changes
ASKED = frozenset({"reference_logprobs", "old_logprobs", "teacher"})     # needs that cost a pass over the rows


class Prepared:
    """Everything that is known before a weight is loaded: the first two stages."""

    def __init__(self, recipe: Recipe, watch: Watcher, given: dict[str, Any] | None = None, *,
                 choose: bool = True) -> None:
        """`given`: the recipe as it was written, where `recipe` is a resumed run's, with absolute paths. `choose`:
        whether a method that is left to the plan is chosen now, for this machine.
        """
        self.recipe, self.watch, self.given = recipe, watch, given or recipe.given
        self.policies = read_policies(recipe.evaluation.policies, recipe.root)
        self.suites = require_suites(recipe.evaluation.suites, recipe.root)
        self.base: Base = resolve(recipe.base, recipe.root, say=watch.say)
        self.shape = read_shape(self.base.path)
        recipe.method.check(self.shape)
        self.tokenizer = ChatTokenizer(self.base.path)
        if recipe.data.canaries:
            check_canaries(recipe.row_kind, writes="scores" not in recipe.objective.needs)
        data = recipe.data      # a policy writes its answers, even where the right ones look like labels
        if recipe.online and data.answers == "auto":
            data = data.model_copy(update={"answers": "open"})
        self.rows: Rows = prepare(data, recipe.root, self.tokenizer,
                                  self.tokenizer.max_length - recipe.method.slots, recipe.seed,
                                  recipe.row_kind, self.given["data"], recipe.evaluation.columns,
                                  keep_items=bool(recipe.rewards))
        if not self.rows.test:
            raise UserError("No test rows are held out, so nothing could be said about the result.",
                            fix="set data.split.test, or name a file with data.test")
        self.asked = {need: self._other_model(name) for need, name in recipe.objective.asks.items()}
        if recipe.objective.compares and not recipe.online and not any(row.has_contrast for row in self.rows.train):
            raise UserError("No prompt of the training rows has answers with different rewards, so this objective can "
                            "learn nothing from them.", wanted="several sampled answers of each prompt",
                            fix="set objective=ppo, or add answers that are better or worse than those")
        if self.rewards is not None:
            self.rewards.check(self.rows.train)
        if recipe.online and "reference_logprobs" in recipe.objective.needs:
            self._check_reference()
        self.metric = goal_metric(recipe.goal, self.rows.task)
        recipe.evaluation.check_measures(recipe.goal, self.rows.task, writes="scores" not in recipe.objective.needs)
        self.tested = _drawn(_models_to_follow(self.rows.test), self._rows_wanted, recipe.seed)
        self.flags = self._flags()
        self.chosen: Value | None = None        # the method, where the recipe leaves it to the plan
        if recipe.auto and choose:
            self._choose_method()

    def _check_reference(self) -> None:
        """A policy that samples its own answers is held to the base, which only an adapter leaves as it was."""
        if "reference_logprobs" in self.asked:
            raise UserError("objective.reference names another model, and sampled answers are held to the base alone.",
                            fix="leave it out, or set objective.beta=0")
        if self.recipe.method.artefact != "adapter":
            raise UserError("This method changes the base itself, so there is no reference left to hold answers to.",
                            wanted="method: lora, or objective.beta=0", fix="choose one of them")

    def _other_model(self, name: str) -> Base:
        """A reference model or teacher, which must know the base's tokens."""
        found = resolve(name, self.recipe.root, say=self.watch.say)
        self.tokenizer.check_same_tokens(ChatTokenizer(found.path), name)
        return found

    @property
    def _left_out(self) -> int | None:
        """The cluster of rows that is left out of training, where one is."""
        left = self.recipe.data.split.leave_out
        return left.cluster if left else None

    @property
    def _rows_wanted(self) -> int | None:
        """Test rows to score; of a cluster that is left out its share of them."""
        wanted, left = self.recipe.evaluation.rows, self._left_out
        return wanted if left is None else share_of(wanted, self.rows.report.clusters, left)

    def _flags(self) -> list[bool] | None:
        """Which test rows the user says are out of distribution; None where the recipe names no column, or where a
        cluster of rows is left out and is all of one kind.
        """
        column = self.recipe.evaluation.out_of_distribution
        if column is None:
            return None
        every = flags_of(self.rows.test, self.rows.columns[column], column)
        flags = [every[i] for i in self.tested]
        if self._left_out is not None and len(set(flags)) < 2:
            return None
        require_both(flags, "hold out more with data.split.test, or name a file with data.test")
        return flags

    @property
    def slices(self) -> dict[str, list[Any]]:
        """What the columns of evaluation.slices say of each row of `test`."""
        return {name: [self.rows.columns[name][i] for i in self.tested] for name in self.recipe.evaluation.slices}

    @property
    def notes(self) -> list[str]:
        """What cannot be told of these test rows, though the recipe asks for it."""
        alone = [name for name, values in self.slices.items() if len(set(map(str, values))) == 1]
        told = [f"The column {name} says the same of all test rows, so it makes no slices." for name in alone]
        if self.recipe.evaluation.out_of_distribution and self.flags is None:
            told.append("The test rows of this cluster are all flagged as out of distribution, or none is, so they are "
                        "not compared by that.")
        return told

    @cached_property
    def rewards(self) -> Rewards | None:
        """What rewards answers, in training and in the metric `reward`; None where the recipe has none. Models that
        grade are opened when they are asked first.
        """
        return Rewards(self.recipe.rewards, self._open_judge, self.rows.items) if self.recipe.rewards else None

    def _open_judge(self, name: str, key_env: str) -> Backend:
        from tuneloop.any_model import open_any

        recipe = self.recipe
        return open_any(recipe.portable_model(name), recipe.root / "runs", key_env=key_env, say=self.watch.say)

    @cached_property
    def weights(self) -> dict[str, str]:
        """sha256 of the weights of the base, and of the models asked, by need."""
        return {"base": weights_sha256(self.base.path),
                **{need: weights_sha256(other.path) for need, other in self.asked.items()}}

    @cached_property
    def leaks(self) -> list[str]:
        """A warning where the base has been trained with rows that are to test it, as far as its folder says."""
        learnt = read_learnt(self.base.path)
        known = sum(knows(learnt, row.origin.row) for row in self.test)
        return [f"The base was trained with {known:,} of these {len(self.test):,} test rows, which flatters base and "
                "tuned model alike: judge them on rows that neither has seen."] if known else []

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

    def _choose_method(self) -> None:
        """Put the method that the plan chooses into the recipe."""
        refused = {}
        for kind in auto.KINDS:
            method = auto.method_named(kind)
            try:
                method.check(self.shape)
                plan = self.plan_for(method)
                over = plan.memory.total_bytes > plan.limit_bytes
                refused[kind] = plan.notes[0] if over else ""
            except UserError as error:
                refused[kind] = error.found
        kind, why = auto.choose(refused, auto.Circumstances(
            len(self.rows.train), self.recipe.goal.max_forgetting is not None, self.recipe.deploy))
        self.chosen = Value(kind, "planned", why)
        self.recipe = replace(self.recipe, method=auto.method_named(kind), auto=False,
                              given=self.recipe.given | {"method": kind})

    @cached_property
    def machine(self) -> hardware.Hardware:
        """This machine, measured once."""
        return hardware.here()

    def plan(self) -> Plan:
        """What will be done and what it costs; refuses a base that does not fit."""
        plan = self.plan_for(self.recipe.method)
        values = {"method": self.chosen} | plan.values if self.chosen else plan.values
        return replace(plan, values=values, notes=[*plan.notes, *self._serving_notes()])

    def job(self) -> Job:
        """What a run computes, whether or not it fits here."""
        method = self.recipe.method
        plan = make.make(self.recipe.training, method, self.shape, self.work, self.machine)
        return job_of(self.work, plan, method.exact_when_shared)

    def _serving_notes(self) -> list[str]:
        """What of the recipe's `deploy` this base cannot keep to."""
        deploy = self.recipe.deploy
        if deploy.memory_gb is None and deploy.p95_ms is None:
            return []
        where = self.served_on
        misses = serve.serving(self.shape, deploy, self.job(), where).misses(deploy)
        return [f"served on {where.name}, this base takes {miss}: choose a smaller one" for miss in misses]

    @cached_property
    def served_on(self) -> hardware.Hardware:
        """The machine of `deploy.on`; this one unless given."""
        name = self.recipe.deploy.on
        if name is None or name == "here":
            return replace(self.machine, bandwidth_bytes_per_second=hardware.bandwidth_here())
        return hardware.named(name)

    def plan_for(self, method: MethodSpec) -> Plan:
        """The plan if this method trained."""
        shape, machine, recipe = self.shape, self.machine, self.recipe
        loaded = method.memory(shape).base_bytes
        make.check_fits(shape, machine, recipe.base, loaded)
        for other in self.asked.values():
            make.check_fits(read_shape(other.path), machine, other.name, beside=loaded)
        return make.make(recipe.training, method, shape, self.work, machine, self.measured(method))

    def measured(self, method: MethodSpec) -> make.Fits:
        """What `tuneloop plan --calibrate` measured of this base and method here, with checkpointing or without."""
        if not calibration.any_kept():      # then nobody need read all weights for their hash
            return lambda checkpointing: None
        return lambda checkpointing: calibration.known(self.calibrated_as(method, checkpointing))

    def calibrated_as(self, method: MethodSpec, checkpointing: bool) -> str:
        """The name of such a measurement."""
        return calibration.key(self.weights["base"], method.model_dump(mode="json"),
                               optimizer=self.recipe.training.optimizer, checkpointing=checkpointing)

    def peak(self, plan: Plan) -> make.Peak:
        """The peak of training by the tokens that are computed at once."""
        recipe = self.recipe
        return make.peak_of(recipe.method, self.shape, self.work, plan["training.checkpointing"],
                            plan["training.optimizer"], plan["training.batch_size"], self.measured(recipe.method))

    @cached_property
    def work(self) -> make.Workload:
        """What there is to compute."""
        recipe = self.recipe
        judged = self.test_groups if self.rows.task == "pairs" else [Group((row,)) for row in self.test_tokens]
        train, validation = self.rows.groups["train"], self.rows.groups["validation"]
        passes = len(recipe.objective.needs & ASKED)
        if recipe.online:
            train, validation, passes = [_sampled(group, recipe.rollouts) for group in train], [], 0
        return make.Workload(train, validation, judged, self.choices, recipe.evaluation.max_new_tokens, passes,
                             recipe.objective.pace, self._beside(), recipe.objective.needs & REDUCERS)

    def _beside(self) -> Beside:
        """What is asked beside the test rows of base and tuned model, as in `contest`."""
        spec, goal, writes = self.recipe.evaluation, self.recipe.goal, "scores" not in self.recipe.objective.needs
        asks, rows = self.rows.task != "pairs" and writes, len(self.test)
        bounds = {"drop": goal.max_safety_drop, "retention": goal.max_forgetting}
        needed = {name for name in spec.suites if bounds["drop" if name in SAFETY else "retention"] is not None}
        judged = min(rows, spec.judged_rows or rows) if isinstance(spec.judge, str) and "://" not in spec.judge else 0
        return Beside(
            few_shot=spec.few_shot if asks else 0, prompt_search=spec.prompt_search if asks else 0,
            rivals=sum(isinstance(name, str) for name in spec.compare_to) if asks else 0,
            suites=tuple(spec.suites) if writes else (), suite_items=spec.suite_items, needed=frozenset(needed),
            perturbed=min(rows, PERTURBED_ROWS) * (1 + len(spec.perturb)) if spec.perturb and asks else 0,
            extracted=spec.extraction if writes else 0, judged=2 * judged,
            samples=self.recipe.training.sample_prompts if writes else 0, minutes=spec.minutes)


def _sampled(group: Group, spec: RolloutSpec) -> Group:
    """As large as the answers that will be sampled to a prompt can be; what they say is not known yet."""
    row = group.branches[0]
    prompt, new = row.ids[:len(row) - len(row.last_answer)], spec.max_new_tokens
    weights = np.concatenate([np.zeros(len(prompt), np.float32), np.ones(new, np.float32)])
    return Group(tuple(Rendered(np.concatenate([prompt, np.full(new, i)]), weights) for i in range(spec.per_prompt)))


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
