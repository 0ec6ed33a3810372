"""What a search may change: read from the recipe, filled up with what is usual, and refused where it contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneloop.errors import UserError
from tuneloop.models.shape import Shape, read_shape
from tuneloop.recipe import Recipe, parse, schema
from tuneloop.search_space import Space, shown, space_of, with_values
from tuneloop.search_spec import Range

LEAST = {"base": "some-base", "data": {"train": "rows.csv"}}
PLANNED = {"training.epochs": 3.0, "training.batch_size": 16, "training.learning_rate": 5e-4, "training.warmup": 0.1}


@pytest.fixture(scope="module")
def shape(tiny_llama: Path) -> Shape:
    return read_shape(tiny_llama)       # its layers are 32 wide


def recipe_with(space: Any = None, **keys: Any) -> Recipe:
    search = {} if space is None else {"search": {"space": space}}
    return parse(yaml.safe_dump(LEAST | keys | search, sort_keys=False), shown="recipe.yaml", root=Path())


def made(shape: Shape, space: Any = None, rows: int = 1000, **keys: Any) -> Space:
    return space_of(recipe_with(space, **keys), shape, PLANNED, rows)


def refusal(shape: Shape, space: Any, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        made(shape, space, **keys)
    assert caught.value.exit_code == 2
    return caught.value.text


def of(space: Space, key: str, branch: int = 0) -> Any:
    [found] = [one for one in space.branches[branch].dimensions if one.key == key]
    return found


# ── the recipe's words ───────────────────────────────────────────────────────────────────────────────────────────────

def test_choices_ranges_and_auto_are_read() -> None:
    space = recipe_with({"method.rank": [4, 8], "training.learning_rate": {"low": "1e-4", "high": 1e-3, "log": True},
                         "training.epochs": "auto"}).search.space
    assert space == {"method.rank": [4, 8], "training.epochs": "auto",
                     "training.learning_rate": Range(low=1e-4, high=1e-3, log=True)}
    assert recipe_with({"training.learning_rate": ["1e-4", "5e-4"]}).search.space == {
        "training.learning_rate": [1e-4, 5e-4]}
    assert recipe_with().search.space is None
    assert recipe_with("auto").search.space is None


def test_an_override_reaches_into_the_space() -> None:
    text = yaml.safe_dump(LEAST)
    recipe = parse(text, shown="recipe.yaml", root=Path(), overrides=[
        "search.space.method.rank=[4, 8]", "search.space.training.warmup={low: 0, high: 0.2}",
        "search.budget.minutes=30"])
    assert recipe.search.space == {"method.rank": [4, 8], "training.warmup": Range(low=0, high=0.2)}
    assert recipe.search.budget.given == {"minutes": 30}


@pytest.mark.parametrize(("dimension", "wanted"), [
    ({"low": 5, "high": 1}, "low below high"),
    ({"low": 1, "high": 1}, "low below high"),
    ({"low": 0, "high": 1, "log": True}, "above 0"),
    ({"low": 0, "high": float("inf")}, "finite"),
    ({"low": 1}, "a list of choices"),
    ({"low": 1, "high": 2, "step": 1}, "a list of choices"),
    ({"min": 1, "max": 2}, "a list of choices"),
    ([], "at least one choice"),
    ([1, 1.0], "choices that differ"),
    (3, "a list of choices"),
])
def test_a_dimension_that_is_none_is_refused_by_its_line(dimension: Any, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_with({"training.epochs": dimension})
    assert "search.space.training.epochs" in caught.value.text
    assert wanted in caught.value.text
    assert "recipe.yaml line" in caught.value.text


def test_fewer_seeds_than_an_interval_needs_are_refused() -> None:
    with pytest.raises(UserError, match=r"'search\.seeds' is 2"):
        parse(yaml.safe_dump(LEAST | {"search": {"seeds": 2}}), shown="recipe.yaml", root=Path())


def test_the_schema_knows_the_search() -> None:
    assert set(schema()["properties"]["search"]["properties"]) == {"space", "budget", "trials", "seeds", "metric"}


# ── what is usual ────────────────────────────────────────────────────────────────────────────────────────────────────

def test_without_a_space_the_usual_keys_are_searched(shape: Shape) -> None:
    space = made(shape)
    assert [one.key for one in space.branches[0].dimensions] == [
        "training.learning_rate", "training.epochs", "training.batch_size", "training.warmup", "method.rank"]
    rate = of(space, "training.learning_rate")
    assert (rate.low, rate.high, rate.log) == (pytest.approx(5e-4 / 4), pytest.approx(5e-4 * 4), True)
    assert of(space, "training.epochs").choices == (1.5, 3.0, 6.0)
    assert of(space, "training.batch_size").choices == (8, 16, 32)
    assert of(made(shape, rows=100), "training.batch_size").choices == (8, 16)


def test_what_the_recipe_gives_is_not_searched_unless_asked(shape: Shape) -> None:
    given = made(shape, training={"learning_rate": 1e-3, "max_steps": 10}, method={"kind": "lora", "rank": 8})
    assert [one.key for one in given.branches[0].dimensions] == ["training.batch_size", "training.warmup"]
    asked = made(shape, {"training.learning_rate": "auto"}, training={"learning_rate": 1e-3})
    assert [one.key for one in asked.branches[0].dimensions] == ["training.learning_rate"]


def test_ranks_that_the_base_cannot_take_are_no_default(shape: Shape) -> None:
    assert of(made(shape), "method.rank").choices == (4, 8, 16)         # its smallest layer has 16 outputs


def test_preferences_bring_their_own_range_and_pace(shape: Shape) -> None:
    space = made(shape, objective="dpo")
    assert (of(space, "objective.beta").low, of(space, "objective.beta").high) == (0.03, 0.5)
    assert of(space, "training.learning_rate").high == pytest.approx(5e-5 * 4)


def test_weights_of_a_mix_are_usual_and_never_too_much_in_all(shape: Shape) -> None:
    mix = [{"from": "a.jsonl", "weight": 0.1}, {"from": "b.jsonl", "weight": 0.7}]
    space = made(shape, data={"train": "rows.csv", "mix": mix})
    weights = [of(space, f"data.mix.{i}.weight") for i in range(2)]
    assert [one.low for one in weights] == pytest.approx([0.025, 0.175])
    assert sum(one.high for one in weights) < 1


def test_methods_are_branches_with_ranges_of_their_own(shape: Shape) -> None:
    space = made(shape, {"method": ["lora", "full"], "training.learning_rate": "auto", "method.rank": [2, 4],
                         "training.warmup": [0, 0.1]})
    lora, full = space.branches
    assert [one.key for one in lora.dimensions] == ["training.learning_rate", "method.rank", "training.warmup"]
    assert [one.key for one in full.dimensions] == ["training.learning_rate", "training.warmup"]
    assert of(space, "training.learning_rate", 0).name == "training.learning_rate@lora"
    assert of(space, "training.learning_rate", 1).high == pytest.approx(5e-5 * 4)
    assert Space.from_json(space.to_json()) == space


def test_recipes_are_counted_and_drawn(shape: Shape) -> None:
    space = made(shape, {"method": ["lora", "full"], "method.rank": [2, 4], "training.warmup": [0, 0.1]})
    assert space.points == 6
    every = list(space.every())
    assert len(every) == 6
    assert {"method": "full", "training.warmup": 0} in every
    drawn = space.draw(lambda one: one.choices[-1])
    assert drawn == {"method": "full", "training.warmup": 0.1}
    assert made(shape).points == float("inf")


# ── the recipe of a trial ────────────────────────────────────────────────────────────────────────────────────────────

def test_values_find_their_places() -> None:
    given = {"base": "b", "data": {"train": "t", "mix": [{"from": "a", "weight": 0.1}]}, "method": "lora",
             "search": {"trials": 3}}
    found = with_values(given, {"training.epochs": 2, "method.rank": 8, "data.mix.0.weight": 0.2,
                                "objective.label_smoothing": 0.1})
    assert found == {"base": "b", "data": {"train": "t", "mix": [{"from": "a", "weight": 0.2}]},
                     "method": {"kind": "lora", "rank": 8}, "training": {"epochs": 2},
                     "objective": {"kind": "sft", "label_smoothing": 0.1}}
    assert given["data"] == {"train": "t", "mix": [{"from": "a", "weight": 0.1}]}


def test_a_chosen_method_keeps_the_options_that_are_given_to_it() -> None:
    given = {"method": {"kind": "lora", "dropout": 0.1}}
    assert with_values(given, {"method": "lora", "method.rank": 4}) == {
        "method": {"kind": "lora", "dropout": 0.1, "rank": 4}}
    assert with_values(given, {"method": "full"}) == {"method": "full"}
    assert with_values(given, {"method": {"kind": "lora", "rank": 2}}) == {"method": {"kind": "lora", "rank": 2}}


def test_values_are_shown_in_short() -> None:
    assert shown({"training.learning_rate": 0.000312345, "method": {"kind": "full", "layers": 2}}) == \
        "learning_rate 0.000312, method full"


# ── what contradicts ─────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("space", "said"), [
    ({"training.learning_rat": [1e-4, 1e-3]}, "did you mean 'training.learning_rate'?"),
    ({"training.learning_rat": "auto"}, "did you mean 'training.learning_rate'?"),
    ({"learning_rate": [1e-4, 1e-3]}, "did you mean 'training.learning_rate'?"),
    ({"training.epochs": [-1, 2]}, "'training.epochs' is -1"),
    ({"training.epochs": {"low": -1, "high": 2}}, "'training.epochs' is -1"),
    ({"training.warmup": {"low": 0.5, "high": 2}}, "'training.warmup' is 2"),
    ({"method.tokens": [8, 20]}, "'tokens' is an option of: prefix, prompt"),
    ({"method": ["lora", "lroa"]}, "did you mean 'lora'?"),
    ({"method": "auto"}, "method needs names"),
    ({"method": ["auto", "lora"]}, "method needs names"),
    ({"method.rank": [4, 64]}, "larger than the layer"),
    ({"method.dropout": "auto"}, "nothing is usual for method.dropout"),
    ({"objective": ["sft", "dpos"]}, "did you mean 'dpo'?"),
    ({"objective.beta": [0.1, 0.2]}, "'beta' is an option of"),
    ({"goal.at_least": [0.5, 0.6]}, "judged by other rows or another measure"),
    ({"data.split.test": [0.1, 0.2]}, "judged by other rows or another measure"),
    ({"evaluation.few_shot": [0, 4]}, "judged by other rows or another measure"),
    ({"seed": [0, 1]}, "judged by other rows or another measure"),
    ({"training.seed": [0, 1]}, "luck"),
    ({"training.token_budget": [512, 1024]}, "never changes a result"),
    ({"base": ["a", "b"]}, "another base"),
    ({"training": ["a"]}, "a whole part"),
    ({"data.mix.0.weight": [0.1, 0.2]}, "no entry of a list"),
    ({}, "nothing to choose"),
    ({"training.epochs": [2]}, "nothing to choose"),
])
def test_what_contradicts_the_recipe_is_refused(shape: Shape, space: Any, said: str) -> None:
    assert said in refusal(shape, space)


def test_weights_that_are_too_much_together_are_refused(shape: Shape) -> None:
    mix = [{"from": "a.jsonl", "weight": 0.1}, {"from": "b.jsonl", "weight": 0.1}]
    wide = {"data.mix.0.weight": [0.1, 0.6], "data.mix.1.weight": {"low": 0.1, "high": 0.5}}
    assert "less than 1" in refusal(shape, wide, data={"train": "rows.csv", "mix": mix})


def test_a_recipe_that_gives_everything_leaves_nothing(shape: Shape) -> None:
    with pytest.raises(UserError, match="nothing to choose"):
        made(shape, method="full", training={"learning_rate": 1e-4, "epochs": 1, "batch_size": 8, "warmup": 0.1})


def test_every_problem_is_told_at_once(shape: Shape) -> None:
    told = refusal(shape, {"training.epochs": [-1, 2], "training.warmup": [3, 4]})
    assert "'training.epochs' is -1" in told
    assert "'training.warmup' is 3" in told
