"""A judge for `tuneloop eval` and `tuneloop compare`: what a model says of the answers that others gave to open rows.

`eval` grades the answers of its one model, `compare` has every two models' answers judged against each other. The
judge's replies are kept in the cache as all answers are, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.any_model import asking, open_any
from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import LEVEL
from tuneloop.evaluation.judged import (
    SAME,
    Case,
    Policy,
    about,
    case_of,
    choose,
    grade_answers,
    mean_grade,
    preferred,
    read_policies,
    winner_of,
)
from tuneloop.evaluation.text import grade, percent, span
from tuneloop.grading.judge import Judge
from tuneloop.judge_files import Judging, Rows

if TYPE_CHECKING:
    from tuneloop.evaluation.cache import Cached
    from tuneloop.inference.backend import Backend
    from tuneloop.training.watch import Watcher

OPINION = "A judge's verdict is a model's opinion, not a person's."


@dataclass(frozen=True)
class Judged:
    """Who judges, by what. `called` is any model's name, as `any_model.open_any` takes it."""

    called: str
    policy: Policy
    key_env: str = ""

    def open(self, runs: Path, say: Callable[[str], None]) -> Backend:
        """The judge; a server is asked whether it is there. Raises a UserError where it is not."""
        return open_any(self.called, runs, key_env=self.key_env, say=say)


def judged_by(called: str | None, rubric: Path | None, key_env: str) -> Judged | None:
    """The judge of a command's options; None for none. Raises a UserError for options that need one, and for a rubric
    that cannot be read.
    """
    if called is None:
        given = "--rubric" if rubric is not None else "--judge-key-env" if key_env else ""
        if given:
            raise UserError(f"{given} is for a judge, and there is none.", fix="name a model with --judge")
        return None
    [policy] = read_policies([str(rubric)] if rubric is not None else [], Path.cwd())
    return Judged(called, policy, key_env)


def check_open(rows: Rows) -> None:
    """Raise a UserError for rows that need no judge."""
    if rows.task == "labels":
        raise UserError(f"The answers of {rows.file} are labels, which are right or wrong without a judge.",
                        wanted="open answers", fix="leave --judge out; if they are no labels: --metrics rouge_l")
    if rows.task == "pairs":
        raise UserError(f"The rows of {rows.file} are pairs of answers, of which people have preferred one.",
                        wanted="open answers", fix="leave --judge out")


def add_judgement(backend: Backend, by: Policy, models: Sequence[Backend], rows: Rows, how: Judging,
                  lines: list[dict[str, Any]], watch: Watcher) -> dict[str, Any]:
    """What the judge says, for result.json; each line of rows.jsonl gets its part as `judged`.

    `lines` are those of `judge_files.judge`, with every model's answers. One model is graded, more are compared.
    """
    answers = {model.name: [line["answers"][model.name] for line in lines] for model in models}
    cases = [case_of(rows.samples, rows.references, dict(chosen))
             for chosen in (combinations(answers.items(), 2) if len(answers) > 1 else [answers.items()])]
    asked = sum(2 * len(case.different) for case in cases) if len(answers) > 1 else len(lines)
    watch.stage("judge", asked)
    found: dict[str, Any] = {
        "judge": about(backend), "by": by.name, "sha256": by.sha256, "confidence": LEVEL,
        "notes": [OPINION, *(f"{backend.name} judges its own answers." for model in models
                             if model.identity == backend.identity)]}
    with asking(backend, how.cache) as cached:
        if len(answers) == 1:
            return found | {"shows_reference": by.shows_reference,
                            "grades": _grade(cached, by, cases[0], how, lines, watch)}
        return found | {"pairs": [_compare(cached, by, case, how, lines, watch) for case in cases]}


def _grade(backend: Cached, by: Policy, case: Case, how: Judging, lines: list[dict[str, Any]],
           watch: Watcher) -> dict[str, Any]:
    [name] = case.answers
    found = grade_answers(Judge(backend, by.text), by, case, name, watch.advance)
    for line, value, reply in zip(lines, found.grades, found.replies, strict=True):
        line["judged"] = {"grade": value, "reply": reply}
    return {"model": name, **mean_grade(found, resamples=how.resamples, seed=how.seed)}


def _compare(backend: Cached, by: Policy, case: Case, how: Judging, lines: list[dict[str, Any]],
             watch: Watcher) -> dict[str, Any]:
    first, second = case.answers
    found = choose(Judge(backend, by.text), case, watch.advance)
    said = dict(zip(case.different, zip(found.winners, found.replies, strict=True), strict=True))
    for i, line in enumerate(lines):
        winner, replies = said.get(i, (None, ()))
        line.setdefault("judged", []).append({
            "from": first, "to": second, "winner": winner_of(case, winner) if i in said else SAME,
            "replies": list(replies)})
    return preferred(case, found, resamples=how.resamples, seed=how.seed)


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────────────────

def told(found: dict[str, Any]) -> list[str]:
    """The numbers in sentences, for the terminal."""
    by = f"{found['judge']['name']} by {found['by']}"
    parts = [_of_grades(found["grades"])] if "grades" in found else [_of_pairs(pair) for pair in found["pairs"]]
    return [f"judge {by}: {part}" for part in parts]


def _of_grades(of: dict[str, Any]) -> str:
    if not of["rows"]:
        return _unread(of)
    return (f"mean grade {grade(of['grade']['value'])} of 5 ({span(of['grade'], grade)}), "
            f"{percent(of['passed']['value'])} of the answers graded 4 or 5 ({span(of['passed'], percent)}), on "
            f"{of['rows']:,} rows; {_unread(of)}")


def _of_pairs(of: dict[str, Any]) -> str:
    first, second = of["models"]
    rate = of["win_rate"]
    won = f"win rate {percent(rate['value'])} ({span(rate, percent)})" if rate else "no pair has a winner"
    place = "" if of["position_bias"] is None else f"; the place decided {percent(of['position_bias'])} of them"
    same = f"; {of['same_answers']:,} more rows have the same answer from both" if of["same_answers"] else ""
    unread = f"; {_unread(of)}" if of["replies"] else ""
    return (f"{second} against {first}: {won}, {of['wins']:,} won, {of['losses']:,} lost and {of['ties']:,} tied of "
            f"{of['judged']:,} pairs{place}{same}{unread}")


def _unread(of: dict[str, Any]) -> str:
    told = f"{of['unreadable']:,} of {of['replies']:,} replies could not be read"
    return told if of["usable"] else f"{told}, so this judge is not usable"
