"""Work and people for the tests of judging: questions whose best answer is known, and hands that press keys."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from toy import write_jsonl
from tuneloop.people.desk import KEYS, Desk, Ranking, Showing, Work
from tuneloop.people.items import NONSENSE_ANSWER, Ask, Item, Verdict, better, items_of
from tuneloop.people.questions import Question, read_questions
from tuneloop.people.store import Judgements, Said

ANSWERS = ("poor", "fair", "good")


def rows(prompts: int, answers: Sequence[str] = ANSWERS) -> list[dict[str, Any]]:
    """Collected answers; `good 3` answers question 3 well."""
    return [{"prompt": f"Question {i}?", "completions": [f"{word} {i}" for word in answers],
             "sampled": [{"model": "base"}, *[{"model": "tuned"}] * (len(answers) - 1)]} for i in range(prompts)]


def questions(folder: Path, prompts: int, answers: Sequence[str] = ANSWERS) -> list[Question]:
    folder.mkdir(exist_ok=True)
    return read_questions(write_jsonl(folder / "collected.jsonl", rows(prompts, answers)))


def work(folder: Path, prompts: int = 20, ask: Ask = "compare", answers: Sequence[str] = ANSWERS, *,
         read_only: bool = False, **options: Any) -> Work:
    """Of a file that is written first, unless it is there."""
    found = read_questions(folder / "collected.jsonl") if read_only else questions(folder, prompts, answers)
    return Work({one.id: one for one in found}, items_of(found, ask, options.pop("per_prompt", None)), ask, **options)


def store(folder: Path) -> Judgements:
    return Judgements(folder / "said.sqlite")


def in_memory() -> Judgements:
    """For people who say much: every row of a file waits for the disk."""
    return Judgements(Path(":memory:"))


def desk(of: Work, kept: Judgements, annotator: str = "ann") -> Desk:
    """A desk for hands that need no time."""
    return Desk(of, kept, annotator, least_seconds=0)


def goodness(text: str) -> int:
    """0 for nonsense, up to 3."""
    return 1 + ANSWERS.index(text.split()[0]) if text.split()[0] in ANSWERS else 0


def knows(showing: Showing) -> Verdict:
    """What somebody says who reads and knows."""
    worth = [goodness(text) for text in showing.texts]
    if showing.item.ask == "thumbs":
        return Verdict(liked=worth[0] > 2)
    if showing.item.ask == "stars":
        return Verdict(stars=1 + worth[0])
    order = sorted(range(len(worth)), key=lambda place: -worth[place])
    return Verdict(tuple((showing.answers[place],) for place in order))


def clicks(random_numbers: random.Random) -> Callable[[Showing], Verdict]:
    """What somebody says who does not read."""
    def say(showing: Showing) -> Verdict:
        if showing.item.ask == "order":
            places = list(range(len(showing.answers)))
            random_numbers.shuffle(places)
            return Ranking(tuple((place,) for place in places)).verdict(showing.answers) or Verdict()
        return random_numbers.choice(KEYS[showing.item.ask]).verdict(showing.answers)
    return say


def judge_all(at: Desk, say: Callable[[Showing], Verdict] = knows, most: int = 10**6) -> int:
    """How many items were judged until nothing was left, tests of attention among them."""
    for done in count():
        if at.showing is None or done == most:
            return done
        assert at.judge(at.showing.nonce, say(at.showing))
    return 0


_NONCES = count()


def word(question: Question, verdict: Verdict, annotator: str = "ann", **changes: Any) -> Said:
    """One row of a store. What was shown are the answers of the verdict, or the first one."""
    shown = tuple(answer for group in verdict.groups for answer in group) or tuple(question.answers)[:1]
    ask = "thumbs" if verdict.liked is not None else "stars" if verdict.stars is not None else "compare"
    values: dict[str, Any] = {"item": f"{question.id}:{ask}:{'+'.join(sorted(shown))}", "nonce": f"n{next(_NONCES)}",
                              "ask": ask, "question": question.id, "shown": shown, "value": verdict.to_json()}
    return Said(annotator=annotator, **values | changes)


def answer(question: Question, text: str) -> str:
    """The id of an answer that begins so."""
    return next(name for name, said in question.answers.items() if said.startswith(text))


def prefers(question: Question, best: str, worst: str) -> Verdict:
    return better([answer(question, best), answer(question, worst)], 0)


def is_nonsense(item: Item) -> bool:
    return NONSENSE_ANSWER in item.answers
