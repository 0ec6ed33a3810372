"""The space of a search: which keys of the recipe change and between which values, checked before anything is spent.

A recipe chooses a method and an objective first, and these decide which other keys there are: a branch of the space.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tuneloop import recipe as recipes
from tuneloop.errors import UserError, raise_all
from tuneloop.search_spec import AUTO, Range

if TYPE_CHECKING:
    from pathlib import Path

    from tuneloop.models.shape import Shape
    from tuneloop.recipe import Recipe

SHOWN = "search.space"
STRUCTURE = ("method", "objective")
USUAL = ("training.learning_rate", "training.epochs", "training.batch_size", "training.warmup")
JUDGED_BY = ("goal", "evaluation", "data.validation", "data.test", "data.split", "data.evaluation_sets", "data.answers",
             "data.train", "seed")
WITHOUT_EFFECT = ("training.token_budget", "training.memory_gb", "training.checkpointing", "training.checkpoint_every",
                  "training.sample_prompts", "training.only_if_needed", "name", "search", "deploy")
REFUSED = {
    "training.seed": "the best of several seeds is luck, which no other run has",
    "training.evaluate_every": "trials are compared at those looks",
    "base": "the gain over the base could not be told from the gain of another base; search with each, or name others "
            "in evaluation.compare_to",
}


@dataclass(frozen=True)
class Dimension:
    """A key of the recipe and the values that it may take: some choices, or all numbers between two ends."""

    key: str
    name: str                   # in the study, where one key may have ranges for several methods
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """What must be right for all of it to be."""
        return self.choices or (self.low, self.high)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        between = f"{self.low:.2g} to {self.high:.2g}{' (log)' if self.log else ''}"
        return f"{self.key} {', '.join(map(_label, self.choices)) or between}"

    def holds(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high and (not self.whole or value % 1 == 0)


Suggest = Callable[[Dimension], Any]


@dataclass(frozen=True)
class Branch:
    """What else may change with a method and an objective; None where the recipe's own stays."""

    method: Any
    objective: Any
    dimensions: tuple[Dimension, ...]


