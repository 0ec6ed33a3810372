"""A worker of a search: it takes one trial after another, trains it on a base that stays in memory, and scores it on
the validation rows.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop import loop
from tuneloop import recipe as recipes
from tuneloop.contest import Contest
from tuneloop.errors import TrainingFailed, UserError
from tuneloop.grading.metrics import METRICS, View
from tuneloop.models.load import load_model
from tuneloop.plan.make import Plan
from tuneloop.record import RunFolder
from tuneloop.search_rows import Blind, Rows, require_same
from tuneloop.search_space import with_values
from tuneloop.search_study import DEFAULTS, DRAWN, UNTUNED
from tuneloop.session import Session
from tuneloop.training.memory import ran_out
from tuneloop.training.watch import Silent

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.methods.base import MethodSpec
    from tuneloop.prepared import Prepared
    from tuneloop.recipe import Recipe
    from tuneloop.search_budget import Purse
    from tuneloop.search_space import Space
    from tuneloop.search_study import Running, Study
    from tuneloop.types import Answers

TRIALS = "trials"
Ended = Callable[[int], None]


class Stopped(Exception):
    """A trial that is given up before its end."""


class Bases:
    """A base in memory, lent to one trial after another, for as long as each gives it back as it was."""

    def __init__(self) -> None:
        self._kept: tuple[str, nn.Module, dict[str, int]] | None = None
        self.loaded = 0

    def lend(self, path: Path, method: MethodSpec) -> nn.Module:
        """The base as `load_model` gives it for this method; it is the borrower's alone until it comes back."""
        key = f"{path}{sorted(method.load_options().items())}"
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == key:
            self._lent = kept
        else:
            del kept
            gc.collect()
            self.loaded += 1
            model = load_model(path, **method.load_options())
            self._lent = (key, model, _fingerprint(model))
        return self._lent[1]

    def give_back(self, method: MethodSpec, model: nn.Module, *, trained: bool, spoilt: bool = False) -> None:
        """Keep the base for the next one, if it is the same bit for bit; `spoilt` where nobody can know."""
        key, _, before = self._lent
        base = None if spoilt else method.undo(model) if trained else model
        if base is not None and _fingerprint(base) == before:
            self._kept = (key, base.eval(), before)
        del self._lent


