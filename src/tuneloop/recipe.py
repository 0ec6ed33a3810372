"""The recipe: one YAML file, put together from the specs that each owner defines, and checked whole at once."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from tuneloop import own_code
from tuneloop.catalog import Catalog
from tuneloop.data.read import from_anywhere
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError, raise_all
from tuneloop.evaluation.goal import NOT_YET, Goal
from tuneloop.evaluation.spec import EvaluationSpec
from tuneloop.grading import reward_spec
from tuneloop.methods.base import MethodSpec
from tuneloop.models.aliases import aliases
from tuneloop.objectives.base import Objective
from tuneloop.plan.spec import DeploySpec, TrainingSpec
from tuneloop.search_spec import SearchSpec
from tuneloop.spec import Spec
from tuneloop.training.rollout_spec import RolloutSpec
from tuneloop.types import Conversation, Preference, Rollout

METHODS = Catalog("method", "tuneloop.methods", "Method")
OBJECTIVES = Catalog("objective", "tuneloop.objectives", "Objective")
PARTS: dict[str, type[Spec]] = {"data": DataSpec, "goal": Goal, "training": TrainingSpec, "evaluation": EvaluationSpec,
                                "search": SearchSpec, "deploy": DeploySpec, "rollouts": RolloutSpec}
CHOICES = {"method": METHODS, "objective": OBJECTIVES}
SCALARS: dict[str, Any] = {
    "base": Annotated[str, Field(min_length=1)],
    "name": Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")],      # it becomes part of the run folder's name
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
}
REWARDS, REWARD = "rewards", "reward"       # the part, and the metric that measures it
TOP = [*SCALARS, *PARTS, *CHOICES, REWARDS]
DEFAULTS = {"name": "run", "seed": 0, "goal": {}, "training": {}, "evaluation": {}, "search": {}, "deploy": {},
            "rollouts": {}, "method": "lora", "objective": "sft"}

AUTO = "auto"
"""A method that the plan chooses."""

TEXTS = {("data", "prompt"), ("data", "answer"), ("data", "system")}
"""Keys whose values on the command line are taken as typed, unless in YAML's quotes: {label} is a mapping to YAML."""

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
    search: SearchSpec
    deploy: DeploySpec
    rollouts: RolloutSpec
    name: str
    seed: int
    root: Path
    given: dict[str, Any]
    rewards: tuple[reward_spec.Reward, ...] = ()
    own_objective: own_code.OwnObjective | None = None      # where the objective is a file of the user's
    auto: bool = False          # the method is to be planned; `method` is the default one until then

    @property
    def online(self) -> bool:
        """Whether the objective learns from answers that the policy samples, as `rollouts` says, and `rewards` grade.
        """
        return bool(self.rewards) and samples_answers(self.objective)

    @property
    def row_kind(self) -> type[Any]:
        """What the rows are read as; a policy that samples its own answers needs prompts, with a right answer each."""
        return Conversation if self.online else self.objective.batch_kind

    @property
    def training_seed(self) -> int:
        """What training draws by; the rows keep to `seed`, so that runs with several seeds answer the same ones."""
        return self.seed if self.training.seed is None else self.training.seed

    @property
    def objective_record(self) -> dict[str, Any]:
        """The objective with every option, for records: its `kind`, and the `sha256` of its file if it has one."""
        own = self.own_objective
        kind = own.reference if own else _kind_of(self.given.get("objective") or DEFAULTS["objective"])
        options = TypeAdapter(type(self.objective)).dump_python(self.objective, mode="json")
        return {"kind": kind, **options, **({"sha256": own.sha256} if own else {})}

    @property
    def rewards_record(self) -> list[dict[str, Any]]:
        """The graders with every option, for records, and the `sha256` of their files."""
        return [one.to_json() for one in self.rewards]

    def portable(self) -> dict[str, Any]:
        """`given` with absolute paths, so that the run folder's copy works from anywhere."""
        given = {**self.given, "data": self._portable_data(self.given["data"])}
        given["base"] = self.portable_model(given["base"])
        options = given.get("objective")
        if isinstance(options, dict):
            models = {key: self.portable_model(options[key]) for key in ("reference", "teacher")
                      if isinstance(options.get(key), str)}
            given["objective"] = options = options | models
        if isinstance(given.get("evaluation"), dict):
            given["evaluation"] = self._portable_evaluation(given["evaluation"])
        if given.get(REWARDS):
            given[REWARDS] = reward_spec.portable(given[REWARDS], self.root, self.portable_model)
        if self.own_objective:
            reference = self.own_objective.reference
            given["objective"] = options | {"kind": reference} if isinstance(options, dict) else reference
        return given

    def _portable_data(self, given: dict[str, Any]) -> dict[str, Any]:
        data = dict(given)
        for key in ("train", "validation", "test"):
            if data.get(key):
                data[key] = from_anywhere(data[key], self.root)
        if data.get("evaluation_sets"):
            data["evaluation_sets"] = [from_anywhere(name, self.root) for name in data["evaluation_sets"]]
        if data.get("mix"):
            data["mix"] = [source | {"from": from_anywhere(source["from"], self.root)} for source in data["mix"]]
        return data

    def _portable_evaluation(self, given: dict[str, Any]) -> dict[str, Any]:
        evaluation = dict(given)
        if evaluation.get("compare_to"):
            evaluation["compare_to"] = [self.portable_model(rival) if isinstance(rival, str) else rival
                                        for rival in evaluation["compare_to"]]
        if isinstance(evaluation.get("judge"), str):
            evaluation["judge"] = self.portable_model(evaluation["judge"])
        if evaluation.get("policies"):
            evaluation["policies"] = [from_anywhere(file, self.root) for file in evaluation["policies"]]
        if evaluation.get("suites"):
            evaluation["suites"] = [from_anywhere(suite, self.root) if suite.endswith(".jsonl") else suite
                                    for suite in evaluation["suites"]]
        return evaluation

    def portable_model(self, name: str) -> str:
        """A model's name; with an absolute path where it is a folder or file."""
        if name.lower() in aliases() or not (self.root / name).exists():     # as models.resolve decides
            return name
        return str((self.root / name).resolve())


