"""What a language model, as a judge, says of open answers: how good each is by a policy, and which of two it prefers.

It is a model's opinion and not a person's, so what shows how far it can be trusted stands beside it: replies that
cannot be read, the share of pairs that the place decided (`grading.judge`), and who the judge is. The answers are those
that models gave before; none is asked for again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneloop.data.read import from_anywhere
from tuneloop.errors import UserError, raise_all
from tuneloop.evaluation.blind import exact_interval
from tuneloop.evaluation.cache import Cached
from tuneloop.evaluation.compare import compare, holm, stack_of_scores
from tuneloop.evaluation.cost import Price, Spent, cost
from tuneloop.evaluation.intervals import LEVEL, Bootstrap
from tuneloop.grading.judge import HELPFUL, Comparison, Grades, Judge, asked, read_rubric
from tuneloop.grading.metrics import Scores, mean_of
from tuneloop.types import Sample

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend, Progress

UNUSABLE = 1 / 3
"""A judge of whose replies more than this share cannot be read is not usable: those that can are no fair sample."""

GOOD_GRADE = 4          # from this grade on an answer mostly succeeds
WORST, BEST = 1, 5
REMOTE = "remote:"      # how the identity of a model behind a server begins
SAME = "same answer"    # in the place of a winner, where there was nothing to choose


@dataclass(frozen=True)
class Policy:
    """What the judge goes by: the text of a file, or what counts where there is none."""

    name: str = "helpful"
    text: str = HELPFUL
    sha256: str = ""        # of the file

    @property
    def shows_reference(self) -> bool:
        """Whether the right answer is shown: it tells what is correct, and not what the user's own file asks for."""
        return not self.sha256


@dataclass(frozen=True)
class Case:
    """n answers of two models to the same requests: `rows` are their numbers among the test rows."""

    rows: list[int]
    prompts: list[str]
    references: list[str]
    answers: dict[str, list[str]]       # model -> (n,); the second model is the one that may be better
    origins: list[str]                  # `Origin.row` of each

    @property
    def different(self) -> list[int]:
        """Places of the rows that both models do not answer alike."""
        first, second = self.answers.values()
        return [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a.split() != b.split()]

    def questions(self, policies: Sequence[Policy]) -> int:
        """How often a judge is asked."""
        return 2 * (len(self.rows) * len(policies) + len(self.different))


def read_policies(files: Sequence[str], root: Path) -> list[Policy]:
    """The policies of these files, which count from `root`; without any, the one that tuneloop has.

    Raises a UserError with everything that is wrong with them: missing, empty, named twice.
    """
    paths = [Path(from_anywhere(file, root)) for file in files]
    names = Counter(path.name for path in paths)
    found: dict[str, Policy] = {}
    problems = []
    for path in paths:
        name = path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}"
        try:
            policy = Policy(name, read_rubric(path), hashlib.sha256(path.read_bytes()).hexdigest())
        except UserError as error:
            problems.append(error)
            continue
        if name in found:
            problems.append(UserError(f"The policy {name} is named twice.", fix="name each once"))
        found[name] = policy
    raise_all(problems)
    return list(found.values()) or [Policy()]


