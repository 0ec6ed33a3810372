"""The `rewards:` list of a recipe: graders, each with a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.grading.graders.base import Grader
from tuneloop.grading.graders.catalog import KINDS, TYPES, Flaw, Path_, Reader
from tuneloop.grading.graders.measured import of_rows

_FUNCTION = re.compile(r"(.*\.py)(:[A-Za-z_]\w*)?")


@dataclass(frozen=True)
class Reward:
    """A grader, and how much it counts."""

    name: str
    grader: Grader
    weight: float = 1.0             # by its share of all weights
    on_failure: float | None = None         # None: as bad as can be

    def to_json(self) -> dict[str, Any]:
        """For records: every setting, and the sha256 of files."""
        return {"name": self.name, "weight": self.weight, "on_failure": self.on_failure,
                **self.grader.model_dump(mode="json", by_alias=True),
                **({"sha256": self.grader.files} if self.grader.files else {})}


def read_rewards(config: Any, root: Path, path: Path_ = ("rewards",)) -> tuple[list[Reward], list[Flaw]]:
    """The same with the flaws beside it, each with its path below `path`."""
    reader = Reader(root)
    if not isinstance(config, Sequence) or isinstance(config, str) or not config:
        reader.wrong(path, f"'{'.'.join(path)}' is {config!r}", "a list of graders, such as [exact, {kind: length, "
                                                                 "high: 50}]")
        return [], reader.flaws
    rewards: list[Reward] = []
    for i, given in enumerate(config):
        here = (*path, str(i))
        options = dict(given) if isinstance(given, Mapping) else {}
        weight = _number(reader, options.pop("weight", 1.0), (*here, "weight"), at_least=0)
        on_failure = options.pop("on_failure", None)
        if on_failure is not None:
            on_failure = _number(reader, on_failure, (*here, "on_failure"))
        name = options.get("name") if "type" in options else options.pop("name", None)
        grader = reader.grader(options if isinstance(given, Mapping) else given, here)
        if grader is not None:
            rewards.append(Reward(_named(name or _spoken(grader), [one.name for one in rewards]), grader, weight,
                                  on_failure))
    if not reader.flaws and not any(one.weight for one in rewards):
        reader.wrong(path, f"all weights of '{'.'.join(path)}' are 0", "a weight above 0")
    return rewards, reader.flaws


def _number(reader: Reader, given: Any, path: Path_, at_least: float = -math.inf) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given) or given < at_least:
        reader.wrong(path, f"'{'.'.join(path)}' is {given!r}",
                     "a number" if at_least == -math.inf else f"a number of at least {at_least:g}")
        return 1.0
    return float(given)


def _spoken(grader: Grader) -> str:
    """What a grader without a name is called: its kind, or its function."""
    file = getattr(grader, "file", "")
    return str(file).rpartition(":")[2] if file else str(getattr(grader, "kind", getattr(grader, "name", "grader")))


def _named(name: Any, taken: Sequence[str]) -> str:
    """`name`, or with a number behind it where it is taken."""
    number, said = 1, str(name)
    while said in taken:
        number += 1
        said = f"{name} {number}"
    return said


# ── elsewhere ────────────────────────────────────────────────────────────────────────────────────────────────────────

def portable(config: Any, root: Path, model: Callable[[str], str]) -> Any:
    """The same list, or a part of it, with absolute paths; `model` does that for names of models."""
    if isinstance(config, str):
        return _absolute(config, root)
    if isinstance(config, Sequence):
        return [portable(one, root, model) for one in config]
    if not isinstance(config, Mapping):
        return config
    ways: dict[str, Callable[[Any], Any]] = {
        "kind": lambda kind: _absolute(kind, root), "file": lambda file: _absolute(file, root),
        "rubric": lambda file: str((root / Path(file).expanduser()).resolve()), "model": model, "run": model,
        "graders": lambda graders: {name: portable(one, root, model) for name, one in graders.items()}
        if isinstance(graders, Mapping) and "type" not in graders else portable(graders, root, model)}
    return {key: ways[key](value) if key in ways and value is not None else value for key, value in config.items()}


def _absolute(name: Any, root: Path) -> Any:
    """FILE.py:FUNCTION from anywhere; what names no file stays as it is."""
    found = _FUNCTION.fullmatch(name) if isinstance(name, str) else None
    return f"{(root / Path(found[1]).expanduser()).resolve()}{found[2] or ''}" if found else name


def schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON schema of the list, for editors, and its definitions."""
    common = {"weight": {"type": "number", "minimum": 0, "default": 1, "description": "By its share of all weights."},
              "on_failure": {"type": "number", "description": "What an answer has that could not be graded; as bad as "
                                                              "can be unless given."}}
    definitions: dict[str, Any] = {}
    objects = []
    for key, table in (("kind", KINDS), ("type", TYPES)):
        for name, grader in table.items():
            one = grader.model_json_schema(ref_template="#/$defs/{model}")
            definitions |= one.pop("$defs", {})
            named = {"name": {"type": "string"}} if key == "kind" else {}
            one["properties"] |= {key: {"const": name}, **named, **common}
            one["required"] = sorted({key, *one.get("required", [])})
            objects.append(one)
    file = {"type": "string", "pattern": _FUNCTION.pattern, "description": "A function in a file: ./reward.py:grade"}
    others = {"type": "object", "required": ["kind"], "additionalProperties": False, "properties": {
        "kind": {"anyOf": [{"enum": of_rows()}, file]}, "name": {"type": "string"}, **common,
        **{key: {} for key in ("range", "seconds", "memory_mb")}}}
    alone = {"enum": [*(name for name, one in KINDS.items() if one.model_json_schema().get("required", []) == []),
                      *of_rows()]}
    return ({"type": "array", "items": {"anyOf": [alone, file, *objects, others]},
             "description": "What rewards answers: docs/graders.md"}, definitions)