def _kind_of(chosen: Any) -> Any:
    """`dpo` of `dpo` and of `{kind: dpo, beta: 0.3}`."""
    return chosen.get("kind") if isinstance(chosen, dict) else chosen


DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".gz")


def load(path: Path, overrides: Sequence[str] = (), *, run_own_code: bool = True) -> Recipe:
    """Read a recipe file and apply `key=value` overrides. Raises UserError with every problem at once, by line.

    With `run_own_code` off an objective in a file of the user's is not looked for, and the recipe's has no loss: who
    uses a finished run needs none.
    """
    if path.suffix.lower() in DATA_FILES:
        raise UserError(f"{path} is a data file, not a recipe.", fix=f"write a recipe for it: tuneloop init {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a recipe.",
                        fix=f"name the file, such as {path / 'recipe.yaml'}") from None
    except FileNotFoundError:
        raise UserError(f"There is no recipe {path}.", fix="`tuneloop init DATA_FILE` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The recipe {path} cannot be read: {error}.") from error
    return parse(text, shown=str(path), root=path.resolve().parent, overrides=overrides, run_own_code=run_own_code)


def parse(text: str, *, shown: str, root: Path, overrides: Sequence[str] = (), run_own_code: bool = True) -> Recipe:
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
    return _Checker(given, places, root, problems, run_own_code).recipe()


def of(given: dict[str, Any], *, shown: str, root: Path, run_own_code: bool = True) -> Recipe:
    """A recipe from its keys and values; `shown` names it in messages."""
    return _Checker(given, _Places(shown), root, run_own_code=run_own_code).recipe()


def objective_of(kind: str, options: Sequence[str], root: Path) -> Objective:
    """An objective by name or file, with `key=value` options, outside a recipe. Raises UserError."""
    places, given = _Places("the command line"), {"objective": kind}
    for option in options:
        places.overridden.add(_override(given, f"objective.{option.removeprefix('objective.')}"))
    checker = _Checker(given, places, root)
    objective: Objective = checker.choose(OBJECTIVES, given["objective"], "objective")
    raise_all(checker.problems)
    return objective


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
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*path, str(i)), value.start_mark.line + 1
            yield from _lines(value, (*path, str(i)))


