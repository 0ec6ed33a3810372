"""What people said, as rows to train on; each with who said it, when, and whether that was a person or a model.

    preference  chosen and rejected, for dpo, orpo, simpo and reward models
    kto         an answer, and whether it is liked
    ranked      answers with the best first
    sft         the best answer of each prompt: as somebody edited it, else one that was preferred or liked
    rollouts    answers with their rewards: the mean of what was said of each, from 0 to 1

Votes are put together: a row holds what more people said than said the opposite, and their names. With `each` rows of
`preference` and `kto` stand for one judgement. Tests of attention are in none. What is left out is counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any, Literal, get_args

from tuneloop.data.formats.writers import WRITERS, as_messages
from tuneloop.errors import UserError
from tuneloop.people.items import STARS
from tuneloop.people.questions import Question
from tuneloop.people.store import Judgements, Said
from tuneloop.types import Conversation, Message, Preference, Ranked, Rated, Rollout, Sample

Format = Literal["preference", "kto", "ranked", "sft", "rollouts"]
FORMATS: tuple[Format, ...] = get_args(Format)
Sources = Literal["person", "model", "all"]
GOOD_STARS, BAD_STARS = 4, 2        # from here on an answer is liked, down to here it is not
_WRITTEN = {"sft": "chat"}          # formats that go by another name among the writers


@dataclass(frozen=True)
class Vote:
    """One person's word on one answer, or on one against another. Texts, not ids: an edited answer has none."""

    better: str
    worse: str              # of a word on one answer: empty
    worth: float            # 1, or the difference in stars; of one answer 1 liked, -1 not, 0 neither
    sure: bool              # said outright, and not read from a comparison
    said: Said