def case_of(samples: Sequence[Sample], references: Sequence[str], answers: Mapping[str, Sequence[str]],
            limit: int | None = None, seed: int = 0) -> Case:
    """What a judge is shown: all rows, or `limit` of them drawn with the seed."""
    count = len(samples) if limit is None else limit
    rows = sorted(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return Case(rows, [asked(samples[i].prompt) for i in rows], [references[i] for i in rows],
                {name: [texts[i] for i in rows] for name, texts in answers.items()},
                [samples[i].origin.row for i in rows])


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def judged(backend: Backend, case: Case, policies: Sequence[Policy], *, price: Price | None = None,
           resamples: int = 2000, seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """`result`, as the certificate holds it, and `rows`: what was said of each, without its texts.

    Each policy grades all answers of both models; pairs of answers are judged once, by all policies together.
    """
    first, second = case.answers
    graders = {policy: Judge(backend, policy.text) for policy in policies}
    grades = {policy: {name: grade_answers(judge, policy, case, name, progress) for name in case.answers}
              for policy, judge in graders.items()}
    chooser = Judge(backend, together(policies))
    chosen = choose(chooser, case, progress)
    judges = [*graders.values(), chooser]
    replies = [reply for judge in judges for reply in judge.replies]
    by_policy = [_graded(policy, of, resamples, seed) for policy, of in grades.items()]
    _correct(by_policy)
    unreadable = chosen.unreadable + sum(one.unreadable for of in grades.values() for one in of.values())
    result = {
        "judge": about(backend),
        "rows": len(case.rows), "models": [first, second], "confidence": LEVEL, "replies": len(replies),
        "unreadable": unreadable, "cut": sum(not reply.stopped for reply in replies),
        "usable": usable(unreadable, len(replies)), "policies": by_policy,
        "pairs": {"by": [policy.name for policy in policies],
                  **preferred(case, chosen, resamples=resamples, seed=seed)},
        "cost": _cost(backend, judges, price)}
    winners = dict(zip(case.different, chosen.winners, strict=True))
    return {"result": result, "rows": [
        {"row": row, "grades": {policy.name: {name: one.grades[i] for name, one in of.items()}
                                for policy, of in grades.items()},
         "winner": winner_of(case, winners[i]) if i in winners else SAME} for i, row in enumerate(case.rows)]}


def about(judge: Backend) -> dict[str, str]:
    """Who judges, for whoever reads the result."""
    url = judge.identity.removeprefix(REMOTE).partition("#")[0] if judge.identity.startswith(REMOTE) else ""
    return {"name": judge.name, "identity": judge.identity, "url": url}


def grade_answers(judge: Judge, policy: Policy, case: Case, model: str, progress: Progress | None = None) -> Grades:
    """How good the judge finds every answer of a model."""
    return judge.grade(case.prompts, case.answers[model], case.references if policy.shows_reference else None,
                       rows=case.origins, progress=progress)


def choose(judge: Judge, case: Case, progress: Progress | None = None) -> Comparison:
    """Which of both answers the judge prefers, where they differ."""
    prompts, first, second, rows = ([of[i] for i in case.different]
                                    for of in (case.prompts, *case.answers.values(), case.origins))
    return judge.compare(prompts, first, second, rows=rows, progress=progress)


def together(policies: Sequence[Policy]) -> str:
    """What counts where two answers are compared: to be helpful, and every policy."""
    own = [policy.text for policy in policies if policy.sha256]
    return "\n\n".join([HELPFUL, *(["It also keeps to what follows:"] if own else []), *own])


def usable(unreadable: int, replies: int) -> bool:
    """Whether so few replies cannot be read that the others tell something."""
    return unreadable <= UNUSABLE * replies


def winner_of(case: Case, winner: str | None) -> str | None:
    """The name of the model that won, or tie; None for a reply that cannot be read."""
    first, second = case.answers
    return {"first": first, "second": second}.get(winner, winner) if winner else None


# ── statistics ───────────────────────────────────────────────────────────────────────────────────────────────────────

def mean_grade(found: Grades, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """The mean `grade` of one model's answers, the share `passed` of good ones, both over those that could be read."""
    read = _grades_of(found)[~np.isnan(found.scores)]
    entry: dict[str, Any] = {"rows": len(read), "replies": len(found.replies), "unreadable": found.unreadable,
                             "usable": usable(found.unreadable, len(found.replies)), "grades": _counts(found),
                             "grade": None, "passed": None}
    if len(read):
        both = Bootstrap(len(read), resamples, seed).measure([mean_of(read), mean_of(_passed(read))])
        entry |= {name: one.interval(within).to_json()
                  for (name, within), one in zip(_MEASURES.items(), both, strict=True)}
    return entry


_MEASURES = {"grade": (float(WORST), float(BEST)), "passed": (0.0, 1.0)}


def _graded(policy: Policy, of: Mapping[str, Grades], resamples: int, seed: int) -> dict[str, Any]:
    """Grades of both models by one policy, compared on the rows that were read for both."""
    first, second = of
    read = ~np.isnan(sum(one.scores for one in of.values()))
    grades = {name: _grades_of(one)[read] for name, one in of.items()}
    replies, unreadable = (sum(counts) for counts in zip(*((len(o.replies), o.unreadable) for o in of.values()),
                                                         strict=True))
    entry: dict[str, Any] = {
        "policy": policy.name, "sha256": policy.sha256, "shows_reference": policy.shows_reference,
        "rows": int(read.sum()), "unreadable": {name: one.unreadable for name, one in of.items()},
        "usable": usable(unreadable, replies), "grades": {name: _counts(one) for name, one in of.items()},
        "grade": None, "passed": None}
    if read.any():
        stacks = [stack_of_scores("grade", grades, _MEASURES["grade"]),
                  stack_of_scores("passed", {name: _passed(values) for name, values in grades.items()})]
        entry |= {one.metric: one.to_json() for one in compare(stacks, [(first, second)], resamples=resamples,
                                                               seed=seed)}
    return entry


def _grades_of(found: Grades) -> Scores:
    """(n,) from 1 to 5; nan where a reply cannot be read."""
    return WORST + (BEST - WORST) * found.scores


def _passed(grades: Scores) -> Scores:
    return (grades >= GOOD_GRADE).astype(np.float64)


def _counts(found: Grades) -> list[int]:
    """How often each grade was given, from the worst to the best."""
    return [found.grades.count(value) for value in range(WORST, BEST + 1)]


def _correct(policies: Sequence[dict[str, Any]]) -> None:
    """Holm's correction over everything that all policies compare."""
    entries = [entry[name] for entry in policies for name in _MEASURES if entry[name]]
    for entry, p in zip(entries, holm([entry["p"] for entry in entries]), strict=True):
        entry["p_holm"] = p


def preferred(case: Case, found: Comparison, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How often the second model was preferred, as `blind.result` tells it of people.

    `win_rate` is that of the pairs with a winner, with the exact interval; in `ties_as_half` every pair that was read
    counts, with a bootstrap interval. Rows that both models answer alike are in neither.
    """
    scores = 1 - found.scores
    read = scores[~np.isnan(scores)]
    wins, losses = int((read == 1).sum()), int((read == 0).sum())
    rate = exact_interval(wins, wins + losses) if wins + losses else None
    halves = None
    if len(read):
        [mean] = Bootstrap(len(read), resamples, seed).measure([mean_of(read)])
        halves = mean.interval((0.0, 1.0)).to_json()
    decided = "undecided" if rate is None or rate.low <= 0.5 <= rate.high else "better" if rate.low > 0.5 else "worse"
    replies = 2 * len(found.replies)
    return {
        "models": list(case.answers), "pairs": len(found.winners), "same_answers": len(case.rows) - len(found.winners),
        "judged": len(read), "wins": wins, "losses": losses, "ties": len(read) - wins - losses,
        "win_rate": rate and rate.to_json(), "ties_as_half": halves, "verdict": decided,
        "position_bias": None if np.isnan(found.position_bias) else found.position_bias,
        "replies": replies, "unreadable": found.unreadable, "usable": usable(found.unreadable, replies)}


def _cost(backend: Backend, judges: Sequence[Judge], price: Price | None) -> dict[str, Any]:
    """What all replies took, when they were written; None for a price that nobody named."""
    replies = [reply for judge in judges for reply in judge.replies]
    seconds = backend.machine_seconds if isinstance(backend, Cached) else sum(reply.seconds for reply in replies)
    spent = Spent(seconds, (), [reply.prompt_tokens for reply in replies], [reply.new_tokens for reply in replies])
    each = cost(spent, max(1, len(replies)), 0, price).usd_per_1000
    return {"prompt_tokens": sum(spent.prompt_tokens), "new_tokens": sum(spent.new_tokens), "machine_seconds": seconds,
            "usd": None if each is None else each * len(replies) / 1000}
