"""What trials see: validation rows in the place of test rows, the same for all of them, and parts that are nested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toy import labels_csv, labels_recipe, open_recipe, write_jsonl
from tuneloop import recipe as recipes
from tuneloop.errors import UserError
from tuneloop.prepared import Prepared
from tuneloop.recipe import Recipe
from tuneloop.search import look_ahead
from tuneloop.search_data import order_of, sizes_of
from tuneloop.search_rows import Blind, Rows, require_same
from tuneloop.search_space import with_values
from tuneloop.training.watch import Silent

DATA = {"train": "rows.csv", "prompt": "{text}", "answer": "{label}", "split": {"validation": 12, "test": 20}}


def recipe_in(folder: Path, base: Path, **changes: Any) -> Recipe:
    return labels_recipe(folder, base, **({"data": DATA} | changes))


def changed(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    return recipes.of(with_values(recipe.given, values), shown="a trial", root=recipe.root)


def test_validation_rows_stand_where_the_test_rows_were(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_in(tmp_path, tiny_llama)
    open_, blind = Prepared(recipe, Silent()), Blind(recipe, Silent())
    hidden = {row.prompt[-1].content for row in open_.test}
    assert len(hidden) == 20
    assert [row.prompt for row in blind.test] == [row.prompt for row in open_.rows.validation]
    assert blind.references == [row.answer for row in open_.rows.validation]
    assert len(blind.test_tokens) == len(blind.test) == 12
    everything = [row for part in (blind.rows.train, blind.rows.validation, blind.rows.test) for row in part]
    assert not hidden & {row.prompt[-1].content for row in everything}
    assert blind.test_rows == 20
    assert blind.plan().steps == open_.plan().steps


def test_prompts_are_chosen_without_the_rows_they_are_judged_on(tmp_path: Path, tiny_llama: Path) -> None:
    blind = Blind(recipe_in(tmp_path, tiny_llama), Silent())
    assert blind.unvalidated.rows.validation == []
    assert len(blind.unvalidated.test) == 12
    assert len(blind.rows.validation) == 12


def test_rows_to_score_are_bounded_by_the_recipe(tmp_path: Path, tiny_llama: Path) -> None:
    blind = Blind(recipe_in(tmp_path, tiny_llama, evaluation={"rows": 5}), Silent())
    assert (len(blind.test), len(blind.rows.validation)) == (5, 12)


def test_without_validation_rows_there_is_nothing_to_choose_by(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_in(tmp_path, tiny_llama, data=DATA | {"split": {"validation": 0, "test": 20}})
    with pytest.raises(UserError, match="No validation rows"):
        Blind(recipe, Silent())


def test_trials_share_rows_until_the_data_changes(tmp_path: Path, tiny_llama: Path) -> None:
    rows, recipe = Rows(Silent()), recipe_in(tmp_path, tiny_llama)
    first, other = rows.of(recipe), rows.of(changed(recipe, {"training.epochs": 1, "method.rank": 2}))
    assert first.rows is other.rows
    assert (other.recipe.training.epochs, other.recipe.method.model_dump()["rank"]) == (1, 2)
    assert rows.of(changed(recipe, {"data.max_train_rows": 10})).rows is not first.rows
    assert rows.of(changed(recipe, {"method": {"kind": "prompt", "tokens": 4}})).rows is not first.rows


def test_values_that_change_what_is_held_out_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    rows, recipe = Rows(Silent()), recipe_in(tmp_path, tiny_llama)
    first = rows.of(recipe)
    require_same(rows.of(changed(recipe, {"data.max_train_rows": 10})), first, {})
    values = {"data.prompt": "What is it? {text}"}
    with pytest.raises(UserError, match=r"data.prompt=.*which rows are held out"):
        require_same(rows.of(changed(recipe, values)), first, values)


def test_a_prompt_is_searched_where_the_rows_have_files_of_their_own(tmp_path: Path, tiny_llama: Path) -> None:
    lines = labels_csv().splitlines()
    for name, part in (("validation", lines[1:13]), ("test", lines[13:33]), ("rest", lines[33:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *part, ""]))
    data = {"train": "rest.csv", "validation": "validation.csv", "test": "test.csv", "prompt": "{text}",
            "answer": "{label}"}
    space = {"data.prompt": ["{text}", "What is it? {text}"]}
    ahead = look_ahead(recipe_in(tmp_path, tiny_llama, data=data, search={"space": space}), Silent())
    assert ahead.defaults == {"data.prompt": "{text}"}


# ── before anything is spent ─────────────────────────────────────────────────────────────────────────────────────────

def refusal(folder: Path, base: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        look_ahead(recipe_in(folder, base, **changes), Silent())
    assert caught.value.exit_code == 2
    return caught.value.text


def test_an_objective_needs_its_rows(tmp_path: Path, tiny_llama: Path) -> None:
    told = refusal(tmp_path, tiny_llama, search={"space": {"objective": ["sft", "dpo"]}})
    assert "search.space, objective dpo:" in told


def test_a_metric_other_than_the_goals_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    told = refusal(tmp_path, tiny_llama, search={"metric": "macro_f1"})
    assert "search.metric is macro_f1" in told
    assert "goal.metric=macro_f1" in told
    assert look_ahead(recipe_in(tmp_path, tiny_llama, search={"metric": "macro_f1"},
                                goal={"metric": "macro_f1"}), Silent()).metric == "macro_f1"


def test_a_prompt_that_moves_the_split_is_refused_before_a_trial(tmp_path: Path, tiny_llama: Path) -> None:
    told = refusal(tmp_path, tiny_llama, search={"space": {"data.prompt": ["{text}", "Look: {text}"]}})
    assert "which rows are held out" in told


def test_without_the_extra_it_is_named(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.search.importlib.util.find_spec", lambda name: None)
    assert "tuneloop[hpo]" in refusal(tmp_path, tiny_llama)


def test_the_defaults_are_known_as_a_point_of_the_space(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = look_ahead(recipe_in(tmp_path, tiny_llama, search={"space": {
        "method": ["lora", "full"], "method.rank": [2, 4], "training.learning_rate": {"low": 0.001, "high": 0.1},
        "training.epochs": [1, 2]}}), Silent())
    assert ahead.defaults == {"method": "lora", "method.rank": 4, "training.learning_rate": 0.01}      # 4 epochs


def test_a_method_that_is_left_to_the_plan_is_chosen_once(tmp_path: Path, tiny_llama: Path) -> None:
    ahead = look_ahead(recipe_in(tmp_path, tiny_llama, method="auto"), Silent())
    assert ahead.recipe.given["method"] == ahead.recipe.method.kind
    assert not ahead.recipe.auto


def test_written_answers_are_compared_by_their_loss_on_the_way(tmp_path: Path, tiny_llama: Path) -> None:
    space = {"training.epochs": [1, 2]}
    assert not look_ahead(recipe_in(tmp_path, tiny_llama, search={"space": space}), Silent()).by_loss
    assert look_ahead(open_recipe(tmp_path, tiny_llama, search={"space": space}), Silent()).by_loss
    varied = space | {"objective.label_smoothing": [0.0, 0.1]}
    assert not look_ahead(open_recipe(tmp_path, tiny_llama, search={"space": varied}), Silent()).by_loss


# ── parts of the training rows ───────────────────────────────────────────────────────────────────────────────────────

def test_parts_are_nested_and_others_with_another_repeat(tmp_path: Path, tiny_llama: Path) -> None:
    one, other = order_of(100, 0, 0), order_of(100, 1, 0)
    assert sorted(one) == sorted(other) == list(range(100))
    assert one != other
    blind = Blind(recipe_in(tmp_path, tiny_llama), Silent())
    few, more = (blind.with_train(sorted(order_of(28, 0, 0)[:count])) for count in (8, 20))
    assert set(few.rows.train) < set(more.rows.train) < set(blind.rows.train)
    assert [len(part.rows.groups["train"]) for part in (few, more)] == [8, 20]
    assert few.plan().steps < more.plan().steps
    assert len(few.test) == len(blind.test)


def test_sizes_are_eighths_to_all_and_too_few_rows_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"prompt": f"Where is order {i}?", "completion": f"Order {i} is late."} for i in range(160)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    split = {"validation": 20, "test": 20}
    recipe = recipe_in(tmp_path, tiny_llama, data={"train": "rows.jsonl", "split": split}, training={"batch_size": 4})
    assert sizes_of(Blind(recipe, Silent())) == [15, 30, 60, 120]
    assert sizes_of(Blind(changed(recipe, {"training.batch_size": 16}), Silent())) == [30, 60, 120]
    with pytest.raises(UserError, match="batch size of 40"):
        sizes_of(Blind(changed(recipe, {"training.batch_size": 40}), Silent()))
