"""Make new training rows out of the rows there are: with noise, said differently, or new ones in their manner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneloop.data.augment.apart import AUGMENTED_FROM, MADE_BY, digest_of, is_made_up
from tuneloop.data.augment.asked import Leaves, Path, leaves, text_at, with_text
from tuneloop.data.augment.noise import NOISES
from tuneloop.data.augment.paraphrase import paraphrases
from tuneloop.data.augment.refused import SHOWN, Refused, excerpt
from tuneloop.data.augment.self_instruct import Task, self_instruct
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Generate, Item, Tools, Values, count_of
from tuneloop.data.template import are_labels
from tuneloop.errors import UserError
from tuneloop.types import Conversation

Way = Literal["typos", "casing", "deletion", "paraphrase", "self_instruct"]
QUESTIONS = ("instruction", "question", "prompt", "query")      # what is said differently where more goes along with it


class Fix(base.Fix):
    """The rows, each followed by those made from it.

    Answers stay as they are, and so do labels, numbers, addresses, placeholders and code in a question. A made-up row
    says in the column `augmented_from` which row it comes from, and no row is made from it in turn.
    """

    about: ClassVar[str] = "makes more training rows: typos, casing, deletion, paraphrase or self_instruct"
    only_training: ClassVar[bool] = True

    kind: Literal["augment"] = "augment"
    by: tuple[Way, ...] = ("typos",)
    """How new rows are made; `paraphrase` and `self_instruct` need a model that writes."""
    copies: Annotated[int, Field(ge=1, le=20)] = 1
    """New rows from each row, by each way but `self_instruct`."""
    rate: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the words that typos and deletion change."""
    new: Annotated[int, Field(ge=1)] = 100
    """New rows by `self_instruct` in all."""
    seed: int = 0

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        work = _Work.of([item for item in items if not is_made_up(item)], tools)
        for way in self.by:
            if way in NOISES:
                self._noisy(way, work)
            elif way == "paraphrase":
                self._said_differently(work)
            else:
                self._new_tasks(work)
        rows = [row for item in items for row in (item, *work.made.pop(id(item), ()))]
        return Applied(rows, work.log)

    def _noisy(self, way: str, work: _Work) -> None:
        for item, found in zip(work.items, work.leaves, strict=True):
            for copy in range(self.copies):
                rng = Random(f"{self.seed} {way} {copy} {digest_of(item.values)}")
                work.add(way, item, {path: NOISES[way](text_at(item.values, path), self.rate, rng, work.labels)
                                     for path in found.asked})
        work.tell(way, [item for item, found in zip(work.items, work.leaves, strict=True) if not found.asked],
                  "they ask nothing")

    def _said_differently(self, work: _Work) -> None:
        asked = [(item, path) for item, found in zip(work.items, work.leaves, strict=True)
                 if (path := _question(found))]
        texts = [text_at(item.values, path) for item, path in asked]
        found, refused = paraphrases(texts, work.generate("paraphrase"), self.copies, work.labels)
        for (item, path), said in zip(asked, found, strict=True):
            for text in said:
                work.add("paraphrase", item, {path: text})
        could = {id(item) for item, _ in asked}
        work.tell("paraphrase", [item for item in work.items if id(item) not in could],
                  "they have no single question", refused)

    def _new_tasks(self, work: _Work) -> None:
        seeds = [(item, found.asked[0], found.answered[0]) for item, found in
                 zip(work.items, work.leaves, strict=True) if len(found.asked) == len(found.answered) == 1]
        tasks = [Task(text_at(item.values, asked), text_at(item.values, answered)) for item, asked, answered in seeds]
        made, refused = self_instruct(tasks, work.generate("self_instruct"), self.new, self.seed, work.labels)
        for task in made:
            item, asked, answered = seeds[task.like]
            work.add("self_instruct", item, {asked: task.instruction, answered: task.output})
        work.tell("self_instruct", [], "", refused)


@dataclass
class _Work:
    """The rows that others are made from, and what was made so far."""

    items: list[Item]
    leaves: list[Leaves]
    labels: Sequence[str]
    tools: Tools
    made: dict[int, list[Item]] = field(default_factory=lambda: defaultdict(list))     # by id of the item
    parents: dict[str, Places] = field(default_factory=lambda: defaultdict(Places))    # by way, as the next one
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    log: list[Change] = field(default_factory=list)

    @classmethod
    def of(cls, items: list[Item], tools: Tools) -> _Work:
        answers = [item.sample.answer.strip() for item in items if isinstance(item.sample, Conversation)]
        labels = sorted(set(answers)) if len(answers) == len(items) and are_labels(answers) else []
        return cls(items, [leaves(item, tools.again) for item in items], labels, tools)

    def generate(self, way: str) -> Generate:
        if self.tools.generate is None:
            raise UserError(f"augment by={way} needs a model that writes.",
                            fix=f"tuneloop data fix FILE augment by={way} --model BASE, and train on what it makes")
        return self.tools.generate

    def add(self, way: str, item: Item, texts: dict[Path, str]) -> None:
        """A row with these texts, unless it is the row itself or one that was made from it before."""
        values: Values = item.values
        for path, text in texts.items():
            values = with_text(values, path, text)
        values = {**values, AUGMENTED_FROM: digest_of(item.values)}
        if all(text == text_at(item.values, path) for path, text in texts.items()) or any(
                values == other.values for other in self.made[id(item)]):
            return
        self.made[id(item)].append(Item(values, item.origin, self.tools.again(values, item.origin), MADE_BY))
        self.parents[way].add(item.origin)
        if len(self.examples[way]) < SHOWN:
            self.examples[way] += [f"{excerpt(text_at(item.values, path))} → {excerpt(text)}"
                                   for path, text in texts.items()]

    def tell(self, way: str, unfit: Sequence[Item], why: str, refused: Refused | None = None) -> None:
        """Put into the log what came of a way."""
        if places := self.parents[way]:
            self.log.append(Change(f"{count_of(places)} made by {way}", "more ways to ask what is asked", places,
                                   self.examples[way][:SHOWN]))
        if unfit:
            self.log.append(Change(f"from {count_of(unfit)} nothing was made by {way}", why,
                                   Places(item.origin for item in unfit)))
        if refused is not None:
            self.log += [Change(f"{count:,} of the texts that a model wrote for {way} refused", reason,
                                examples=refused.examples[reason]) for reason, count in refused.why.most_common()]


def _question(found: Leaves) -> Path | None:
    """The text to say differently: the only one, or the one that is called a question."""
    if len(found.asked) == 1:
        return found.asked[0]
    return next((path for name in QUESTIONS for path in found.asked if str(path[-1]).lower() == name), None)
