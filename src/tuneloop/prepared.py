"""What is known of a run before a weight is loaded: its rows, tokens, test rows and plan. Needs no torch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tuneloop.data.canaries import check_canaries
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.versions.learnt import knows, read_learnt
from tuneloop.errors import UserError
from tuneloop.evaluation.certificate import goal_metric
from tuneloop.evaluation.judged import read_policies
from tuneloop.models.resolve import Base, resolve
from tuneloop.models.shape import read_shape, weights_sha256
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.plan import hardware, make
from tuneloop.plan.make import Plan
from tuneloop.recipe import Recipe
from tuneloop.training.watch import Watcher
from tuneloop.types import Conversation, Group, Rated, Rendered, Sample

ASKED = frozenset({"reference_logprobs", "old_logprobs", "teacher"})     # needs that cost a pass over the rows


class Prepared:
    """Everything that is known before a weight is loaded: the first two stages."""

    def __init__(self, recipe: Recipe, watch: Watcher, given: dict[str, Any] | None = None) -> None:
        """`given`: the recipe as it was written, where `recipe` is a resumed run's, with absolute paths."""
        self.recipe, self.watch, self.given = recipe, watch, given or recipe.given
        self.policies = read_policies(recipe.evaluation.policies, recipe.root)
        self.base: Base = resolve(recipe.base, recipe.root, say=watch.say)
        self.shape = read_shape(self.base.path)
        recipe.method.check(self.shape)
        self.tokenizer = ChatTokenizer(self.base.path)
        if recipe.data.canaries:
            check_canaries(recipe.objective.batch_kind, writes="scores" not in recipe.objective.needs)
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
        recipe.evaluation.check_measures(recipe.goal, self.rows.task)
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
