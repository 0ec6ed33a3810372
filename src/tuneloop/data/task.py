"""Whether answers are labels from a small set or open text, and what is odd about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tuneloop.data.clean import Row
from tuneloop.data.flaws import listed
from tuneloop.data.template import are_labels
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Preference, Rated, Sample

Task = Literal["labels", "open", "pairs"]
"""How a model is judged: by choosing among labels, by what it writes, or by which answer of a pair it prefers."""


def decide(rows: Sequence[Sample], asked: Literal["auto", "labels", "open"]) -> Task:
    """The task as asked for, or found from the rows. Raises UserError when every answer is the same.

    Rows that judge answers have no labels: pairs are judged as pairs, the others as open answers.
    """
    if not rows:
        return "open"       # `prepare` says that nothing is left, and why
    if not isinstance(rows[0], Conversation):
        if asked != "auto":
            raise UserError(f"data.answers is {asked}, but the rows of {rows[0].origin.file} judge answers.",
                            fix="leave data.answers out")
        verdicts = {row.desirable for row in rows if isinstance(row, Rated)}
        if len(rows) > 1 and len(verdicts) == 1:
            said = "liked" if verdicts == {True} else "disliked"
            raise UserError(f"{rows[0].origin.file}: people {said} every answer.",
                            wanted="answers that they liked, and others that they did not",
                            fix="objective=sft learns from good answers alone" if verdicts == {True} else "")
        return "pairs" if isinstance(rows[0], Preference) else "open"
    conversations = [row for row in rows if isinstance(row, Conversation)]
    answers = list(map(_said, conversations))
    if len(set(answers)) == 1 and len(rows) > 1:
        raise UserError(f"{rows[0].origin.file}: every answer is {answers[0][:60]!r}: nothing to learn and nothing to "
                        "tell apart.", wanted="at least two different answers",
                        fix="look at the answer column or the template data.answer")
    if asked != "auto":
        return asked
    return "labels" if are_labels(answers) and all(map(_answers_once, conversations)) else "open"


def _said(row: Conversation) -> str:
    """The answer, with the functions that it calls."""
    last = row.messages[-1]
    return "\n".join([last.content.strip(), *(f"{call.name}({call.arguments})" for call in last.calls)])


def _answers_once(row: Conversation) -> bool:
    """Whether it answers once, and with a text. Earlier assistant turns without loss are examples in the prompt."""
    return not row.messages[-1].calls and not any(m.role == "assistant" and m.train for m in row.prompt)


def with_clean_label(row: Row) -> Row:
    """The row with the spaces around its answer taken off: `positive ` and `positive` are one label."""
    label = row.answer.strip()
    if not isinstance(row, Conversation) or label == row.answer:
        return row
    return replace(row, messages=(*row.prompt, replace(row.messages[-1], content=label)))


def spelling_warnings(rows: Sequence[Conversation]) -> list[str]:
    """Labels that differ only in case or spaces, with the lines of the rarer spellings."""
    lines: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        spellings = lines.setdefault("".join(row.answer.casefold().split()), {})
        spellings.setdefault(row.answer, []).append(row.origin.line)
    warnings = []
    for spellings in lines.values():
        usual, *others = sorted(spellings, key=lambda s: (-len(spellings[s]), s))
        warnings += [f'the label "{other}" (line {listed(spellings[other])}) differs from "{usual}" only in case or '
                     "spaces; they count as two labels" for other in others]
    return warnings
