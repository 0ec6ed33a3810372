"""The recipe file: what it means, and what is said about every mistake in it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneloop.errors import UserError
from tuneloop.evaluation.goal import NOT_YET
from tuneloop.recipe import METHODS, OBJECTIVES, TOP, Recipe, load, parse, schema

LEAST = "base: some-base\ndata: {train: rows.csv}\n"
FOREIGN = yaml.safe_load((files("tuneloop") / "foreign_keys.yaml").read_text(encoding="utf-8"))


def made(text: str, *overrides: str, root: Path = Path()) -> Recipe:
    return parse(text, shown="my.yaml", root=root, overrides=overrides)


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        made(text, *overrides)
    assert caught.value.exit_code == 2
    return caught.value.text


# --- what is accepted ------------------------------------------------------------------------------------------------

def test_two_keys_are_a_recipe() -> None:
    recipe = made(LEAST)
    assert (recipe.base, recipe.data.train, recipe.name, recipe.seed) == ("some-base", "rows.csv", "run", 0)
    assert (recipe.method.kind, recipe.goal.metric, recipe.training.epochs) == ("lora", "auto", None)
    assert recipe.given == {"base": "some-base", "data": {"train": "rows.csv"}}


@pytest.mark.parametrize("part", [name for name in TOP if name not in ("base", "data")])
def test_a_part_left_empty_has_its_defaults(part: str) -> None:
    empty, without = made(f"{LEAST}{part}:\n"), made(LEAST)
    assert getattr(empty, part) == getattr(without, part)


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001", "1E-4"])
def test_a_number_in_any_notation_is_a_number(number: str) -> None:
    assert made(f"{LEAST}training: {{learning_rate: {number}}}").training.learning_rate == 1e-4
    assert made(LEAST, f"training.learning_rate={number}").training.learning_rate == 1e-4


def test_a_method_is_a_name_or_its_options() -> None:
    assert made(f"{LEAST}method: full").method.kind == "full"
    assert made(f"{LEAST}method: {{kind: lora, rank: 3, targets: [q_proj]}}").method.model_dump() == {
        "kind": "lora", "rank": 3, "alpha": None, "dropout": 0.0, "targets": ["q_proj"]}


def test_a_file_is_read_and_its_folder_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(LEAST)
    assert load(tmp_path / "my.yaml").root == tmp_path


def test_the_portable_copy_means_the_same_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    recipe = made("base: ./base\ndata: {train: rows.csv, test: sub/test.csv, prompt: 'x {a}'}", root=tmp_path)
    assert recipe.portable() == {"base": str(tmp_path / "base"), "data": {
        "train": str(tmp_path / "rows.csv"), "test": str(tmp_path / "sub" / "test.csv"), "prompt": "x {a}"}}
    assert recipe.given["base"] == "./base"


def test_a_short_name_stays_one_where_a_folder_has_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "smollm2-135m-instruct").mkdir()
    recipe = made("base: smollm2-135m-instruct\ndata: {train: rows.csv}", root=tmp_path)
    assert recipe.portable()["base"] == "smollm2-135m-instruct"


# --- overrides -------------------------------------------------------------------------------------------------------

def test_overrides_reach_every_level() -> None:
    recipe = made(LEAST, "training.epochs=1.5", "data.split.test=0.3", "seed=7", "name=other", "goal.at_least=0.8",
                  "data.prompt=Is {text} good?")
    assert (recipe.training.epochs, recipe.data.split.test, recipe.seed, recipe.name) == (1.5, 0.3, 7, "other")
    assert (recipe.goal.at_least, recipe.data.prompt) == (0.8, "Is {text} good?")
    assert recipe.given["training"] == {"epochs": 1.5}


@pytest.mark.parametrize("written", ["", "method: lora\n", "method:\n", "method: {kind: lora, dropout: 0.1}\n"])
def test_an_override_gives_a_method_options(written: str) -> None:
    method: Any = made(LEAST + written, "method.rank=8").method
    assert (method.kind, method.rank, method.dropout) == ("lora", 8, 0.1 if "dropout" in written else 0.0)


def test_an_override_of_an_empty_part() -> None:
    assert made(f"{LEAST}training:\n", "training.epochs=2").training.epochs == 2


def test_the_last_override_counts() -> None:
    assert made(LEAST, "seed=1", "seed=2").seed == 2


def test_a_value_may_hold_an_equals_sign() -> None:
    assert made(LEAST, "data.prompt=a=b").data.prompt == "a=b"


@pytest.mark.parametrize(("override", "told"), [
    ("training.epoch=1", "training.epoch on the command line: unknown key 'training.epoch'"),
    ("training.epochs=many", "training.epochs on the command line: 'training.epochs' is 'many'"),
    ("method.rnak=8", "did you mean 'method.rank'?"),
    ("training.x.y=1", "training.x on the command line: unknown key 'training.x'"),
    ("training=5", "training on the command line: 'training' must hold keys, and is 5"),
    ("training.epochs=[", "The value of 'training.epochs=[' is not YAML"),
    ("=3", "'=3' is not an override"),
    ("epochs", "'epochs' is not an override"),
])
def test_a_wrong_override_is_told_as_such(override: str, told: str) -> None:
    assert told in refusal(LEAST, override)


# --- unknown keys ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("written", "meant"), [
    ("training: {epoch: 1}", "training.epochs"),
    ("trainig: {epochs: 1}", "training"),
    ("method: {kind: lora, rnak: 8}", "method.rank"),
    ("goal: {at_leats: 0.8}", "goal.at_least"),
    ("evaluation: {resample: 500}", "evaluation.resamples"),
    ("sede: 3", "seed"),
])
def test_a_typo_is_answered_with_the_nearest_key(written: str, meant: str) -> None:
    told = refusal(f"{LEAST}{written}\n")
    assert told.startswith("my.yaml line 3: unknown key '")
    assert f"did you mean '{meant}'?" in told


def test_a_typo_in_the_split_is_found() -> None:
    told = refusal("base: b\ndata:\n  train: rows.csv\n  split:\n    tset: 0.1\n")
    assert told.startswith("my.yaml line 5: unknown key 'data.split.tset'")
    assert "did you mean 'data.split.test'?" in told


@pytest.mark.parametrize(("key", "place"), [
    ("learning_rate", "training.learning_rate"), ("epochs", "training.epochs"), ("rank", "method.rank"),
    ("train", "data.train"), ("prompt", "data.prompt"), ("at_least", "goal.at_least"), ("rows", "evaluation.rows"),
])
def test_a_right_key_at_the_wrong_level_is_sent_to_its_place(key: str, place: str) -> None:
    assert f"did you mean '{place}'?" in refusal(f"{LEAST}{key}: 1\n")


@pytest.mark.parametrize("key", FOREIGN)
def test_the_names_of_other_tools_are_known(key: str) -> None:
    """Whatever else looks similar: `dataset` is not `data`, and `train_file` not `training`."""
    meant = FOREIGN[key]
    assert ("use " + meant if " " in meant else f"did you mean '{meant}'?") in refusal(f"{LEAST}{key}: 1\n")


def test_what_other_names_lead_to_exists() -> None:
    known = set(TOP) | {f"method.{key}" for name in METHODS.names for key in METHODS.get(name).model_fields}
    properties = schema()["properties"]
    for part in ("data", "training", "goal", "evaluation"):
        known |= {f"{part}.{key}" for key in properties[part]["properties"]}
    known |= {"data.split.validation", "data.split.test"}
    for meant in FOREIGN.values():
        place = meant.split(" ")[0]
        assert place in known or place in ("nothing,", "nothing", "the"), meant


def test_foreign_names_are_known_inside_parts_too() -> None:
    told = refusal(f"{LEAST}training: {{num_train_epochs: 3, lr: 1}}\nmethod: {{kind: lora, lora_alpha: 3}}\n")
    assert all(f"did you mean '{meant}'?" in told
               for meant in ("training.epochs", "training.learning_rate", "method.alpha"))


def test_a_key_like_nothing_else_gets_the_list() -> None:
    told = refusal(f"{LEAST}zebra: 1\n")
    assert "wanted: one of: base, name, seed, data, goal" in told
    assert "did you mean" not in told


@pytest.mark.parametrize("key", NOT_YET)
def test_a_goal_that_is_not_measured_yet_is_refused_by_name(key: str) -> None:
    told = refusal(f"{LEAST}goal: {{{key}: 0.1}}\n")
    assert f"'goal.{key}' is not supported yet: {NOT_YET[key]}" in told
    assert "leave it out" in told


def test_a_key_given_twice_is_refused() -> None:
    told = refusal("base: b\ndata: {train: rows.csv}\nseed: 1\ntraining: {epochs: 1, epochs: 2}\nseed: 2\n")
    assert "my.yaml line 5: 'seed' is given twice, first in line 3" in told
    assert "my.yaml line 4: 'training.epochs' is given twice" in told


# --- wrong values ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("written", "told"), [
    ("training: {epochs: soon}", "'training.epochs' is 'soon'"),
    ("training: {epochs: 0}", "'training.epochs' is 0"),
    ("training: {batch_size: 1.5}", "'training.batch_size' is 1.5"),
    ("training: {schedule: cosin}", "'cosine', 'linear' or 'constant'"),
    ("training: 5", "'training' must hold keys, and is 5"),
    ("method: {kind: lora, dropout: 1}", "less than 1"),
    ("method: {rank: 8}", "'method.kind' is missing"),
    ("method: lorra", "did you mean 'lora'?"),
    ("method: [lora]", "Unknown method"),
    ("objective: dpo", "Unknown objective 'dpo'"),
    ("objective: {kind: sft, beta: 1}", "unknown key 'objective.beta'"),
    ("goal: {metric: f1}", "'goal.metric' is 'f1'"),
    ("goal: {at_least: 80}", "less than or equal to 1"),
    ("seed: -1", "'seed' is -1"),
    ("seed: often", "'seed' is 'often'"),
    ("name: a/b", "letters, digits"),
    ("name: ../up", "'name' is '../up'"),
])
def test_a_wrong_value_is_told_with_its_line(written: str, told: str) -> None:
    found = refusal(f"{LEAST}{written}\n")
    assert found.startswith("my.yaml line 3: ")
    assert told in found


@pytest.mark.parametrize(("text", "told"), [
    ("data: {train: rows.csv}\n", "'base' is missing"),
    ("base:\ndata: {train: rows.csv}\n", "'base' is missing"),
    ("base: b\n", "'data' is missing"),
    ("base: b\ndata: {prompt: x}\n", "'data.train' is missing"),
    ("base: 3\ndata: {train: rows.csv}\n", "'base' is 3"),
    ("base: b\ndata: rows.csv\n", "'data' must hold keys, and is 'rows.csv'"),
    ("base: b\ndata: {train: rows.csv, split: {test: lots}}\n", "'data.split.test' is 'lots'"),
    ("", "a recipe is a list of `key: value` lines"),
    ("- base\n- data\n", "a recipe is a list of `key: value` lines"),
])
def test_what_a_recipe_must_have(text: str, told: str) -> None:
    assert told in refusal(text)


def test_all_errors_come_at_once_with_their_lines() -> None:
    told = refusal("data:\n  train: rows.csv\n  splitt: {}\ngoal:\n  at_least: 2\n  max_forgetting: 0.1\n"
                   "training:\n  epochs: -1\n  lr: 1\nmethod: lara\n", "evaluation.rows=none")
    lines = [line for line in told.splitlines() if not line.startswith("  ")]
    places = [line.split(": ")[0] for line in lines]
    assert sorted(places) == sorted([
        "my.yaml", "my.yaml line 3", "my.yaml line 5", "my.yaml line 6", "my.yaml line 8", "my.yaml line 9",
        "my.yaml line 10", "evaluation.rows on the command line"])


@pytest.mark.parametrize(("text", "line"), [
    ("base: b\ndata: {train: rows.csv\nseed: 1\n", 3), ("base: b\n\tdata: 1\n", 2), ("base: b\ndata: a: b\n", 2),
])
def test_what_is_not_yaml_is_told_with_its_line(text: str, line: int) -> None:
    assert refusal(text).startswith(f"my.yaml line {line}: this is not YAML")


def test_a_recipe_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no recipe") as caught:
        load(tmp_path / "recipe.yaml")
    assert "tuneloop init" in caught.value.text
    (tmp_path / "recipe.yaml").write_bytes(b"base: \xff\xfe\n")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


# --- the schema ------------------------------------------------------------------------------------------------------

def nodes(value: Any) -> Any:
    """All objects inside a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def test_the_schema_knows_every_key_of_a_recipe() -> None:
    made_schema = schema()
    assert json.loads(json.dumps(made_schema)) == made_schema
    assert set(made_schema["properties"]) == set(TOP)
    assert made_schema["required"] == ["base", "data"]
    for part in ("data", "goal", "training", "evaluation"):
        assert made_schema["properties"][part]["additionalProperties"] is False
        assert all(field.get("description") for field in made_schema["properties"][part]["properties"].values()), part
    for part, catalog in (("method", METHODS), ("objective", OBJECTIVES)):
        names, *options = made_schema["properties"][part]["anyOf"]
        assert names == {"enum": catalog.names}
        assert [option["properties"]["kind"]["const"] for option in options] == catalog.names


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    made_schema = schema()
    references = [node["$ref"] for node in nodes(made_schema) if "$ref" in node]
    assert references
    for reference in references:
        assert reference.removeprefix("#/$defs/") in made_schema["$defs"], reference
