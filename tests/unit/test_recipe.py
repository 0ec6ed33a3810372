"""The recipe file: what it means, and what is said about every mistake in it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneloop.errors import UserError
from tuneloop.evaluation.goal import NOT_YET
from tuneloop.recipe import METHODS, OBJECTIVES, TOP, Recipe, load, objective_of, parse, schema

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
    method = made(f"{LEAST}method: {{kind: lora, rank: 3, targets: [q_proj]}}").method
    assert method.model_dump(exclude_defaults=True) == {"rank": 3, "targets": ["q_proj"]}


def test_a_file_is_read_and_its_folder_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(LEAST)
    assert load(tmp_path / "my.yaml").root == tmp_path


def test_the_portable_copy_means_the_same_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    recipe = made("base: ./base\ndata: {train: rows.csv, test: sub/test.csv, prompt: 'x {a}'}", root=tmp_path)
    assert recipe.portable() == {"base": str(tmp_path / "base"), "data": {
        "train": str(tmp_path / "rows.csv"), "test": str(tmp_path / "sub" / "test.csv"), "prompt": "x {a}"}}
    assert recipe.given["base"] == "./base"


@pytest.mark.parametrize(("name", "anywhere"), [
    ("book.xlsx#Sheet 1", "ROOT/book.xlsx#Sheet 1"), ("../rows.csv", "PARENT/rows.csv"), ("folder", "ROOT/folder"),
    ("link.csv", "ROOT/link.csv"), ("/a/rows.csv", "/a/rows.csv"), ("-", "-"), ("data:reviews", "data:reviews"),
    ("hub:owner/name@v1#all/train", "hub:owner/name@v1#all/train"), ("builtin:safety", "builtin:safety"),
    ("s3://bucket/rows.csv", "s3://bucket/rows.csv"), ("https://e.org/a.xlsx#B", "https://e.org/a.xlsx#B"),
    ("sqlite:///shop.db#SELECT a FROM b", "sqlite:///ROOT/shop.db#SELECT a FROM b"),
    ("sqlite:////a/shop.db#SELECT 1", "sqlite:////a/shop.db#SELECT 1"),
    ("postgresql://h/shop#SELECT 1", "postgresql://h/shop#SELECT 1"),
    ("docs:manuals/de", "docs:ROOT/manuals/de"), ("docs:/a/manuals", "docs:/a/manuals"),
])
def test_every_source_of_rows_means_the_same_from_anywhere(tmp_path: Path, name: str, anywhere: str) -> None:
    (tmp_path / "rows.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "rows.csv")
    wanted = anywhere.replace("ROOT", str(tmp_path)).replace("PARENT", str(tmp_path.parent))
    recipe = made("base: b\ndata: {train: x}", f"data.train={json.dumps(name)}",
                  f"data.mix={json.dumps([{'from': name, 'weight': 0.1}])}",
                  f"data.evaluation_sets={json.dumps([name])}", root=tmp_path)
    data = recipe.portable()["data"]
    assert data == {"train": wanted, "mix": [{"from": wanted, "weight": 0.1}], "evaluation_sets": [wanted]}
    again = made(f"base: b\ndata: {json.dumps(data)}", root=tmp_path / "elsewhere")
    assert again.portable()["data"] == data


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
    ("beta", "objective.beta"),
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
    known |= {f"objective.{f.name}" for name in OBJECTIVES.names for f in fields(OBJECTIVES.get(name))}
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
    ("objective: dop", "did you mean 'dpo'?"),
    ("objective: {kind: sft, beta: 1}", "unknown key 'objective.beta'"),
    ("objective: {kind: sft, beta: 1}", "'beta' is an option of: dpo, grpo, kto, ppo, rloo, simpo"),
    ("objective: {kind: dpo, betta: 1}", "did you mean 'objective.beta'?"),
    ("objective: {kind: dpo, form: x}", "'objective.form' is 'x'"),
    ("objective: distill", "'objective.teacher' is missing"),
    ("objective: {kind: dpo, beta: -1}", "'objective.beta' is -1.\n  wanted: beta must be greater than 0"),
    ("objective: {kind: grpo, aggregation: dr_grpo}", "'objective.aggregation' is 'dr_grpo'"),
    ("method: {kind: full, rank: 3}", "'rank' is an option of: lora"),
    ("method: {kind: full, layers: []}", "'method.layers' is []"),
    ("method: {kind: lora, targets: []}", "'method.targets' is [].\n  wanted: at least 1 of them"),
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
    told = refusal("data:\n  train: rows.csv\n  splitt: {}\ngoal:\n  at_least: 2\n  max_cost: 0.1\n"
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
    with pytest.raises(UserError, match="is a folder, not a recipe"):
        load(tmp_path)


# --- an objective in a file of one's own -----------------------------------------------------------------------------

OWN = """\
from dataclasses import dataclass
from tuneloop.objectives import base