def _override(given: dict[str, Any], override: str) -> Path_:
    """Set `a.b=value` in `given`; `method.rank=8` turns `method: lora` into `{kind: lora, rank: 8}`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not an override.", wanted="key=value, such as training.epochs=1")
    path = tuple(key.strip().split("."))
    at = given
    for part in path[:-1]:      # what is left empty (`training:`) means its default, as everywhere
        default = DEFAULTS.get(part, {}) if at is given else {}
        inner = default if at.get(part) is None else at[part]
        if not isinstance(inner, dict):
            inner = {"kind": inner}
        at[part] = at = dict(inner)
    if path in TEXTS and text[:1] not in ("'", '"') and text.strip() not in ("", "null", "~"):
        at[path[-1]] = text
        return path
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
    root: Path
    problems: list[UserError] = dataclasses.field(default_factory=list)
    run_own_code: bool = True
    own_objective: own_code.OwnObjective | None = None

    def recipe(self) -> Recipe:
        values = DEFAULTS | {key: value for key, value in self.given.items() if value is not None}
        self._refuse_unknown(values, TOP, ())
        for name in ("base", "data"):
            if name not in values:
                self.problems.append(UserError(f"{self.where.shown}: '{name}' is missing.", wanted={
                    "base": "the model to start from, such as base: smollm2-135m-instruct",
                    "data": "the rows to learn from, such as data: {train: rows.csv}"}[name]))
        made = {name: self._validated(kind, values[name], (name,)) for name, kind in SCALARS.items() if name in values}
        made |= {name: self._part(spec, values[name], name) for name, spec in PARTS.items() if name in values}
        made |= {name: self.choose(catalog, values[name], name) for name, catalog in CHOICES.items()}
        if self.run_own_code:
            made[REWARDS] = self._rewards(values.get(REWARDS))
            if not self.problems:
                self._check_rewards(made["objective"], made["goal"], made["evaluation"], bool(made[REWARDS]))
        raise_all(self.problems)
        return Recipe(**made, root=self.root, given=self.given, own_objective=self.own_objective,
                      auto=_kind_of(values["method"]) == AUTO)

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

    def _rewards(self, value: Any) -> tuple[reward_spec.Reward, ...]:
        if value is None:
            return ()
        rewards, flaws = reward_spec.read_rewards(value, self.root)
        for flaw in flaws:
            self._add(flaw.path, flaw.found, wanted=flaw.wanted, fix=flaw.fix)
        return tuple(rewards)

    def _check_rewards(self, objective: Objective, goal: Goal, evaluation: EvaluationSpec, given: bool) -> None:
        """Rewards that nothing uses are refused, and a metric that has none."""
        asking = [("goal", "metric")] * (goal.metric == REWARD) + [("evaluation", "metrics")] * (
            REWARD in evaluation.metrics)
        if given and not asking and not samples_answers(objective):
            self._add((REWARDS,), "'rewards' is given, but this objective samples no answers, and nothing measures the "
                      "metric reward", fix="set objective=grpo, or goal.metric=reward, or leave rewards out")
        for path in () if given else asking:
            self._add(path, f"'{'.'.join(path)}' names the metric reward, and there are no `rewards` to measure",
                      wanted="a list of graders, such as rewards: [exact]: docs/graders.md")

    def choose(self, catalog: Catalog, value: Any, name: str) -> Any:
        """`lora` or `{kind: lora, rank: 8}`; an objective may be a file: `./my_loss.py:MyLoss`."""
        options = dict(value) if isinstance(value, dict) else {"kind": value}
        kind = options.get("kind")
        if kind is None:
            self._add((name,), f"'{name}.kind' is missing", wanted=f"one of: {', '.join(catalog.names)}")
            return None
        if catalog is METHODS and kind == AUTO:
            self._refuse_unknown(options, ["kind"], (name,))
            options, kind = {"kind": "lora"}, "lora"       # as where nothing is said
        own = catalog is OBJECTIVES and own_code.is_reference(kind)
        if own and not self.run_own_code:
            return Objective()
        try:
            chosen = self._own(kind) if own else catalog.get(str(kind))
        except UserError as error:
            self._add((name, "kind") if isinstance(value, dict) else (name,), error.found.rstrip("."),
                      wanted=error.wanted, fix=error.fix)
            return None
        if not issubclass(chosen, Spec):
            del options["kind"]
        made = self._validated(chosen, self._refuse_unknown(options, options_of(chosen), (name,)), (name,))
        for flaw in own_code.declaration_flaws(made) if own and made is not None else []:
            self._add((name,), flaw.found.rstrip("."), wanted=flaw.wanted, fix=flaw.fix)
        return made

    def _own(self, reference: str) -> type[Objective]:
        self.own_objective = own_code.find(reference, self.root)
        return self.own_objective.made_by

    def _validated(self, kind: Any, value: Any, path: Path_) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value, strict=False)
        except ValidationError as error:
            for item in error.errors():
                self._add_invalid(item, value, path)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            why = str(error).splitlines()[0].rstrip(".")
            self._add(path, f"an option of {kind.__name__} has a type that a recipe cannot hold: {why}",
                      wanted="numbers, texts, true or false, lists of those")
        except Exception as error:      # `__post_init__` is the user's where the class is
            if self.own_objective is None:
                raise
            self._add(path, f"{kind.__name__} cannot be made: {own_code.told(error, self.own_objective.file)}")
        return None

    def _add_invalid(self, item: Any, value: Any, path: Path_) -> None:
        """One of pydantic's findings; what `__post_init__` says is put where the option it speaks of is given."""
        known = item["loc"] if item["type"] == "missing" else _in(value, item["loc"])
        at = (*path, *(str(part) for part in known))
        found, wanted = item["input"], item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        if item["type"] == "missing":
            self._add(at, f"'{'.'.join(at)}' is missing")
            return
        if item["type"] == "value_error" and not item["loc"] and isinstance(value, dict):
            spoken = next((word for word in re.findall(r"\w+", wanted) if word in value), None)
            at, found = ((*path, spoken), value[spoken]) if spoken else (at, value)
        if item["type"] == "model_type":        # a whole part in place of its keys
            wanted = "its keys, such as data.split.test=0.2" if at == ("data", "split") else "keys and values"
        if item["type"] == "too_short":
            wanted = f"at least {item['ctx']['min_length']} of them"
        quotes = item["type"] == "string_type" and isinstance(item["input"], dict)
        self._add(at, f"'{'.'.join(at)}' is {found!r}",
                  fix='put it in quotes, such as "{label}"' if quotes else "",
                  wanted="letters, digits, dots, dashes and underscores" if "pattern" in wanted else wanted)

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