@dataclass
class Exported:
    """Rows, and what was left out and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def lines(self, out: str, form: Format) -> list[str]:
        """For the terminal."""
        return [f"{out} holds {len(self.rows):,} {form} rows."] + [
            f"{count:,} left out: {why}" for why, count in self.left_out.items()]


def select(store: Judgements, *, only: Sequence[str] = (), without: Sequence[str] = (),
           source: Sources = "person") -> list[Said]:
    """The last words of some annotators. Raises a UserError for a name that nobody has, and where nothing is left."""
    store.look()
    names = store.annotators(None if source == "all" else source)
    everybody = store.annotators()
    for name in (*only, *without):
        if name not in everybody:
            raise UserError(f"Nobody called {name!r} judged anything.", wanted=f"one of: {', '.join(everybody) or '-'}")
    chosen = [name for name in names if (not only or name in only) and name not in without]
    found = [said for name in chosen for said in store.standing(name)]
    if not found and not everybody:
        raise UserError("There is nothing to export: nobody has judged anything yet.", fix="tuneloop rank FILE")
    if not found:
        raise UserError(f"There is nothing to export: {', '.join(everybody)} judged, and none of them is asked for.",
                        fix="--source model takes what models said, --source all everything")
    return found


def export(questions: Mapping[str, Question], standing: Sequence[Said], form: Format, *,
           each: bool = False) -> Exported:
    """Rows of a format. Raises a UserError where there would be none."""
    if each and form not in ("preference", "kto"):
        raise UserError(f"A row of {form} is what several judgements say together.", fix="leave out --each")
    result = Exported()
    by_question: defaultdict[str, list[Said]] = defaultdict(list)
    for said in standing:
        if said.kind == "verdict" and said.check:
            continue
        if said.question not in questions or any(a not in questions[said.question].answers for a in said.shown):
            result.left_out["judgements of answers that the file holds no more"] += 1
        else:
            by_question[said.question].append(said)
    for name, of in by_question.items():
        result.rows += _MAKERS[form](questions[name], of, each, result.left_out)
    if len({type(row["prompt"]) for row in result.rows if "prompt" in row}) > 1:
        result.rows = [as_messages(row) for row in result.rows]
    if not result.rows:
        why = "; ".join(f"{count:,} left out: {what}" for what, count in result.left_out.items())
        raise UserError(f"No {form} row comes of what was judged{f' ({why})' if why else ''}.", wanted=_NEEDS[form])
    return result


_NEEDS: dict[Format, str] = {
    "preference": "comparisons with a winner, ratings in stars that differ, or edited answers",
    "kto": "thumbs, ratings in stars, comparisons with a winner, or edited answers",
    "ranked": "answers in order without ties, or all pairs of a prompt compared",
    "sft": "edited answers, or answers that were preferred or liked",
    "rollouts": "any judgement"}


# --- votes -----------------------------------------------------------------------------------------------------------


def _pairs(question: Question, standing: Iterable[Said]) -> list[Vote]:
    """Every word on one answer against another. A tie, or two bad answers, is a vote of no worth."""
    found: list[Vote] = []
    stars: defaultdict[str, dict[str, Said]] = defaultdict(dict)
    for said in standing:
        verdict, text = said.verdict, question.answers
        if said.kind == "edit":
            found.append(Vote(said.value["text"], text[said.value["answer"]], 1, True, said))
        elif verdict.stars is not None:
            stars[said.annotator][said.shown[0]] = said
        elif verdict.groups:
            for first, second in combinations(said.shown, 2):
                relation = verdict.relation(first, second)
                a, b = (second, first) if relation == "second" else (first, second)
                found.append(Vote(text[a], text[b], float(relation in ("first", "second")), True, said))
    for of in stars.values():
        for (a, one), (b, other) in combinations(of.items(), 2):
            apart = (one.verdict.stars or 0) - (other.verdict.stars or 0)
            best, worst = (b, a) if apart < 0 else (a, b)
            found.append(Vote(question.answers[best], question.answers[worst], abs(apart), True,
                              max(one, other, key=lambda said: said.time)))
    return found


def _singles(question: Question, standing: Iterable[Said]) -> list[Vote]:
    """Every word on one answer; a comparison says that the best is liked and the worst is not, less surely."""
    found: list[Vote] = []
    for said in standing:
        verdict, text = said.verdict, question.answers
        if said.kind == "edit":
            found += [Vote(said.value["text"], "", 1, True, said),
                      Vote(text[said.value["answer"]], "", -1, False, said)]
        elif verdict.liked is not None:
            found.append(Vote(text[said.shown[0]], "", 1 if verdict.liked else -1, True, said))
        elif verdict.stars is not None:
            worth = 1 if verdict.stars >= GOOD_STARS else -1 if verdict.stars <= BAD_STARS else 0
            found.append(Vote(text[said.shown[0]], "", worth, True, said))
        else:
            found += [Vote(text[answer], "", -1, True, said) for answer in sorted(verdict.bad)]
            if len(verdict.groups) > 1:
                found += [Vote(text[answer], "", worth, False, said) for worth, group in
                          ((1, verdict.groups[0]), (-1, verdict.groups[-1])) for answer in group
                          if answer not in verdict.bad]
    return found


def _written(sample: Sample, form: Format, said: Iterable[Said], *, each: bool = False) -> list[dict[str, Any]]:
    """The rows of a sample with the columns that tell who said it, and when last."""
    every = list(said)
    names, sources = (sorted({getattr(one, of) for one in every}) for of in ("annotator", "source"))
    who: dict[str, Any] = {"annotator": names[0]} if each else {"annotators": names}
    who |= {"source": " and ".join(sources), "time": max(one.time for one in every)}
    if comments := list(dict.fromkeys(one.comment for one in every if one.comment)):
        who["comments"] = comments
    return [row | who for row in WRITERS[_WRITTEN.get(form, form)](sample, lambda what: None)]


# --- rows of each format ---------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def _preference(question: Question, standing: list[Said], each: bool, left_out: Counter[str]) -> Rows:
    rows: Rows = []
    by_pair: defaultdict[frozenset[str], list[Vote]] = defaultdict(list)
    for vote in _pairs(question, standing):
        by_pair[frozenset((vote.better, vote.worse))].append(vote)
    for votes in by_pair.values():
        decided = [vote for vote in votes if vote.worth]
        if each:
            left_out["ties, and pairs of bad answers"] += len(votes) - len(decided)
            for vote in decided:
                rows += _written(_pair(question, [vote]), "preference", [vote.said], each=True)
            continue
        counts = Counter(vote.better for vote in decided)
        (best, most), (_, least) = [*counts.most_common(2), ("", 0), ("", 0)][:2]
        if not decided:
            left_out["pairs without a winner"] += 1
        elif most == least:
            left_out["pairs that as many people decide one way as the other"] += 1
        else:
            agreeing = [vote for vote in decided if vote.better == best]
            rows += [row | {"agreed": most, "disagreed": least} for row in _written(
                _pair(question, agreeing), "preference", [vote.said for vote in agreeing])]
    return rows


def _pair(question: Question, votes: Sequence[Vote]) -> Preference:
    """With the mean difference in stars as the margin, where there are stars."""
    stars = [vote.worth for vote in votes if vote.said.ask == "stars" and vote.said.kind == "verdict"]
    return Preference(question.prompt, votes[0].better, votes[0].worse, question.origin, fmean(stars) if stars else 0.0)


def _kto(question: Question, standing: list[Said], each: bool, left_out: Counter[str]) -> Rows:
    rows: Rows = []
    for text, votes in _by_answer(question, standing).items():
        told = [vote for vote in votes if vote.worth]
        if each:
            left_out["answers with three stars"] += len(votes) - len(told)
            for vote in told:
                rows += _written(Rated(question.prompt, text, vote.worth > 0, question.origin), "kto", [vote.said],
                                 each=True)
            continue
        counting = [vote for vote in told if vote.sure] or told
        total = sum(vote.worth for vote in counting)
        if total == 0:
            left_out["answers that are as much liked as not"] += 1
            continue
        rows += _written(Rated(question.prompt, text, total > 0, question.origin), "kto",
                         [vote.said for vote in counting if vote.worth * total > 0])
    return rows


def _by_answer(question: Question, standing: list[Said]) -> dict[str, list[Vote]]:
    by_answer: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in _singles(question, standing):
        by_answer[vote.better].append(vote)
    return by_answer


def _ranked(question: Question, standing: list[Said], each: bool, left_out: Counter[str]) -> Rows:
    """The answers in order, where of every two more people put the one before the other. Edited ones are not in it:
    nobody compared them with all others.
    """
    votes = [vote for vote in _pairs(question, standing) if vote.worth and vote.said.kind == "verdict"]
    ahead: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        ahead[vote.better, vote.worse] += 1
        ahead[vote.worse, vote.better] -= 1
    texts = list(dict.fromkeys(text for pair in ahead for text in pair))
    beats = {text: sum(ahead[text, other] > 0 for other in texts) for text in texts}
    order = sorted(texts, key=lambda text: -beats[text])
    if len(order) < 2 or any(ahead[a, b] <= 0 for a, b in combinations(order, 2)):
        left_out["prompts whose answers are in no full order"] += 1
        return []
    return _written(Ranked(question.prompt, tuple(order), question.origin), "ranked", [vote.said for vote in votes])


def _sft(question: Question, standing: list[Said], each: bool, left_out: Counter[str]) -> Rows:
    """Every edited answer; else the one that is liked most, where it is liked at all."""
    edited = {said.value["text"]: said for said in standing if said.kind == "edit"}
    chosen = [(text, [said]) for text, said in edited.items()] or _best(question, standing)
    if not chosen:
        left_out["prompts without an answer that was preferred or liked"] += 1
    return [row for text, said in chosen for row in _written(
        Conversation((*question.prompt, Message("assistant", text)), question.origin), "sft", said)]


def _best(question: Question, standing: list[Said]) -> list[tuple[str, list[Said]]]:
    votes = _by_answer(question, standing)
    liked = {text: sum(vote.worth for vote in of) for text, of in votes.items()
             if not any(vote.sure and vote.worth < 0 for vote in of)}
    best = max(liked, key=lambda text: liked[text], default="")
    if not liked or liked[best] <= 0:
        return []
    return [(best, [vote.said for vote in votes[best] if vote.worth > 0])]


def _rollouts(question: Question, standing: list[Said], each: bool, left_out: Counter[str]) -> Rows:
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for vote in _pairs(question, standing):
        if vote.said.ask != "stars" or vote.said.kind == "edit":
            no_winner = 0.0 if vote.said.kind == "verdict" and vote.said.verdict.bad else 0.5
            rewards[vote.better].append(1 if vote.worth else no_winner)
            rewards[vote.worse].append(0 if vote.worth else no_winner)
    for said in standing:
        verdict = said.verdict
        if verdict.stars is not None:
            rewards[question.answers[said.shown[0]]].append((verdict.stars - 1) / (STARS - 1))
        elif verdict.liked is not None:
            rewards[question.answers[said.shown[0]]].append(float(verdict.liked))
    if len(rewards) < len(question.answers):
        left_out["answers that nobody judged"] += len(question.answers.keys()) - sum(
            text in rewards for text in question.answers.values())
    return _written(Rollout(question.prompt, tuple(rewards), tuple(map(fmean, rewards.values())), question.origin),
                    "rollouts", standing)


_MAKERS: dict[Format, Callable[[Question, list[Said], bool, Counter[str]], Rows]] = {
    "preference": _preference, "kto": _kto, "ranked": _ranked, "sft": _sft, "rollouts": _rollouts}