def _fingerprint(model: nn.Module) -> dict[str, int]:
    """The sum of the bits of every parameter and buffer, by name."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {name: int(p.detach().contiguous().view(whole[p.element_size()]).sum(dtype=torch.int64))
            for name, p in (*model.named_parameters(), *model.named_buffers())}


@dataclass
class _Watch(Silent):
    """Follows a training: its tokens, and the validation loss that was seen last."""

    tokens: int = 0
    loss: float = float("inf")
    looks: int = field(default=0)

    def metric(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "step":
            self.tokens += entry["tokens"]
        elif entry["event"] == "validation":
            self.loss = entry["loss"]


@dataclass
class Worker:
    """What one process needs for its trials."""

    folder: Path                        # of the search
    given: dict[str, Any]               # the recipe, with absolute paths and without its search
    space: Space
    study: Study
    purse: Purse
    limit: float                        # recipes that may be tried
    by_loss: bool = False               # compare trials by the validation loss on their way
    memory_gb: float | None = None      # what training may use, where several workers share the machine
    number: int = 0
    bases: Bases = field(default_factory=Bases)
    rows: Rows = field(default_factory=lambda: Rows(Silent()))

    def run(self, ended: Ended = lambda number: None) -> None:
        """Trials until there is none left, or the budget is used up. Raises a UserError where nothing can be tried."""
        while not self.purse.is_over(self.study.trials(), another=True):
            running = self.study.next(self.space, self.limit, self.number)
            if running is None:
                return
            self._try(running)
            ended(running.number)
            self._give_up_if_all_fail()

    def _try(self, running: Running) -> None:
        """One trial, whatever becomes of it."""
        began = time.perf_counter()
        watch = _Watch()
        try:
            value = self._untuned(running) if running.kind in UNTUNED else self._tuned(running, watch, began)
            running.note(seconds=time.perf_counter() - began, tokens=watch.tokens)
            running.finish(value)
        except Stopped as why:
            running.note(seconds=time.perf_counter() - began, tokens=watch.tokens)
            running.stop(str(why))
        except TrainingFailed as error:         # such as a learning rate too high, which the sampler should learn
            running.note(seconds=time.perf_counter() - began, tokens=watch.tokens)
            running.stop(error.found)
        except UserError as error:
            running.fail(error.text)
        except Exception as error:
            running.fail(f"{type(error).__name__}: {error}")
            if not ran_out(error):
                raise

    def _give_up_if_all_fail(self) -> None:
        tried = [one for one in self.study.trials() if one.kind in (DEFAULTS, DRAWN) and one.state != "waiting"]
        failed = [one for one in tried if one.state == "failed" and one.why]
        if len(failed) == len(tried) and (len(failed) >= 3 or any(one.kind == DEFAULTS for one in failed)):
            raise UserError(f"No trial could be trained. Trial {failed[-1].number}: {failed[-1].why}")

    # ── one trial ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _recipe(self, values: Mapping[str, Any], number: int) -> Recipe:
        given = with_values(self.given, values)
        if self.memory_gb is not None and (given.get("training") or {}).get("memory_gb") is None:
            given["training"] = {**(given.get("training") or {}), "memory_gb": self.memory_gb}
        return recipes.of(given, shown=f"trial {number}", root=self.folder)

    def _folder(self, number: int, recipe: Recipe, plan: Plan) -> RunFolder:
        """An empty run folder with what a session wants to find there."""
        path = self.folder / TRIALS / str(number)
        shutil.rmtree(path, ignore_errors=True)
        run = RunFolder.create_at(path)
        loop.begin(recipe, run)
        run.write(plan.to_json(), "plan.json")
        run.update_record(recipe=recipe.given, method=recipe.method.model_dump(),
                          seeds={"all": recipe.seed, "training": recipe.training_seed})
        return run

    def _tuned(self, running: Running, watch: _Watch, began: float) -> float:
        """Train a recipe, comparing it with others on the way; its score on the validation rows."""
        recipe = self._recipe({} if running.kind == DEFAULTS else running.values, running.number)
        ready = self._ready(recipe, running)
        plan = ready.plan()
        run = self._folder(running.number, recipe, plan)
        session = Session(ready, plan, run, watch, self.bases.lend(ready.base.path, recipe.method))
        spoilt = True
        try:
            session.train(lambda step: self._look(running, session, watch, step, began))
            value = score(ready, session.answer("tuned").answers)
            spoilt = plan["training.checkpointing"]         # which leaves its mark on the base
            return value
        except Stopped:
            spoilt = plan["training.checkpointing"]
            raise
        finally:
            self.bases.give_back(recipe.method, session.model.model, trained=session.trained, spoilt=spoilt)
            tidy(run)

    def _look(self, running: Running, session: Session, watch: _Watch, step: int, began: float) -> None:
        """Compare with how other trials stood at this look, and stop if it is not worth going on."""
        watch.looks += 1
        running.note(seconds=time.perf_counter() - began, tokens=watch.tokens)
        if step == session.plan.steps:
            return
        if running.look(watch.looks, self._standing(session, watch)):
            raise Stopped(f"not among the best third at look {watch.looks}, step {step} of {session.plan.steps}")
        if running.kind == DRAWN and (over := self.purse.is_over(self.study.trials())):
            raise Stopped(f"the budget of {over} is used up")

    def _standing(self, session: Session, watch: _Watch) -> float:
        """The score on the validation rows, or the loss there, which costs nothing more."""
        if self.by_loss:
            return -self.study.sign * watch.loss
        return score(session.ready, session.answer("tuned").answers)

    def _untuned(self, running: Running) -> float:
        """What the base reaches without training. Prompts are chosen by training rows here, to be judged by others."""
        recipe = self._recipe({}, running.number)
        ready = self._ready(recipe, running).unvalidated
        plan = ready.plan()
        run = self._folder(running.number, recipe, plan)
        session = Session(ready, plan, run, Silent(), self.bases.lend(ready.base.path, recipe.method))
        try:
            return score(ready, Contest.begin(ready, run, Silent()).untuned(session, running.kind))
        finally:
            self.bases.give_back(recipe.method, session.model.model, trained=False)

    def _ready(self, recipe: Recipe, running: Running) -> Blind:
        ready = self.rows.of(recipe)
        require_same(ready, self.rows.of(self._recipe({}, 0)), running.values)
        return ready


def score(ready: Prepared, answers: Answers) -> float:
    """The metric of the goal on the validation rows."""
    return METRICS[ready.metric].value_of(View(ready.references, answers, ready.test))


def tidy(run: RunFolder) -> None:
    """Leave the record of a trial, and not what it trained: the best is trained again."""
    for name in ("checkpoints", "adapter", "model"):
        shutil.rmtree(run.file(name), ignore_errors=True)
