"""Questions and answers about passages: a model writes them, and what the passage does not support is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tuneloop.data.augment import parse
from tuneloop.data.augment.overlap import Known, content_words, numbers, words
from tuneloop.data.augment.refused import Refused
from tuneloop.data.fixes.base import Generate
from tuneloop.data.read import Row
from tuneloop.errors import UserError
from tuneloop.types import Message

SUPPORT = 0.6               # of the answer's content words that must be in the passage
ALIKE = 0.8                 # ROUGE-L with a known question from which on one is the same again
QUESTION_WORDS = (4, 60)    # fewest and most
ANSWER_WORDS = (1, 200)
BATCH = 64                  # passages at a time

PROMPT = """Write {count} questions that a reader might ask and that the passage below answers, each with its answer.
Each question must be understood by someone who does not see the passage: name what it is about.
Each answer must say only what the passage says. Write in the language of the passage.
Reply with {count} lines, each a JSON object with the keys "question" and "answer", and nothing else.

Passage from "{title}":
---
{text}
---"""


@dataclass(frozen=True)
class Grounded:
    """Rows with prompt, completion, context (the passage) and source (what it cites), and what was refused."""

    rows: list[Row]
    refused: Refused


def grounded_rows(passages: Iterable[Row], generate: Generate, per_passage: int) -> Grounded:
    """Up to `per_passage` questions about each passage, with answers that it supports.

    `passages` are rows as the source of documents gives them: text, source, title. Each new row is on the line of its
    passage. Raises UserError for a row without text.
    """
    rows: list[Row] = []
    refused, known = Refused(), Known()
    for batch in _batches(passages):
        for passage, answer in zip(batch, generate([_prompt(row, per_passage) for row in batch]), strict=True):
            pairs = parse.objects(answer, "question", "answer")
            if not pairs:
                refused.add("no question and answer in the reply", answer)
            for pair in pairs[:per_passage]:
                if why := _flaw(pair["question"], pair["answer"], passage.values["text"], known):
                    refused.add(why, f"{pair['question']} {pair['answer']}")
                else:
                    known.add(pair["question"])
                    rows.append(Row(passage.line, {
                        "prompt": pair["question"], "completion": pair["answer"], "context": passage.values["text"],
                        "source": passage.values.get("source", "")}, passage.file))
    refused.kept = len(rows)
    return Grounded(rows, refused)


def _batches(passages: Iterable[Row]) -> Iterator[list[Row]]:
    coming = iter(passages)
    while batch := list(islice(coming, BATCH)):
        for row in batch:
            if not isinstance(row.values.get("text"), str):
                raise UserError(f"{row.file} line {row.line} has no text.", wanted="passages, as documents give them",
                                fix="name the documents as docs:PATH")
        yield batch


def _prompt(row: Row, count: int) -> tuple[Message, ...]:
    title = row.values.get("title") or row.values.get("source") or row.file
    return (Message("user", PROMPT.format(count=count, title=title, text=row.values["text"])),)


def _flaw(question: str, answer: str, passage: str, known: Known) -> str:
    """Why a pair is refused, or nothing."""
    asked, said = words(question), words(answer)
    for what, length, (fewest, most) in (("question", asked, QUESTION_WORDS), ("answer", said, ANSWER_WORDS)):
        if not fewest <= len(length) <= most:
            return f"the {what} has fewer than {fewest} or more than {most} words"
    if " ".join(asked) in " ".join(words(passage)) or asked == said:
        return "the question is copied from the passage or from its answer"
    if numbers(answer) - numbers(passage):
        return "the answer has a number that the passage has not"
    content = content_words(answer)
    if len(content & set(words(passage))) < max(1, SUPPORT * len(content)):
        return "the passage does not support the answer"
    if known.has_like(question, ALIKE):
        return "nearly the same question as another"
    return ""