@dataclass(frozen=True)
class Space:
    """All recipes of a search."""

    structure: tuple[Dimension, ...]
    branches: tuple[Branch, ...]

    def draw(self, suggest: Suggest) -> dict[str, Any]:
        """Values by key of the recipe, as `suggest` has them."""
        values = {dimension.key: suggest(dimension) for dimension in self.structure}
        return values | {dimension.key: suggest(dimension) for dimension in self.branch(values).dimensions}

    def branch(self, values: Mapping[str, Any]) -> Branch:
        """The branch that these values of method and objective lead to."""
        return next(branch for branch in self.branches
                    if all(getattr(branch, one.key) == values[one.key] for one in self.structure))

    def named(self, values: Mapping[str, Any]) -> list[tuple[Dimension, Any]]:
        """The same values by their dimensions; nothing where they lead to no branch."""
        if not all(one.key in values for one in self.structure):
            return []
        return [(one, values[one.key]) for one in (*self.structure, *self.branch(values).dimensions)
                if one.key in values]

    def held(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of some values those that the space has room for."""
        if not all(one.holds(values.get(one.key)) for one in self.structure):
            return {}
        return {one.key: value for one, value in self.named(values) if one.holds(value)}

    @property
    def points(self) -> float:
        """How many recipes there are; infinite with a range of numbers."""
        return sum(math.prod(len(one.choices) or math.inf for one in branch.dimensions) for branch in self.branches)

    def every(self) -> Iterator[dict[str, Any]]:
        """All recipes of a space that has choices alone, as values by key."""
        for branch in self.branches:
            chosen = {one.key: getattr(branch, one.key) for one in self.structure}
            for values in itertools.product(*(one.choices for one in branch.dimensions)):
                yield chosen | {one.key: value for one, value in zip(branch.dimensions, values, strict=True)}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Space:
        """The space that `to_json` wrote."""
        def of(one: dict[str, Any]) -> Dimension:
            return Dimension(**one | {"choices": tuple(one["choices"])})

        return cls(tuple(map(of, written["structure"])), tuple(
            Branch(one["method"], one["objective"], tuple(map(of, one["dimensions"]))) for one in written["branches"]))


# ── the recipe of a trial ────────────────────────────────────────────────────────────────────────────────────────────

def with_values(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe with these values in their places, without its search."""
    made = copy.deepcopy({key: value for key, value in given.items() if key != "search"})
    for key in STRUCTURE:
        if key in values:
            made[key] = _chosen(made.get(key), values[key])
    for key, value in values.items():
        if key not in STRUCTURE:
            put(made, key, value)
    return made


def _chosen(given: Any, choice: Any) -> Any:
    """A method by its name keeps the options that the recipe gives it."""
    same = isinstance(given, dict) and given.get("kind") == choice
    return given if same else copy.deepcopy(choice)


def put(given: dict[str, Any], key: str, value: Any) -> None:
    """Set `data.mix.0.weight` and the like in the keys of a recipe. Raises a UserError where there is no such place."""
    first, *path = key.split(".")
    if not path:
        given[first] = value
        return
    at = recipes.DEFAULTS.get(first, {}) if given.get(first) is None else given[first]
    given[first] = at = {"kind": at} if not isinstance(at, dict) else dict(at)
    for part, after in itertools.pairwise(path):
        inner = at[_place(at, part, key)] if isinstance(at, list) else at.get(part)
        if inner is None:
            inner = {} if not after.isdigit() else []
        at[_place(at, part, key)] = inner
        at = inner
        if not isinstance(at, dict | list):
            raise UserError(f"{SHOWN}: there is no '{key}' in this recipe.")
    at[_place(at, path[-1], key)] = value


def _place(at: Any, part: str, key: str) -> Any:
    if not isinstance(at, list):
        return part
    if not part.isdigit() or int(part) >= len(at):
        raise UserError(f"{SHOWN}: '{key}' names no entry of a list that has {len(at)}.",
                        wanted="a number counted from 0, such as data.mix.0.weight")
    return int(part)


def look_up(given: Mapping[str, Any], key: str) -> Any:
    """What a recipe gives for a key, or None."""
    at: Any = given
    for part in key.split("."):
        if isinstance(at, list) and part.isdigit() and int(part) < len(at):
            at = at[int(part)]
        elif isinstance(at, Mapping):
            at = at.get(part)
        elif part != "kind":
            return None
    return at


def shown(values: Mapping[str, Any]) -> str:
    """Values for people, by the last part of their keys."""
    def said(value: Any) -> str:
        if isinstance(value, dict):
            return str(value.get("kind", value))
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key.removeprefix('training.').removeprefix('method.')} {said(value)}"
                     for key, value in values.items())


# ── from the recipe to its space ─────────────────────────────────────────────────────────────────────────────────────

def space_of(recipe: Recipe, shape: Shape, planned: Mapping[str, Any], rows: int) -> Space:
    """What search.space asks for; without it, the usual keys that the recipe does not give.

    `planned` has the values of `training` that the defaults come to, for so many training rows. Raises a UserError
    with everything that contradicts the recipe, its goal or the base.
    """
    asked = _usual(recipe) if recipe.search.space is None else recipe.search.space
    raise_all([found for key in asked if (found := _refusal(key, recipe.given)) is not None])
    structure = tuple(_structure(key, asked[key]) for key in STRUCTURE if key in asked)
    others = {key: of for key, of in asked.items() if key not in STRUCTURE}
    maker = _Maker(recipe, shape, dict(planned) | {"rows": rows}, others)
    pairs = itertools.product(*([*one.choices] for one in structure))
    branches = [maker.branch({one.key: value for one, value in zip(structure, pair, strict=True)}) for pair in pairs]
    raise_all([*maker.problems.values()] or maker.strangers())
    space = Space(structure, tuple(branch for branch in branches if branch is not None))
    if space.points <= 1:
        raise UserError("The search has nothing to choose: search.space leaves one recipe." if asked else
                        "The search has nothing to choose: the recipe gives every key that is usually searched.",
                        fix="name keys and their values in search.space, such as training.learning_rate: auto")
    return space


