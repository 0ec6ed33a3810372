"""Probes: what a suite asks. The built-in ones lie in data/*.jsonl, larger sets are files of the same columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError, raise_all
from tuneloop.inference.backend import Backend, Progress
from tuneloop.types import Message, Request, Sampling

ANSWER = Sampling(max_new_tokens=128)
"""Greedy and short: a refusal shows at once, and help that comes after one shows soon."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to a model; `part` is its category."""

    id: str
    part: str
    prompt: str


def probes(builtin: str, file: Path | None = None) -> list[Probe]:
    """The built-in probes of this name, or those of a JSONL file with `prompt` and perhaps `id` and `part`."""
    return [Probe(row["id"], row["part"], row["prompt"]) for row in rows(builtin, file, ("prompt",))]


def rows(builtin: str, file: Path | None, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a JSONL file, each with `columns`, `id` (its line unless given) and `part` ("all" unless given).

    Raises a UserError that names every line that does not fit.
    """
    if file is None:
        name = f"{builtin}.jsonl"
        text = resources.files("tuneloop.evaluation.safety").joinpath("data", name).read_text("utf-8")
    else:
        name = str(file)
        text = _read(file)
    found: list[dict[str, Any]] = []
    problems: list[UserError] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = _row(line)
            if row is None or not all(_is_given(row.get(column)) for column in columns):
                problems.append(UserError(f"{name} line {number} is no probe.", wanted=_wanted(columns)))
            else:
                found.append(row | {"id": str(row.get("id", f"line {number}")), "part": str(row.get("part", "all"))})
    raise_all(problems)
    twice = [id for id, count in Counter(row["id"] for row in found).items() if count > 1]
    if twice or not found:
        raise UserError(f"{name} has {f'the id {twice[0]} twice' if twice else 'no probe'}.", wanted=_wanted(columns))
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.", wanted="a JSONL file in UTF-8") from None


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _is_given(value: object) -> bool:
    """A text that is not blank, or two of them."""
    if isinstance(value, list):
        return len(value) == 2 and all(_is_given(v) for v in value)
    return isinstance(value, str) and bool(value.strip())


def _wanted(columns: Sequence[str]) -> str:
    return f"on each line a JSON object with {', '.join(columns)}; id (used once) and part if you like"


def ask(backend: Backend, prompts: Sequence[str], sampling: Sampling = ANSWER,
        progress: Progress | None = None) -> list[str]:
    """What the model answers to each prompt as a single user turn, without a system turn."""
    requests = [Request((Message("user", prompt),)) for prompt in prompts]
    return [completion.text for completion in backend.generate(requests, sampling, progress=progress)]
