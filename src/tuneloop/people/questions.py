"""What people judge: prompts with several answers, read from a file of collected answers or from rows that hold some.

A file of collected answers is JSONL, a line for each prompt:

    prompt          a text, or messages where it is more than one question
    completions     the different answers
    sampled         of each answer: model, temperature, top_p, seed, stopped, token_ids, logprobs in nats as the model
                    gave them before temperature, and `same`: who else gave it
    asked, empty    answers that were asked for, and those of them that said nothing
    settings, id    hashes: of models and sampling, the same in all lines of a file; of the prompt
    file, line, row where the prompt came from, and the hash of that row

Any row with a prompt and a list of answers can be judged as well, and so can pairs, rankings, sampled answers with
rewards, and single answers. Prompts and answers are known by what they say, so that judgements stay true of a file that
grows or is put in another order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneloop.data.flaws import RowError, flaw_errors
from tuneloop.data.formats.asked import Asked
from tuneloop.data.formats.base import Given, Shape, Values, check_unicode
from tuneloop.data.formats.judged import ASKED, SAMPLED, several
from tuneloop.data.read import Row, Table, read_table
from tuneloop.data.recognise import Mapped, choose
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Conversation, Message, Origin, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text

ID_DIGITS = 16
SCHEME = "data:"


@dataclass(frozen=True)
class Question:
    """A prompt with its different answers, by their ids."""

    id: str
    prompt: tuple[Message, ...]
    answers: dict[str, str]         # id -> text
    origin: Origin
    models: dict[str, str]          # id -> whose answer it is, where the file says so; never shown to who judges


def digest(*parts: Any) -> str:
    """A short hash of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]


def prompt_id(prompt: Sequence[Message]) -> str:
    """What a prompt is known by: what it says, in which roles."""
    return digest([[turn.role, turn.content] for turn in prompt])


def different(texts: Sequence[str]) -> list[int]:
    """Numbers of the answers that a reader can tell apart, the first of each."""
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        first.setdefault(" ".join(text.split()), i)
    return list(first.values())


def read_questions(path: Path) -> list[Question]:
    """The questions of a file; rows of one prompt are put together. Raises a UserError with all that is wrong."""
    if str(path).startswith(SCHEME):
        raise UserError(f"{path} is a version of data, and judgements are kept beside a file.",
                        fix=f"tuneloop data export {path} FILE.jsonl")
    table = read_table(path.name, path.parent, str(path))
    if not table.rows:
        raise UserError(f"{path} holds no rows.", wanted="prompts with answers; `tuneloop collect` writes some")
    reader = _Reader(table)
    flaws: list[tuple[Origin, RowError]] = []
    found: dict[str, Question] = {}
    for row in table.rows:
        origin = Origin(row.file or table.file, row.line, row.digest)
        try:
            question = reader.question(row, origin)
        except RowError as error:
            flaws.append((origin, error))
            continue
        known = found.get(question.id)
        found[question.id] = _together(known, question) if known else question
    raise_all(flaw_errors(flaws))
    return list(found.values())


class _Reader:
    """Rows of one file as questions."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._mapped: Mapped | None = None

    def question(self, row: Row, origin: Origin) -> Question:
        """Raises a RowError for a row that holds no answer, and a UserError where no row can be read."""
        shape = Shape(tuple(row.values), row.values)
        column = shape.find(SAMPLED)
        if column is not None and shape.holds(column, list):
            asked = Asked.of(shape, Given(), ASKED)
            prompt, texts = several(asked, row.values[column], column, row.values) if row.values[column] else (
                asked.complete(asked.before(row.values), row.values), ())
            check_unicode(Ranked(prompt, texts, origin))
        else:
            prompt, texts = _prompt_and_answers(self._sample(row.values, origin))
        said = row.values.get("sampled")
        models = [entry.get("model", "") if isinstance(entry, dict) else "" for entry in said] if isinstance(
            said, list) and len(said) == len(texts) else [""] * len(texts)
        kept = different(texts)
        ids = {digest(texts[i]): i for i in kept}
        return Question(prompt_id(prompt), prompt, {one: texts[i] for one, i in ids.items()}, origin,
                        {one: str(models[i]) for one, i in ids.items()})

    def _sample(self, values: Values, origin: Origin) -> Sample:
        if self._mapped is None:
            self._mapped = choose(self.table)
        return self._mapped.make(values, origin)


def _prompt_and_answers(sample: Sample) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    match sample:
        case Preference():
            return sample.prompt, (sample.chosen, sample.rejected)
        case Ranked() | Rollout():
            return sample.prompt, sample.answers
        case Rated():
            return sample.prompt, (sample.answer,)
        case Conversation() if not sample.tools and not sample.messages[-1].calls:
            return sample.prompt, (sample.answer,)
        case Prompt() | Text() | Conversation():
            raise RowError("there is no answer to judge", "People judge answers, which `tuneloop collect` gathers;")


def _together(known: Question, more: Question) -> Question:
    answers = known.answers | more.answers
    texts = list(answers.values())
    kept = [list(answers)[i] for i in different(texts)]
    models = known.models | more.models
    return replace(known, answers={one: answers[one] for one in kept}, models={one: models[one] for one in kept})