def _usual(recipe: Recipe) -> dict[str, Any]:
    """The keys of training, method and objective that the recipe leaves open, and the weights of its mix."""
    own = [f"{part}.{name}" for part in STRUCTURE for name in getattr(recipe, part).space]
    left = [key for key in (*USUAL, *own) if look_up(recipe.given, key) is None]
    if recipe.training.max_steps is not None:       # which says how long
        left = [key for key in left if key != "training.epochs"]
    return dict.fromkeys([*left, *(f"data.mix.{i}.weight" for i in range(len(recipe.data.mix)))], AUTO)


def _refusal(key: str, given: Mapping[str, Any]) -> UserError | None:
    """Why a search must not change this key."""
    def is_in(parts: Sequence[str]) -> bool:
        return any(key == part or key.startswith(f"{part}.") for part in parts)

    if key in REFUSED:
        return UserError(f"{SHOWN}: {key} cannot be searched: {REFUSED[key]}.", fix="leave it out")
    if is_in(JUDGED_BY):
        return UserError(f"{SHOWN}: {key} cannot be searched: trials would be judged by other rows or another measure, "
                         "and could not be compared.", fix="leave it out; it belongs into its own part of the recipe")
    if is_in(WITHOUT_EFFECT):
        return UserError(f"{SHOWN}: {key} never changes a result, so it brings no trial nearer to the goal.",
                         fix="leave it out")
    first = key.partition(".")[0]
    if first not in recipes.TOP:
        near = difflib.get_close_matches(key, [*USUAL, *STRUCTURE], n=1)
        elsewhere = [f"{part}.{key}" for part, spec in recipes.PARTS.items() if key in spec.model_fields]
        meant = next(iter([*elsewhere, *near]), "")
        return UserError(f"{SHOWN}: unknown key '{key}'.", wanted="keys of a recipe, such as training.learning_rate",
                         fix=f"did you mean '{meant}'?" if meant else "")
    if first == key and key not in STRUCTURE:
        return UserError(f"{SHOWN}: {key} is a whole part of the recipe.", wanted=f"keys in it, such as {key}.…")
    return None


def _structure(key: str, asked: Any) -> Dimension:
    if asked == AUTO or isinstance(asked, Range) or AUTO in asked:
        raise UserError(f"{SHOWN}: {key} needs names.", wanted=f"a list, such as {key}: [lora, full]"
                        if key == "method" else "a list, such as objective: [dpo, simpo]")
    return Dimension(key, key, tuple(asked))


