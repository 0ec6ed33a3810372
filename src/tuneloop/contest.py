"""Who answers the test rows of a run: the base as it is, with examples, with a better prompt, rivals, and the tuned
model; and what base and tuned model are asked beside them. Everything is kept in the run folder as it comes, so that a
resumed run asks nothing twice; what a base says is also kept by content, for other runs.

Base and tuned model are needed for the verdict. The others begin within `evaluation.minutes`, and what fails or is left
out is said and costs no run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.any_model import Waiting, asking, open_any, short_name
from tuneloop.data.canaries import is_canary
from tuneloop.errors import UserError
from tuneloop.evaluation.asking import Asked, ask
from tuneloop.evaluation.contenders import (
    FEW_SHOT,
    OPTIMISED,
    Contender,
    RemoteRival,
    answers_file,
    few_shot,
    fits_into,
    named,
    opened,
    optimised_prompt,
    rival,
    template,
)
from tuneloop.evaluation.cost import Price, Spent, cost
from tuneloop.evaluation.enough import enough
from tuneloop.evaluation.judged import case_of, judged
from tuneloop.evaluation.leakage import canaries, memorised, personal
from tuneloop.evaluation.robustness import robustness, unlike
from tuneloop.evaluation.safety.catalog import SAFETY
from tuneloop.evaluation.safety.memorisation import Exposed, exposed
from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.catalog import run_suites
from tuneloop.grading.metrics import METRICS, View, names
from tuneloop.prepared import PERTURBED_ROWS
from tuneloop.types import Answers, Conversation, Sampling

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend
    from tuneloop.prepared import Prepared
    from tuneloop.record import RunFolder
    from tuneloop.session import Session
    from tuneloop.training.watch import Watcher

CONTENDERS = "contenders.json"      # in evaluation/: who answered how, and what it took
JUDGED = "judged"                   # .json there: what the judge said
Gradings = dict[str, list[Graded]]


@dataclass(frozen=True)
class Contest:
    """The models of one run and their answers."""

    ready: Prepared
    folder: RunFolder
    watch: Watcher
    began: float
    left_out: list[str] = field(default_factory=list)       # sentences, for the certificate

    @classmethod
    def begin(cls, ready: Prepared, folder: RunFolder, watch: Watcher) -> Contest:
        """The clock of `evaluation.minutes` runs from here."""
        return cls(ready, folder, watch, time.monotonic())

    def answers(self, session: Session, name: str) -> Answers:
        """What base or tuned model says to the test rows."""
        return self._kept(name, lambda: session.answer(name))

    def untuned(self, session: Session, name: str) -> Answers:
        """What the base says without training: as it is, after examples, or behind the best prompt. Raises a UserError
        where these rows, or the recipe, do not ask for that.
        """
        ways = {FEW_SHOT: (self._few_shot, "few_shot"), OPTIMISED: (self._better_prompt, "prompt_search")}
        if name not in ways:
            return self.answers(session, name)
        way, key = ways[name]
        if not self._asks:
            raise UserError("These rows ask the base and the tuned model alone.")
        if not getattr(self.ready.recipe.evaluation, key):
            raise UserError(f"evaluation.{key} is 0.")
        return self._kept(name, lambda: self._ask(way(session)))

    def others(self, session: Session) -> list[Answers]:
        """Every contender beside base and tuned model, as the recipe asks."""
        found: list[Answers] = []
        self._look_for_judge()
        if self.ready.rows.task == "labels":
            found += self._try("rival", self._tf_idf)
        if not self._asks:
            self._ask_nobody_else()
        else:
            spec = self.ready.recipe.evaluation
            if spec.few_shot:
                found += self._try(FEW_SHOT, lambda: self._ask(self._few_shot(session)),
                                   needed=self.ready.recipe.goal.better_than_few_shot_by is not None)
            if spec.prompt_search:
                found += self._try(OPTIMISED, lambda: self._ask(self._better_prompt(session)))
            for given in spec.compare_to:
                found += self._rival(given, [one.name for one in found])
        return found

    def _ask_nobody_else(self) -> None:
        """Say what the recipe asks for and these rows do not. Raises a UserError where the goal needs it."""
        why = "pairs, and calls of tools, are asked of the base and the tuned model alone"
        if self.ready.recipe.goal.better_than_few_shot_by is not None:
            raise UserError(f"goal.better_than_few_shot_by is set, but {why}.", fix="leave it out of the goal")
        spec = self.ready.recipe.evaluation
        asked = [key for key in ("few_shot", "prompt_search", "compare_to", "perturb")
                 if key in spec.model_fields_set and getattr(spec, key)]
        if asked:
            self.left_out.append(f"Left out of evaluation: {', '.join(asked)}, since {why}.")
            self.watch.say(self.left_out[-1])

    def enough(self, base: Answers, others: list[Answers]) -> str:
        """What to say where the base meets the goal without training; "" where it does not."""
        ready, spec = self.ready, self.ready.recipe.evaluation
        told: str = self._kept_json("enough", lambda: enough(
            ready.recipe.goal, ready.rows.task, ready.references, base, others, samples=ready.test,
            resamples=spec.resamples, seed=ready.recipe.seed))
        if told:
            self.watch.say(told)
        return told

    def suites(self, session: Session, name: str) -> Gradings:
        """What the suites of the recipe found of base or tuned model; nothing where the model writes no answers."""
        recipe = self.ready.recipe
        file = f"suites-{name}.json"
        if not recipe.evaluation.suites or "scores" in recipe.objective.needs:
            return {}
        if not self.folder.has("evaluation", file):
            with asking(session.backend(name)) as backend:
                graded = self._graded(backend, name)
            self.folder.write({each: list(map(_to_json, items)) for each, items in graded.items()}, "evaluation", file)
        return {each: list(map(_from_json, items)) for each, items in self.folder.read("evaluation", file).items()}

    def exposed(self, session: Session, name: str) -> list[Exposed]:
        """What base or tuned model gives away of the canaries among the training rows; nothing where there are none."""
        planted = [row for row in self.ready.rows.train if is_canary(row)]
        if not planted:
            return []

        def measured() -> list[dict[str, Any]]:
            self.watch.stage(f"canaries ({name})", None)
            return [asdict(one) for one in exposed(session.backend(name), planted, seed=self.ready.recipe.seed)]

        return [Exposed(**one) for one in self._kept_json(f"canaries-{name}", measured)]

    def further(self, session: Session, models: list[Answers]) -> dict[str, Any]:
        """What else the certificate tells, as the recipe asks: what changes of the prompts cost, training rows that the
        tuned model repeats, personal data in what was written, rows unlike the others, and what a judge says.
        """
        spec, found = self.ready.recipe.evaluation, {}
        if self.ready.rows.task == "open":
            two = {model.name: model.texts for model in models if model.name in ("base", "tuned")}
            found["personal"] = personal(two, [row.prompt[-1].content for row in self.ready.test])
        if spec.perturb and self._asks:
            found["robustness"] = self._kept_json("robustness", lambda: self._robustness(session))
        if spec.extraction and "scores" not in self.ready.recipe.objective.needs:
            found["memorised"] = self._kept_json("memorised", lambda: memorised(
                session.backend("tuned"), self.ready.rows.train, spec.extraction, self.ready.recipe.seed))
        if before := self.exposed(session, "base"):
            found["canaries"] = canaries(before, self.exposed(session, "tuned"))
        found |= unlike(self.ready.test, self.ready.rows.train, self.ready.references, models,
                        metric=self.ready.metric, seed=self.ready.recipe.seed, flags=self.ready.flags,
                        column=spec.out_of_distribution or "")
        if spec.judge is not None:
            found["judged"] = self._judged(spec.judge, {model.name: model.texts for model in models})
        return found

    def costs(self, models: list[Answers]) -> dict[str, Any]:
        """Latency and cost of every model that was asked, by name. What is right, the task's leading metric says, which
        is a mean of rows; the goal may go by one that is none.
        """
        known, found = self._known(), {}
        metric = METRICS[names(self.ready.rows.task)[0]]
        for model in models:
            if of := known.get(model.name):
                right = metric.value_of(View(self.ready.references, model, self.ready.test))
                found[model.name] = cost(Spent(**of["spent"]), len(model.texts), right * len(model.texts),
                                         self._price(of)).to_json()
        return found

    def _price(self, of: dict[str, Any]) -> Price | None:
        """Of this machine, or of a model's own server."""
        if "price" not in of:
            return self.ready.recipe.evaluation.price
        return Price(**of["price"]) if of["price"] else None

    def about(self) -> list[dict[str, Any]]:
        """Who answered, and how, for whoever reads the certificate."""
        return [{"name": name, **{key: of[key] for key in ("about", "how")}} for name, of in self._known().items()]

    def notes(self) -> list[str]:
        """What a reader must know to compare them, and whether training was needed."""
        told = self.folder.read("evaluation", "enough.json") if self._is_kept("enough") else ""
        return [*filter(None, [told]), *(note for of in self._known().values() for note in of["notes"]),
                *dict.fromkeys(self.left_out)]

    # ── the contenders ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _asks(self) -> bool:
        """Whether the test rows can be asked of any model; pairs and calls of tools are for base and tuned alone."""
        rows = self.ready.rows
        return rows.task != "pairs" and all(isinstance(row, Conversation) and not row.messages[-1].calls
                                            for row in self.ready.test)

    def _tf_idf(self) -> Answers:
        from tuneloop.evaluation.rival import rival as tf_idf

        rows = self.ready.rows
        labelled = [row for row in rows.train if row.answer in rows.labels]     # not what is mixed in
        return tf_idf(labelled, self.ready.test)

    def _few_shot(self, session: Session) -> Contender:
        rows, recipe = self.ready.rows, self.ready.recipe
        shots = few_shot(self.ready.test, self._examples, recipe.evaluation.few_shot, recipe.seed, self._fits,
                         labels=rows.labels)
        count = len(shots.examples)
        return Contender(FEW_SHOT, session.backend("base"), shots.requests,
                         f"the base after {count} example{'s' * (count > 1)} from the training rows")

    def _better_prompt(self, session: Session) -> Contender:
        rows, recipe = self.ready.rows, self.ready.recipe
        metric = METRICS[self.ready.metric]
        if metric.view:         # it looks at more than texts, so prompts are chosen by the task's own
            metric = METRICS[names(rows.task)[0]]
        with asking(session.backend("base")) as backend:
            best = optimised_prompt(self.ready.test, self._examples, rows.validation or self._examples, backend,
                                    metric.value, self._fits, labels=rows.labels,
                                    budget=recipe.evaluation.prompt_search, seed=recipe.seed, sampling=self._sampling)
        return Contender(OPTIMISED, session.backend("base"), best.requests, "the base with " + (
            f"the best of {len(best.tried)} prompts: {best.instruction}" if best.instruction else
            f"its prompt as it was, the best of {len(best.tried)}"))

    def _rival(self, given: str | RemoteRival, others: list[str]) -> list[Answers]:
        """The answers of a model that the recipe names. One that has answered already need not be there any more."""
        by_server = (name for name, of in self._known().items()
                     if isinstance(given, RemoteRival) and of["about"] == f"{name} at {given.url}")
        name = named(given) or next(by_server, "")
        if name and self._is_answered(name):
            return [self._read(name)]
        try:
            one = rival(given, self.ready.test, self._any, self._template, others)
        except (UserError, RuntimeError, MemoryError) as error:
            self._leave_out(name or str(given), error)
            return []
        return self._try(one.name, partial(self._ask, one))

    def _any(self, name: str) -> Backend:
        recipe = self.ready.recipe
        return open_any(recipe.portable_model(name), recipe.root / "runs", say=self.watch.say)

    def _template(self, name: str) -> Any:
        from tuneloop.models.resolve import resolve
        from tuneloop.models.tokenizer import ChatTokenizer

        return template(ChatTokenizer(resolve(name, self.ready.recipe.root).path))

    @property
    def _examples(self) -> list[Any]:
        """Training rows that may be shown: of the task, without what is mixed in, with an answer in words."""
        rows = self.ready.rows
        return [row for row in rows.train if isinstance(row, Conversation) and not row.messages[-1].calls
                and not is_canary(row) and (not rows.labels or row.answer in rows.labels)]

    @property
    def _fits(self) -> Callable[[Any], bool]:
        return fits_into(self.ready.tokenizer, self._sampling.max_new_tokens)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(self.ready.recipe.evaluation.max_new_tokens)

    def _robustness(self, session: Session) -> list[dict[str, Any]]:
        recipe = self.ready.recipe
        self.watch.stage("perturbed rows", None)
        return robustness(self.ready.test, {name: session.backend(name) for name in session.answering},
                          kinds=recipe.evaluation.perturb, limit=PERTURBED_ROWS, labels=self.ready.rows.labels,
                          metric=self.ready.metric, seed=recipe.seed, sampling=self._sampling,
                          resamples=recipe.evaluation.resamples, fits=self._fits)

    # ── the judge ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_for_judge(self) -> None:
        """Say before training that the judge is not there, while it can still be mended."""
        judge = self.ready.recipe.evaluation.judge
        if judge is None or self._is_kept(JUDGED):
            return
        try:
            opened(judge, self._any, self._template)
        except UserError as error:
            self.watch.say(f"The judge cannot be asked now, and will be tried again after training. {error.text}")

    def _judged(self, judge: str | RemoteRival, answers: dict[str, list[str]]) -> dict[str, Any]:
        """What the judge says of base and tuned model, or why it says nothing: the verdict does not depend on it."""
        named = short_name(judge) if isinstance(judge, str) else judge.model or judge.url
        if not self._is_kept(JUDGED) and self._is_over("the judge"):
            return {"judge": {"name": named}, "left_out": "evaluation.minutes were over."}
        try:
            return dict(self._kept_json(JUDGED, lambda: self._ask_judge(judge, answers))["result"])
        except (UserError, RuntimeError, MemoryError) as error:     # such as one that does not fit into memory
            why = error.found if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.watch.say(f"The judge is left out. {why}")
            return {"judge": {"name": named}, "left_out": why}

    def _ask_judge(self, given: str | RemoteRival, answers: dict[str, list[str]]) -> dict[str, Any]:
        ready, recipe, spec = self.ready, self.ready.recipe, self.ready.recipe.evaluation
        case = case_of(ready.test, ready.references, {name: answers[name] for name in ("base", "tuned")},
                       spec.judged_rows, recipe.seed)
        judge = opened(given, self._any, self._template)
        here = spec.price if isinstance(judge, Waiting) else None
        self.watch.stage("judge", case.questions(ready.policies))
        with asking(judge) as backend:
            found = judged(backend, case, ready.policies, resamples=spec.resamples, seed=recipe.seed,
                           price=given.price if isinstance(given, RemoteRival) else here,
                           progress=self.watch.advance)
        base, *others = map(recipe.portable_model, [recipe.base, *([given] if isinstance(given, str) else [])])
        found["result"]["judge"]["is_base"] = base in others
        return found

    # ── asking and keeping ───────────────────────────────────────────────────────────────────────────────────────────

    def _try(self, name: str, answer: Callable[[], Answers | Asked], *, needed: bool = False) -> list[Answers]:
        """The answers of a contender; none where it cannot answer, or where the time is used up, unless it is `needed`.
        """
        if needed:
            return [self._kept(name, answer)]
        if not self._is_answered(name) and self._is_over(name):
            return []
        try:
            return [self._kept(name, answer)]
        except (UserError, RuntimeError, MemoryError) as error:     # the verdict does not depend on it
            self._leave_out(name, error)
            return []

    def _leave_out(self, name: str, error: Exception) -> None:
        """Say so now, and in the certificate."""
        why = error.found if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.left_out.append(f"{name} is left out. {why}")
        self.watch.say(f"{name} is left out. {error.text if isinstance(error, UserError) else why}")

    def _is_over(self, what: str) -> bool:
        minutes = self.ready.recipe.evaluation.minutes
        over = minutes is not None and time.monotonic() - self.began > 60 * minutes
        if over:
            self.left_out.append(f"{what} is left out: evaluation.minutes is {minutes:g}, and they are over.")
            self.watch.say(self.left_out[-1])
        return over

    def _ask(self, contender: Contender) -> Asked:
        """All test rows of a contender, as base and tuned model are asked them."""
        self.watch.stage(contender.name, len(contender.requests))
        with asking(contender.backend) as backend:
            found = ask(backend, contender.requests, self.ready.references, self.ready.rows.labels, self._sampling,
                        name=contender.name, progress=self.watch.advance)
        return replace(found, about=contender.about, is_remote=contender.is_remote, price=contender.price)

    def _graded(self, backend: Backend, name: str) -> Gradings:
        spec, goal = self.ready.recipe.evaluation, self.ready.recipe.goal
        found: Gradings = {}
        for suite in spec.suites:
            needed = (goal.max_safety_drop if suite in SAFETY else goal.max_forgetting) is not None
            if not needed and self._is_over(suite):
                continue
            self.watch.stage(f"{suite} ({name})", None)
            place = str(Path(self.ready.recipe.root, suite)) if suite.endswith(".jsonl") else suite
            try:
                found |= run_suites(backend, [place], limit=None if needed else spec.suite_items)
            except UserError as error:
                if needed:
                    raise
                self.watch.say(f"{suite} is left out. {error.text}")
        return found

    def _is_kept(self, name: str) -> bool:
        return self.folder.has("evaluation", f"{name}.json")

    def _is_answered(self, name: str) -> bool:
        return self.folder.has("evaluation", answers_file(name))

    def _read(self, name: str) -> Answers:
        return Answers(**self.folder.read("evaluation", answers_file(name)))

    def _kept(self, name: str, answer: Callable[[], Answers | Asked]) -> Answers:
        """Answers from the run folder, or now."""
        if not self._is_answered(name):
            found = answer()
            answers, notes = self._rewarded(found if isinstance(found, Answers) else found.answers)
            if isinstance(found, Asked):
                entry: dict[str, Any] = {"about": found.about, "how": found.how, "spent": asdict(found.spent),
                                         "notes": [*found.notes, *notes]}
                if found.is_remote:
                    entry["price"] = found.price.model_dump() if found.price else None
                self.folder.write(self._known() | {name: entry}, "evaluation", CONTENDERS)
            self.folder.write(asdict(answers), "evaluation", answers_file(name))
        return self._read(name)

    def _rewarded(self, answers: Answers) -> tuple[Answers, list[str]]:
        """The answers with what the recipe's graders make of each, where it has some; and what to know of that."""
        rewards = self.ready.rewards
        if rewards is None or self.ready.rows.task == "pairs":
            return answers, []
        self.watch.stage(f"rewards ({answers.name})", None)
        found = rewards.score(self.ready.test, answers.texts)
        rewards.release()
        notes = [f"{answers.name}: {note}" for note in found.notes]
        for note in notes:
            self.watch.say(note)
        return replace(answers, rewards=found.rewards.tolist()), notes

    def _kept_json(self, name: str, found: Callable[[], Any]) -> Any:
        if not self.folder.has("evaluation", f"{name}.json"):
            self.folder.write(found(), "evaluation", f"{name}.json")
        return self.folder.read("evaluation", f"{name}.json")

    def _known(self) -> dict[str, Any]:
        return self.folder.read("evaluation", CONTENDERS) if self.folder.has("evaluation", CONTENDERS) else {}


def _to_json(item: Graded) -> dict[str, Any]:
    return asdict(item) | {"score": None if math.isnan(item.score) else item.score}     # JSON has no nan


def _from_json(item: dict[str, Any]) -> Graded:
    return Graded(**item | {"score": math.nan if item["score"] is None else item["score"]})