def samples_answers(objective: Objective) -> bool:
    """Whether an objective can learn from answers that the policy samples and graders reward."""
    return objective.batch_kind in (Rollout, Preference) and "scores" not in objective.needs


def _in(value: Any, path: Iterable[Any]) -> Iterable[Any]:
    """As much of `path` as is there; pydantic adds the name of the type that it tried where there are several."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return
        yield part


def _did_you_mean(key: str, known: list[str], path: Path_) -> str:
    """A key that lives elsewhere in a recipe, a name that other tools use, or one spelt nearly so."""
    elsewhere = [f"{part}.{key}" for part, spec in PARTS.items() if key in spec.model_fields]
    for choice, catalog in CHOICES.items():
        having = [name for name in catalog.names if key in options_of(catalog.get(name))]
        if having and path == (choice,):
            return f"'{key}' is an option of: {', '.join(having)}"
        elsewhere += [f"{choice}.{key}"] if having else []
    foreign = yaml.safe_load((files("tuneloop") / "foreign_keys.yaml").read_text(encoding="utf-8")).get(key.lower())
    near = [".".join((*path, name)) for name in difflib.get_close_matches(key, known, n=1)]
    meant = next(iter([*elsewhere, foreign] if elsewhere or foreign else near), None)
    return f"did you mean '{meant}'?" if meant and " " not in meant else f"use {meant}" if meant else ""


def options_of(chosen: Any) -> list[str]:
    """The keys that a recipe may give to a method or an objective."""
    if issubclass(chosen, Spec):
        return list(chosen.model_fields)
    return [f.name for f in dataclasses.fields(chosen) if f.init]


def schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors."""
    properties: dict[str, Any] = {name: TypeAdapter(kind).json_schema() for name, kind in SCALARS.items()}
    definitions: dict[str, Any] = {}
    for name, spec in PARTS.items():
        part = spec.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= part.pop("$defs", {})
        properties[name] = part
    properties |= {name: _schema_of_choice(catalog) for name, catalog in CHOICES.items()}
    properties[REWARDS], of_rewards = reward_spec.schema()
    definitions |= of_rewards
    own = {"type": "string", "pattern": r"\.py:[A-Za-z_]\w*$", "description": "A class in a file: ./my_loss.py:MyLoss"}
    properties["method"]["anyOf"].append({"const": AUTO, "description": "Chosen by the plan, which says why."})
    properties["objective"]["anyOf"] += [own, {"type": "object", "properties": {"kind": own}, "required": ["kind"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tuneloop recipe", "type": "object",
            "required": ["base", "data"], "additionalProperties": False, "properties": properties, "$defs": definitions}


def _schema_of_choice(catalog: Catalog) -> dict[str, Any]:
    """A name alone where no option must be given, or a name with its options."""
    found = [TypeAdapter(catalog.get(name)).json_schema() for name in catalog.names]
    alone = []
    for name, one in zip(catalog.names, found, strict=True):
        one.setdefault("properties", {})["kind"] = {"const": name}
        required = set(one.get("required", [])) - {"kind"}
        alone += [] if required else [name]
        one |= {"required": ["kind", *sorted(required)], "additionalProperties": False}
    return {"anyOf": [{"enum": alone}, *found]}