@dataclass(frozen=True)
class Mine(base.Objective):
    beta: float = 0.1
    kinds: tuple[str, ...] = ("a",)

    def __post_init__(self):
        if self.beta < 0:
            raise ValueError("beta must be at least 0")
        self.beta.real // (self.beta != 13)

    def loss(self, out, batch): ...


class Nothing: ...
class Bare(base.Objective):
    beta: float = 0.1
    def loss(self, out, batch): ...
@dataclass(frozen=True)
class Undecorated(Bare):
    ...
@dataclass
class Thawed(base.Objective):
    def loss(self, out, batch): ...
@dataclass(frozen=True)
class Lossless(base.Objective): ...
@dataclass(frozen=True)
class Foreign:
    def loss(self, out, batch): ...
@dataclass(frozen=True)
class Needy(Mine):
    needs = frozenset({"entropi"})
    denominator = "rows"
class Tensor: ...
@dataclass(frozen=True)
class Odd(Mine):
    weights: Tensor | None = None
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with mine.py."""
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path


def test_an_objective_is_a_class_of_a_file(own: Path) -> None:
    for written, beta in (("./mine.py:Mine", 0.1), ("{kind: mine.py:Mine, beta: 0.3}", 0.3)):
        recipe = made(f"{LEAST}objective: {written}\n", root=own)
        assert (type(recipe.objective).__name__, getattr(recipe.objective, "beta", None)) == ("Mine", beta)
        assert recipe.objective_record == {"kind": f"{own}/mine.py:Mine", "beta": beta, "kinds": ["a"],
                                           "sha256": sha256(OWN.encode()).hexdigest()}
    assert made(LEAST, f"objective={own}/mine.py:Mine", "objective.beta=0.5").objective_record["beta"] == 0.5


def test_a_file_of_ones_own_leaves_no_traces(own: Path) -> None:
    path = list(sys.path)
    made(f"{LEAST}objective: ./mine.py:Mine\n", root=own)
    assert sys.path == path
    assert [file.name for file in own.iterdir()] == ["mine.py"]
    assert "mine" not in sys.modules


def test_the_portable_copy_names_the_file_from_anywhere(own: Path) -> None:
    (own / "small").mkdir()
    for written, portable in (
            ("mine.py:Mine", f"{own}/mine.py:Mine"),
            ("{kind: mine.py:Mine, beta: 0.3}", {"kind": f"{own}/mine.py:Mine", "beta": 0.3}),
            ("{kind: dpo, reference: ./small}", {"kind": "dpo", "reference": f"{own}/small"}),
            ("{kind: dpo, reference: some/hub-id}", {"kind": "dpo", "reference": "some/hub-id"})):
        assert made(f"{LEAST}objective: {written}\n", root=own).portable()["objective"] == portable


def test_a_changed_file_is_another_objective(own: Path) -> None:
    first = made(f"{LEAST}objective: ./mine.py:Mine\n", root=own)
    (own / "mine.py").write_text(OWN.replace("0.1", "0.2"))
    second = made(f"{LEAST}objective: ./mine.py:Mine\n", root=own)
    assert first.portable() == second.portable()
    assert first.objective_record["sha256"] != second.objective_record["sha256"]
    assert [r.objective_record["beta"] for r in (first, second)] == [0.1, 0.2]
    assert made(f"{LEAST}objective: ./mine.py:Mine\n", root=own).objective == second.objective


def test_the_record_of_a_built_in_objective_holds_every_option() -> None:
    assert made(LEAST).objective_record == {"kind": "sft", "label_smoothing": 0.0, "kl": 0.0}
    found = made(f"{LEAST}objective: {{kind: dpo, beta: 0.3}}").objective_record
    assert (found["kind"], found["beta"], found["form"]) == ("dpo", 0.3, "sigmoid")


def test_a_finished_run_needs_no_code_of_its_objective(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{LEAST}objective: /gone/mine.py:Mine\n")
    assert load(tmp_path / "recipe.yaml", run_own_code=False).base == "some-base"
    with pytest.raises(UserError, match=r"There is no file /gone/mine\.py"):
        load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(("written", "told"), [
    ("./mine.py:Mien", "did you mean './mine.py:Mine'?"),
    ("./mine.py", "'./mine.py' names no class"),
    ("'./mine.py:'", "'./mine.py' names no class"),
    ("./nime.py:Mine", "did you mean 'mine.py'?"),
    ("/nowhere/at/all.py:Mine", "tuneloop new objective"),
    (".:x.py", "There is no file .:x.py"),
    ("./mine.py:Nothing", "Nothing in ./mine.py has no method `loss`"),
    ("./mine.py:Lossless", "Lossless in ./mine.py has no method `loss`"),
    ("./mine.py:Foreign", "Foreign in ./mine.py does not derive from Objective"),
    ("./mine.py:Bare", "Bare in ./mine.py is no dataclass"),
    ("./mine.py:Thawed", "Thawed in ./mine.py can change while it trains"),
    ("./mine.py:Odd", "an option of Odd has a type that a recipe cannot hold"),
    ("./mine.py:Needy", "did you mean 'entropy'?"),
    ("./mine.py:Needy", "Needy.denominator is 'rows'"),
    ("{kind: ./mine.py:Mine, betta: 1}", "did you mean 'objective.beta'?"),
    ("{kind: ./mine.py:Mine, beta: x}", "'objective.beta' is 'x'"),
    ("{kind: ./mine.py:Mine, beta: -1}", "'objective.beta' is -1.\n  wanted: beta must be at least 0"),
    ("{kind: ./mine.py:Mine, beta: 13}", "Mine cannot be made: mine.py line 13 raises ZeroDivisionError"),
])
def test_a_wrong_objective_of_ones_own_is_told_with_the_recipes_line(written: str, told: str, own: Path) -> None:
    with pytest.raises(UserError) as caught:
        made(f"{LEAST}objective: {written}\n", root=own)
    assert caught.value.text.startswith("my.yaml line 3: ")
    assert told in caught.value.text


@pytest.mark.parametrize(("code", "told"), [
    ("x = 1\n\n1 / 0\n", "mine.py line 3 raises ZeroDivisionError: division by zero"),
    ("def f():\n    return y\n\nf()\n", "mine.py line 2 raises NameError: name 'y' is not defined"),
    ("import sys\nsys.exit(3)\n", "mine.py line 2 raises SystemExit: 3"),
    ("x = (\n", "mine.py line 1 is no Python: '(' was never closed"),
    ("import no_such_package\n", "install the package that has no_such_package"),
    ("import helper\n", "an objective is one file"),
    ("raise ImportError\n", "mine.py line 1 raises ImportError"),
    ("x = '\udcff'", "mine.py"),       # a byte that is no UTF-8
    ("class Only: ...\n", "did you mean './mine.py:Only'?"),
])
def test_a_file_that_cannot_be_run_is_told_with_its_line(code: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "mine.py").write_text(code, errors="surrogateescape")
    with pytest.raises(UserError) as caught:
        made(f"{LEAST}objective: ./mine.py:Mine\n", root=tmp_path)
    assert caught.value.text.startswith("my.yaml line 3: ")
    assert told in caught.value.text
    assert not [name for name in sys.modules if name.startswith("mine_")
                and sys.modules[name].__file__ == str(tmp_path / "mine.py")] or "Only" in code


def test_an_objective_outside_a_recipe(own: Path) -> None:
    assert objective_of("./mine.py:Mine", ["beta=0.4"], own).beta == 0.4       # type: ignore[attr-defined]
    assert objective_of("dpo", ["objective.beta=0.4"], own).beta == 0.4        # type: ignore[attr-defined]
    for words, told in ((("dpo", "betta=1"), "objective.betta on the command line: unknown key"),
                        (("dpo", "beta"), "'objective.beta' is not an override"), (("dop",), "did you mean 'dpo'?")):
        with pytest.raises(UserError) as caught:
            objective_of(words[0], words[1:], own)
        assert told in caught.value.text


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
        built_in = [option for option in options if "const" in option.get("properties", {}).get("kind", {})]
        assert [option["properties"]["kind"]["const"] for option in built_in] == catalog.names
        assert all(option["additionalProperties"] is False and "kind" in option["required"] for option in built_in)
        assert names["enum"] == [option["properties"]["kind"]["const"] for option in built_in
                                 if option["required"] == ["kind"]]
    assert "distill" not in made_schema["properties"]["objective"]["anyOf"][0]["enum"]      # it needs a teacher
    alone, with_options = made_schema["properties"]["objective"]["anyOf"][-2:]
    assert with_options["properties"]["kind"] == alone
    assert re.search(alone["pattern"], "./my_loss.py:MyLoss")
    assert not re.search(alone["pattern"], "./my_loss.py")


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    made_schema = schema()
    references = [node["$ref"] for node in nodes(made_schema) if "$ref" in node]
    assert references
    for reference in references:
        assert reference.removeprefix("#/$defs/") in made_schema["$defs"], reference
