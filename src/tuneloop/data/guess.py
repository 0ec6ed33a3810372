"""For `tuneloop init FILE`: what a file seems to hold, and a commented recipe to begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneloop.data import task as tasks
from tuneloop.data.formats.kinds import KINDS
from tuneloop.data.load import Loaded, Wanted, made_of
from tuneloop.data.read import read_table
from tuneloop.data.recognise import choose
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text

EXAMPLES = 3
SHOWN_LABELS = 8


@dataclass(frozen=True)
class Guess:
    """What `init` shows. `prompt` and `answer` are templates, or None when the rows have a known format."""

    file: str
    sentence: str
    notes: list[str]
    rows: int
    prompt: str | None
    answer: str | None
    empty: list[int]                    # lines of rows without an answer
    task: tasks.Task
    labels: list[str]                   # sorted; empty for open answers
    examples: list[Sample]              # with different answers where there are
    objective: str                      # one that learns from such rows


def guess(source: str | Path, shown: str | None = None) -> Guess:
    """Look at a source of rows, which messages and the recipe name `shown`.

    Raises UserError when it cannot be read or no way to use its columns suggests itself.
    """
    table = read_table(str(source), Path(), shown or str(source))
    mapped = choose(table)
    kind = mapped.main.kind
    if not KINDS[kind].objective:
        raise UserError(f"{table.file} holds {KINDS[kind].what}, which no objective learns from.",
                        wanted="questions with their answers, or answers that are judged",
                        fix="tuneloop check looks at such rows, too")
    prompt, answer = mapped.guessed or (None, None)
    found = made_of(table, Wanted(Preference if kind is Ranked else kind, prompt, answer, drop_empty=True))
    if not found.samples:
        raise UserError(f"{table.file}: no row has an answer.", fix="look at the answer column")
    task = tasks.decide(found.samples, "auto")
    labels = sorted({row.answer.strip() for row in found.samples}) if task == "labels" else []
    return Guess(table.file, found.sentence, table.notes, len(table.rows), prompt, answer,
                 [origin.line for origin in found.dropped], task, labels, _examples(found), KINDS[kind].objective)


def _examples(found: Loaded) -> list[Sample]:
    """The first rows, but of different answers, for files are often sorted by them."""
    different = list({row.answer: row for row in reversed(found.samples)}.values())[::-1]
    rest = [row for row in found.samples if row not in different[:EXAMPLES]]
    return (different[:EXAMPLES] + rest)[:EXAMPLES]


def shown(sample: Sample) -> list[tuple[str, str]]:
    """A sample as headings and texts: what was asked, and what the row says of the answers."""
    match sample:
        case Conversation():
            said = _turns(sample.messages[len(sample.prompt):])
        case Preference():
            said = [("chosen", sample.chosen), ("rejected", sample.rejected)]
        case Rated():
            said = [("liked" if sample.desirable else "not liked", sample.answer)]
        case Rollout():
            said = [(f"reward {reward:g}", answer)
                    for answer, reward in zip(sample.answers, sample.rewards, strict=True)]
        case Ranked():
            said = [(f"place {place}", answer) for place, answer in enumerate(sample.answers, 1)]
        case Prompt():
            said = [("right answer", reference) for reference in sample.references]
        case Text():
            said = [("text", sample.text)]
    return [*_turns(sample.prompt), *said]


def _turns(turns: Sequence[Message]) -> list[tuple[str, str]]:
    return [(turn.role, "\n".join(filter(None, [turn.content, *(f"{c.name}({c.arguments})" for c in turn.calls)])))
            for turn in turns]


def recipe_text(found: Guess, base: str) -> str:
    """recipe.yaml for the file, with comments for someone who has never written one."""
    metric, why = {
        "labels": ("accuracy", "share of right answers"),
        "open": ("rouge_l", "resemblance to the given answers, not correctness"),
        "pairs": ("preference_accuracy", "how often it prefers the chosen answer")}[found.task]
    objective = {"sft": "learn to give the answers of the rows", "dpo": "learn which answers are preferred",
                 "kto": "learn from what people liked and what not", "grpo": "learn from the rewards"}[found.objective]
    return "\n".join([
        f"base: {quoted(base)}",
        "data:",
        f"  train: {quoted(found.file)}",
        *_data_lines(found),
        "  # validation and test rows are split off by content; name files of your own with validation: and test:",
        "goal:",
        f"  metric: {metric}                  # {why}",
        "  better_than_base_by: 0.05         # the verdict is decided on the lower end of the interval",
        "method: lora                        # trains a small addition to the base; full trains everything",
        f"objective: {found.objective:<25}# {objective}",
        "training: {}                        # planned from base, rows and machine; for example {epochs: 2}",
    ]) + "\n"


def _data_lines(found: Guess) -> list[str]:
    if found.prompt and found.answer:
        lines = ["  # {column} stands for the row's value. A guess: say here what you would ask a person.",
                 f"  prompt: {quoted(found.prompt)}", f"  answer: {quoted(found.answer)}"]
    else:
        lines = [f"  # {_one_line(found.sentence)}"]
    if found.labels:
        lines.append(f"  # answers are one of {len(found.labels)} labels: {_one_line(_some(found.labels))}")
    if found.empty:
        lines.append(f"  drop_empty: true                  # {len(found.empty)} rows {_why_dropped(found)}, the first "
                     f"at line {found.empty[0]}")
    return lines


def _why_dropped(found: Guess) -> str:
    return "have no answer, or two that cannot be compared" if found.task == "pairs" else "have no answer"


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:SHOWN_LABELS]) + (", …" if len(labels) > SHOWN_LABELS else "")


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def quoted(text: str) -> str:
    """A YAML scalar in double quotes: JSON's, with what YAML calls unprintable written as escapes too."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _one_line(text: str) -> str:
    """Text that is safe in a YAML comment."""
    return _UNPRINTABLE.sub(" ", text)