class _Maker:
    """Makes the branches of a space, and collects what is wrong with it."""

    def __init__(self, recipe: Recipe, shape: Shape, planned: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        self.recipe, self.shape, self.planned, self.asked = recipe, shape, planned, asked
        self.root: Path = recipe.root
        self.problems: dict[str, UserError] = {}            # by text: branches share most of them
        self.unknown: dict[str, UserError] = {}             # by key: what no branch has taken so far
        self.taken: set[str] = set()

    def branch(self, chosen: dict[str, Any]) -> Branch | None:
        """What else changes with a method and an objective; None, and a problem, where they cannot be."""
        given = with_values(self.recipe.given, chosen)
        made = self._made(given)
        if made is None:
            return None
        label = "/".join(_label(value) for value in chosen.values())
        dimensions = []
        for key, asked in self.asked.items():
            if not self._belongs(key, made):
                continue
            self.taken.add(key)
            dimension = self._auto(key, label, made) if asked == AUTO else self._given(key, asked)
            dimensions += [] if dimension is None else [self._checked(dimension, given, drop=asked == AUTO)]
        found = tuple(one for one in dimensions if one is not None)
        self._together([one for one in found if one.key.startswith("data.mix.")], given)
        return Branch(chosen.get("method"), chosen.get("objective"), found)

    def strangers(self) -> list[UserError]:
        """Keys that no method or objective of the space has."""
        return [error for key, error in self.unknown.items() if key not in self.taken]

    def _made(self, given: dict[str, Any]) -> Recipe | None:
        try:
            made = recipes.of(given, shown=SHOWN, root=self.root)
            made.method.check(self.shape)
            return made
        except UserError as error:
            self.problems[error.text] = error
            return None

    def _belongs(self, key: str, made: Recipe) -> bool:
        """Whether the method and objective of a branch have this key."""
        part, _, name = key.partition(".")
        if part not in STRUCTURE:
            return True
        if name.partition(".")[0] in recipes.options_of(type(getattr(made, part))):
            return True
        if (error := self._error_of(made.given, {key: None})) is not None:      # which says whose key it is
            self.unknown.setdefault(key, error)
        return False

    def _error_of(self, given: Mapping[str, Any], values: Mapping[str, Any]) -> UserError | None:
        """What is wrong with a recipe that has these values."""
        trial = copy.deepcopy(dict(given))
        try:
            for key, value in values.items():
                put(trial, key, value)
            recipes.of(trial, shown=SHOWN, root=self.root).method.check(self.shape)
        except UserError as error:
            return error
        return None

    def _together(self, weights: Sequence[Dimension], given: Mapping[str, Any]) -> None:
        """Weights are right one by one, and may be too much in all."""
        most = {one.key: max(one.ends) for one in weights}
        if len(most) > 1 and (error := self._error_of(given, most)) is not None:
            self.problems[error.text] = error

    def _given(self, key: str, asked: Any) -> Dimension:
        if isinstance(asked, Range):
            return Dimension(key, key, (), asked.low, asked.high, asked.log)
        return Dimension(key, key, tuple(asked))

    def _auto(self, key: str, label: str, made: Recipe) -> Dimension | None:
        """What is usual for a key; None, and a problem, where nothing is."""
        part, _, name = key.partition(".")
        usual = getattr(made, part).space.get(name) if part in STRUCTURE else _training(key, made, self)
        if usual is None:
            error = self._error_of(made.given, {key: None})
            if error is None or "unknown key" not in error.found:
                error = UserError(f"{SHOWN}: nothing is usual for {key}.", fix="give its values in place of auto",
                                  wanted="a list of choices, or {low: 1, high: 5}")
            self.problems[error.text] = error
            return None
        asked = Range.model_validate(usual) if isinstance(usual, Mapping) else usual
        dimension = self._given(key, asked)
        return replace(dimension, name=f"{key}@{label}" if label else key)

    def _checked(self, dimension: Dimension, given: dict[str, Any], *, drop: bool) -> Dimension | None:
        """The dimension, if the recipe takes its values; with `drop` without those choices that this base cannot."""
        found = [(value, self._error_of(given, {dimension.key: value})) for value in dimension.ends]
        right = tuple(value for value, error in found if error is None)
        if not (drop and dimension.choices):
            self.problems |= {error.text: error for _, error in found if error is not None}
        if not dimension.choices:
            return dimension
        return replace(dimension, choices=right) if right else None


def _label(choice: Any) -> str:
    """A choice in a line of text."""
    return choice if isinstance(choice, str) else json.dumps(choice, sort_keys=True)


def _training(key: str, made: Recipe, maker: _Maker) -> Any:
    """What is usual for a key of training or the mix, around what is planned."""
    planned = maker.planned
    if key == "training.learning_rate":
        rate = made.method.learning_rate(maker.shape.parameters)[0] * made.objective.pace
        return {"low": rate / 4, "high": rate * 4, "log": True}
    if key == "training.epochs":
        epochs = planned[key]
        return [epochs / 2, epochs, 2 * epochs]
    if key == "training.batch_size":
        batch = planned[key]
        return sorted({max(1, batch // 2), batch, *([2 * batch] if 2 * batch <= planned["rows"] / 4 else [])})
    if key == "training.warmup":
        return [0.03, 0.1, 0.2]
    weights = [source.weight for source in made.data.mix]
    found = [weight for i, weight in enumerate(weights) if key == f"data.mix.{i}.weight"]
    if not found:
        return None
    return {"low": found[0] / 4, "high": found[0] * min(2, 0.9 / sum(weights)), "log": True}
