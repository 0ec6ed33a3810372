"""A suite of the user's own questions, from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError, raise_all
from tuneloop.evaluation.suites.base import Graded, Suite
from tuneloop.evaluation.suites.items import Asked, Choice, Grade, ask, choose, pick
from tuneloop.inference.backend import Backend, Progress

MATCHES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda said, answer: said.split() == answer.split(),
    "contains": lambda said, answer: answer.lower() in said.lower(),
    "regex": lambda said, answer: re.search(answer, said) is not None,
}
"""How an answer is compared: white space aside, in any case, or anywhere in the answer."""

LONGEST_TOKENS = 256


class Local:
    """The items of a file, in its order: first the questions with choices, then the prompts."""

    def __init__(self, path: Path, items: Sequence[Choice | Asked]) -> None:
        self.name, self.title = path.as_posix(), f"the questions of {path.name}"
        self._items = items

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        items = pick(self._items, limit)
        choices = [item for item in items if isinstance(item, Choice)]
        asked = [item for item in items if isinstance(item, Asked)]
        return (choose(backend, choices, progress) if choices else []) + (
            ask(backend, asked, LONGEST_TOKENS, progress) if asked else [])


def require_suites(names: Sequence[str], root: Path) -> list[dict[str, str]]:
    """The files among suites, which count from `root`, each with its sha256: before and after training must be asked
    the same. Raises a UserError for everything that is wrong with them.
    """
    found, problems = [], []
    for path in (root / name for name in names if name.endswith(".jsonl")):
        try:
            suite_from_file(path)
        except UserError as error:
            problems.append(error)
            continue
        found.append({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    raise_all(problems)
    return found


def suite_from_file(path: Path) -> Suite:
    """A suite of a JSON Lines file. Each line is a question with choices, or a prompt.

    {"question", "choices", "answer"}: scored by likelihood; the answer is one of the choices.
    {"prompt", "answer", "match"}: generated; match is exact (the default), contains or regex.
    `part` and `id` are optional. Raises a UserError that names the line of everything that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")      # JSON may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}", wanted="a JSON Lines file in UTF-8") from None
    items: dict[str, Choice | Asked] = {}
    problems: list[UserError] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                item = _item(line, number)
                if item.id in items:
                    raise _Wrong(f"the id {item.id!r} occurs before", "an id of its own for each item")
                items[item.id] = item
            except _Wrong as wrong:
                problems.append(UserError(f"{path} line {number}: {wrong.found}.", wanted=wrong.wanted))
    if not items and not problems:
        problems = [UserError(f"{path} holds no item.", wanted="a JSON object on each line")]
    raise_all(problems)
    return Local(path, list(items.values()))


class _Wrong(Exception):
    def __init__(self, found: str, wanted: str) -> None:
        self.found, self.wanted = found, wanted


def _item(line: str, number: int) -> Choice | Asked:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _Wrong(f"it is not JSON ({error})", "one JSON object") from None
    if not isinstance(row, dict):
        raise _Wrong(f"it holds a {type(row).__name__}", "one JSON object")
    own, part = str(row.get("id", f"line {number}")), str(row.get("part", ""))
    if "question" in row:
        return _choice(row, own, part)
    if "prompt" in row:
        return Asked(own, part, _text(row, "prompt"), _grader(row))
    raise _Wrong("it has neither a question nor a prompt", '{"question", "choices", "answer"} or {"prompt", "answer"}')


def _choice(row: dict[str, Any], own: str, part: str) -> Choice:
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices) or (
            len(set(choices)) < max(2, len(choices))):
        raise _Wrong("choices is not a list of different texts", "two texts or more")
    answer = _text(row, "answer")
    if answer not in choices:
        raise _Wrong(f"the answer {answer!r} is none of the choices", "the text of one of them")
    return Choice(own, part, _text(row, "question"), tuple(choices), choices.index(answer))


def _grader(row: dict[str, Any]) -> Grade:
    answer, match = _text(row, "answer"), row.get("match", "exact")
    if not isinstance(match, str) or match not in MATCHES:
        raise _Wrong(f"match is {match!r}", f"one of {', '.join(MATCHES)}")
    if match == "regex":
        try:
            re.compile(answer)
        except re.error as error:
            raise _Wrong(f"the answer is no regular expression ({error})", "a pattern of Python's re") from None
    return lambda said: (float(MATCHES[match](said, answer)), "")


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _Wrong(f"{key} is {value!r}" if key in row else f"{key} is missing", "a text")
    return value
