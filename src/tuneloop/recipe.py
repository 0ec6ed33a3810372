"""The recipe: one YAML file, put together from the specs that each owner defines, and checked whole at once."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from tuneloop.catalog import Catalog
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError, raise_all
from tuneloop.evaluation.goal import NOT_YET, Goal
from tuneloop.evaluation.spec import EvaluationSpec
from tuneloop.methods.base import MethodSpec
from tuneloop.models.aliases import aliases
from tuneloop.objectives.base import Objective
from tuneloop.plan.spec import TrainingSpec
from tuneloop.spec import Spec

METHODS = Catalog("method", "tuneloop.methods", "Method")
OBJECTIVES = Catalog("objective", "tuneloop.objectives", "Objective")
PARTS: dict[str, type[Spec]] = {"data": DataSpec, "goal": Goal, "training": TrainingSpec, "evaluation": EvaluationSpec}
CHOICES = {"method": METHODS, "objective": OBJECTIVES}
SCALARS: dict[str, Any] = {
    "base": Annotated[str, Field(min_length=1)],
    "name": Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")],      # it becomes part of the run folder's name
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
}
TOP = [*SCALARS, *PARTS, *CHOICES]
DEFAULTS = {"name": "run", "seed": 0, "goal": {}, "training": {}, "evaluation": {}, "method": "lora",
            "objective": "sft"}

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `given` is what the user wrote, overrides included; relative paths count from `root`."""

    base: str
    data: DataSpec
    goal: Goal
    method: MethodSpec
    objective: Objective
    training: TrainingSpec
    evaluation: EvaluationSpec
    name: str
    seed: int
    root: Path
    given: dict[str, Any]

    def portable(self) -> dict[str, Any]:
        """`given` with absolute paths, so that the run folder's copy works from anywhere."""
        given = {**self.given, "data": dict(self.given["data"])}
        for key in ("train", "validation", "test"):
            if given["data"].get(key):
                given["data"][key] = str((self.root / Path(given["data"][key]).expanduser()).resolve())
        if self.base.lower() not in aliases() and (self.root / self.base).exists():     # as models.resolve decides
            given["base"] = str((self.root / self.base).resolve())
        return given


DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".gz")


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key=value` overrides. Raises UserError with every problem at once, by line."""
    if path.suffix.lower() in DATA_FILES:
        raise UserError(f"{path} is a data file, not a recipe.", fix=f"write a recipe for it: tuneloop init {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no recipe {path}.", fix="`tuneloop init DATA_FILE` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} cannot be read: {error}.") from error
    return parse(text, shown=str(path), root=path.resolve().parent, overrides=overrides)


def parse(text: str, *, shown: str, root: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from its text; `shown` names it in messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{shown}{where}: this is not YAML: {getattr(error, 'problem', None) or error}.",
                        fix="texts with a colon, a brace or a hash need quotes") from error
    if not isinstance(given, dict):
        raise UserError(f"{shown}: a recipe is a list of `key: value` lines, and this is not.",
                        wanted="at least `base:` and `data:`")
    places = _Places(shown)
    problems = []
    for path, line in _lines(node):
        if path in places.lines:
            problems.append(UserError(f"{shown} line {line}: '{'.'.join(path)}' is given twice, first in line "
                                      f"{places.lines[path]}."))
        places.lines.setdefault(path, line)
    for override in overrides:
        places.overridden.add(_override(given, override))
    return _Checker(given, places, problems).recipe(root)


@dataclass
class _Places:
    """Where each key of the recipe was written."""

    shown: str
    lines: dict[Path_, int] = dataclasses.field(default_factory=dict)
    overridden: set[Path_] = dataclasses.field(default_factory=set)

    def __getitem__(self, path: Path_) -> str:
        if path in self.overridden or (path not in self.lines and any(o[:len(path)] == path for o in self.overridden)):
            return f"{'.'.join(path)} on the command line"
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.shown} line {self.lines[path]}" if path else self.shown


def _lines(node: Any, path: Path_ = ()) -> Iterable[tuple[Path_, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)


def _override(given: dict[str, Any], override: str) -> Path_:
    """Set `a.b=value` in `given`; `method.rank=8` turns `method: lora` into `{kind: lora, rank: 8}`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not an override.", wanted="key=value, such as training.epochs=1")
    path = tuple(key.strip().split("."))
    at = given
    for part in path[:-1]:      # what is left empty (`training:`) means its default, as everywhere
        inner = DEFAULTS.get(part, {}) if at.get(part) is None else at[part]
        if not isinstance(inner, dict):
            inner = {"kind": inner}
        at[part] = at = dict(inner)
    try:
        at[path[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The value of '{override}' is not YAML.", fix="quote it") from error
    return path


@dataclass
class _Checker:
    """Checks the whole recipe and collects every problem before it gives up."""

    given: dict[str, Any]
    where: _Places
    problems: list[UserError] = dataclasses.field(default_factory=list)

    def recipe(self, root: Path) -> Recipe:
        values = DEFAULTS | {key: value for key, value in self.given.items() if value is not None}
        self._refuse_unknown(values, TOP, ())
        for name in ("base", "data"):
            if name not in values:
                self.problems.append(UserError(f"{self.where.shown}: '{name}' is missing.", wanted={
                    "base": "the model to start from, such as base: smollm2-135m-instruct",
                    "data": "the rows to learn from, such as data: {train: rows.csv}"}[name]))
        made = {name: self._validated(kind, values[name], (name,)) for name, kind in SCALARS.items() if name in values}
        made |= {name: self._part(spec, values[name], name) for name, spec in PARTS.items() if name in values}
        made |= {name: self._chosen(catalog, values[name], name) for name, catalog in CHOICES.items()}
        raise_all(self.problems)
        return Recipe(**made, root=root, given=self.given)

    def _part(self, spec: type[Spec], value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            self._add((name,), f"'{name}' must hold keys, and is {value!r}",
                      wanted=f"some of: {', '.join(spec.model_fields)}")
            return None
        value = self._refuse_unknown(value, list(spec.model_fields), (name,))
        for key, field in spec.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Spec) and isinstance(value.get(key), dict):
                value[key] = self._refuse_unknown(value[key], list(inner.model_fields), (name, key))
        return self._validated(spec, value, (name,))

    def _chosen(self, catalog: Catalog, value: Any, name: str) -> Any:
        """`lora` or `{kind: lora, rank: 8}`."""
        options = dict(value) if isinstance(value, dict) else {"kind": value}
        kind = options.get("kind")
        if kind is None:
            self._add((name,), f"'{name}.kind' is missing", wanted=f"one of: {', '.join(catalog.names)}")
            return None
        try:
            chosen = catalog.get(str(kind))
        except UserError as error:
            self._add((name, "kind") if isinstance(value, dict) else (name,), error.found.rstrip("."),
                      wanted=error.wanted, fix=error.fix)
            return None
        if issubclass(chosen, Spec):
            return self._validated(chosen, self._refuse_unknown(options, list(chosen.model_fields), (name,)), (name,))
        fields = [f.name for f in dataclasses.fields(chosen)]
        del options["kind"]
        return self._validated(chosen, self._refuse_unknown(options, fields, (name,)), (name,))

    def _validated(self, kind: Any, value: Any, path: Path_) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value, strict=False)
        except ValidationError as error:
            for item in error.errors():
                at = (*path, *(str(part) for part in item["loc"]))
                if item["type"] == "missing":
                    self._add(at, f"'{'.'.join(at)}' is missing")
                else:
                    wanted = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
                    quotes = item["type"] == "string_type" and isinstance(item["input"], dict)
                    self._add(at, f"'{'.'.join(at)}' is {item['input']!r}",
                              fix='put it in quotes, such as "{label}"' if quotes else "",
                              wanted="letters, digits, dots, dashes and underscores" if "pattern" in wanted else wanted)
            return None

    def _refuse_unknown(self, value: dict[str, Any], known: list[str], path: Path_) -> dict[str, Any]:
        """`value` without its unknown keys, which are reported."""
        for key in [k for k in value if k not in known]:
            at = (*path, str(key))
            if path == ("goal",) and key in NOT_YET:
                self._add(at, f"'goal.{key}' is not supported yet: {NOT_YET[key]}", fix="leave it out")
            else:
                self._add(at, f"unknown key '{'.'.join(at)}'", fix=_did_you_mean(str(key), known, path),
                          wanted=f"one of: {', '.join(known)}" if known else "no keys but kind")
        return {k: v for k, v in value.items() if k in known}

    def _add(self, path: Path_, found: str, *, wanted: str = "", fix: str = "") -> None:
        self.problems.append(UserError(f"{self.where[path]}: {found}.", wanted=wanted, fix=fix))


def _did_you_mean(key: str, known: list[str], path: Path_) -> str:
    """A key that lives elsewhere in a recipe, a name that other tools use, or one spelt nearly so."""
    elsewhere = [f"{part}.{key}" for part, spec in PARTS.items() if key in spec.model_fields]
    elsewhere += [f"method.{key}" for name in METHODS.names if key in METHODS.get(name).model_fields][:1]
    foreign = yaml.safe_load((files("tuneloop") / "foreign_keys.yaml").read_text(encoding="utf-8")).get(key.lower())
    near = [".".join((*path, name)) for name in difflib.get_close_matches(key, known, n=1)]
    meant = next(iter([*elsewhere, foreign] if elsewhere or foreign else near), None)
    return f"did you mean '{meant}'?" if meant and " " not in meant else f"use {meant}" if meant else ""


def schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    def chosen(catalog: Catalog) -> dict[str, Any]:
        found = [TypeAdapter(catalog.get(name)).json_schema() for name in catalog.names]
        for name, one in zip(catalog.names, found, strict=True):
            one.setdefault("properties", {})["kind"] = {"const": name}
        return {"anyOf": [{"enum": catalog.names}, *found]}

    properties: dict[str, Any] = {name: TypeAdapter(kind).json_schema() for name, kind in SCALARS.items()}
    definitions: dict[str, Any] = {}
    for name, spec in PARTS.items():
        part = spec.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= part.pop("$defs", {})
        properties[name] = part
    properties |= {name: chosen(catalog) for name, catalog in CHOICES.items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tuneloop recipe", "type": "object",
            "required": ["base", "data"], "additionalProperties": False, "properties": properties, "$defs": definitions}
