"""Every objective from a recipe to a certificate, on a tiny base and rows of its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import tiny_base
from toy import GOOD, judged_rows, metrics, resume, run, tuneloop, write_jsonl
from tuneloop.errors import UserError
from tuneloop.recipe import OBJECTIVES, Recipe, parse
from tuneloop.record import RunFolder
from tuneloop.types import Conversation


def recipe_of(folder: Path, base: Path, objective: Any, **changes: Any) -> Recipe:
    kind = objective if isinstance(objective, str) else objective["kind"]
    write_jsonl(folder / "rows.jsonl", judged_rows(OBJECTIVES.get(kind).batch_kind))
    given = {"base": str(base), "data": {"train": "rows.jsonl"}, "objective": objective,
             "method": {"kind": "lora", "rank": 4},
             "training": {"epochs": 4, "batch_size": 8, "learning_rate": 0.01, "evaluate_every": 10,
                          "sample_prompts": 1} | changes.pop("training", {}),
             "evaluation": {"max_new_tokens": 16}} | changes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(given))
    return parse(yaml.safe_dump(given), shown="recipe.yaml", root=folder)


def certified(tmp_path: Path, base: Path, objective: Any, **changes: Any) -> dict[str, Any]:
    return run(recipe_of(tmp_path, base, objective, **changes), tmp_path / "run")


@pytest.mark.parametrize("name", [n for n in OBJECTIVES.names if n != "distill"])
def test_an_objective_runs(name: str, tmp_path: Path, tiny_llama: Path) -> None:
    certificate = certified(tmp_path, tiny_llama, name)
    assert certificate["verdict"] in ("met", "not met", "undecided")
    steps = metrics(tmp_path / "run")
    first, last = (sum(s["loss"] for s in part) / 4 for part in (steps[:4], steps[-4:]))
    assert last < first or name in ("grpo", "rloo", "ppo")      # a policy loss is about 0 where the ratio is 1
    assert (tmp_path / "run" / "report.html").exists()
    record = RunFolder(tmp_path / "run").read("record.json")
    assert record["objective"]["kind"] == name


@pytest.mark.parametrize("objective", ["dpo", "simpo", "orpo", "reward", {"kind": "dpo", "form": "ipo"},
                                       {"kind": "dpo", "form": "hinge"}, {"kind": "dpo", "reference_free": True}],
                         ids=str)
def test_what_people_prefer_is_learnt(objective: Any, tmp_path: Path, tiny_llama: Path) -> None:
    certificate = certified(tmp_path, tiny_llama, objective)
    assert certificate["task"] == "pairs"
    assert certificate["metric"] == "preference_accuracy"
    assert certificate["scores"]["tuned"]["preference_accuracy"]["value"] == 1.0
    assert metrics(tmp_path / "run")[-1]["accuracy"] == 1.0


def test_a_policy_moves_towards_what_was_rewarded(tmp_path: Path, tiny_llama: Path) -> None:
    """The best answers of the test rows become likelier, which the loss itself does not show."""
    certificate = certified(tmp_path, tiny_llama, {"kind": "grpo", "beta": 0.0})
    scores = certificate["scores"]
    assert scores["tuned"]["perplexity"]["value"] < scores["base"]["perplexity"]["value"]


def test_kto_judges_by_liked_rows_alone(tmp_path: Path, tiny_llama: Path) -> None:
    certificate = certified(tmp_path, tiny_llama, "kto", data={"train": "rows.jsonl", "split": {"test": 12}})
    predictions = RunFolder(tmp_path / "run").lines("evaluation", "predictions.jsonl")
    assert {p["reference"] for p in predictions} == {GOOD}
    assert certificate["test_rows"] == len(predictions) < 12
    assert any(m["kl"] > 0 for m in metrics(tmp_path / "run"))


def test_a_teacher_is_another_model(tmp_path: Path, tiny_llama: Path) -> None:
    teacher = tiny_base(tmp_path / "teacher", seed=1)
    objective = {"kind": "distill", "teacher": str(teacher), "top_k": 8, "alpha": 1.0}
    certificate = certified(tmp_path, tiny_llama, objective)
    steps = metrics(tmp_path / "run")
    assert steps[-1]["teacher_kl"] < steps[0]["teacher_kl"]
    assert certificate["task"] == "open"


@pytest.mark.parametrize("objective", ["ppo", "distill"])
def test_no_validation_rows(objective: str, tmp_path: Path, tiny_llama: Path) -> None:
    options = {"kind": objective} | ({"teacher": str(tiny_base(tmp_path / "teacher", seed=1))} if objective == "distill"
                                     else {})
    certificate = certified(tmp_path, tiny_llama, options, training={"epochs": 1},
                            data={"train": "rows.jsonl", "split": {"validation": 0}})
    assert certificate["test_rows"] > 0


def test_a_teacher_with_other_tokens_is_refused_before_anything_is_loaded(tmp_path: Path, tiny_llama: Path) -> None:
    teacher = tiny_base(tmp_path / "teacher")
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    first, second = list(tokenizer["model"]["vocab"])[40:42]
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    recipe = recipe_of(tmp_path, tiny_llama, {"kind": "distill", "teacher": str(teacher)})
    with pytest.raises(UserError, match="has another vocabulary than the base"):
        run(recipe, tmp_path / "run", "check")


def test_another_teacher_is_not_taken_for_the_first(tmp_path: Path, tiny_llama: Path) -> None:
    teacher = tiny_base(tmp_path / "teacher", seed=1)
    recipe = recipe_of(tmp_path, tiny_llama, {"kind": "distill", "teacher": str(teacher)}, training={"epochs": 1})
    run(recipe, tmp_path / "run", "baseline")
    assert RunFolder(tmp_path / "run").read("record.json")["asked"]["teacher"]["name"] == "teacher"
    tiny_base(teacher, seed=2)
    with pytest.raises(UserError, match="The weights of the reference model or teacher have changed"):
        resume(recipe, tmp_path / "run")


def test_rollouts_without_contrast_are_refused_where_they_teach_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_llama, "grpo")
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"Q{i}", "completions": [f"A{i}"], "rewards": [i]}
                                          for i in range(20)])
    with pytest.raises(UserError, match="No prompt of the training rows has answers with different rewards"):
        run(recipe, tmp_path / "run", "check")


def test_a_second_run_asks_the_reference_model_nothing(tmp_path: Path, tiny_llama: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneloop.inference import columns

    recipe = recipe_of(tmp_path, tiny_llama, "dpo", training={"epochs": 1})
    run(recipe, tmp_path / "first", "train")
    monkeypatch.setattr(columns, "cut_step", None)      # whoever computes calls it
    run(recipe, tmp_path / "second", "train")
    assert metrics(tmp_path / "first")[-1]["loss"] == metrics(tmp_path / "second")[-1]["loss"]


def test_a_reward_model_scores_and_does_not_talk(tmp_path: Path, tiny_llama: Path) -> None:
    recipe_of(tmp_path, tiny_llama, "reward", training={"epochs": 1})
    done = tuneloop("run", "recipe.yaml", "--folder", "r", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["metric"] == "preference_accuracy"
    assert (tmp_path / "r" / "adapter" / "reward_head.safetensors").exists()
    assert (tmp_path / "r" / "samples.jsonl").exists() is False
    for command in (["chat", "r", "-m", "Hi"], ["export", "r"]):
        refused = tuneloop(*command, cwd=tmp_path)
        assert refused.returncode == 2
        assert "trained a reward model" in refused.stderr


def test_a_finished_reward_model_is_judged_as_it_was_trained(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_llama, "reward")
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "parts", "train")
    resumed = resume(recipe, tmp_path / "parts")
    whole = RunFolder(tmp_path / "whole").read("certificate.json")
    assert resumed["scores"] == whole["scores"]


def test_an_objective_of_ones_own_that_changed_is_not_resumed(tmp_path: Path, tiny_llama: Path) -> None:
    assert tuneloop("new", "objective", "my_loss", cwd=tmp_path).returncode == 0
    recipe_of(tmp_path, tiny_llama, "sft", training={"epochs": 1})
    first = tuneloop("run", "recipe.yaml", "objective=./my_loss.py:MyLoss", "--folder", "r", "--until", "train",
                     cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    with (tmp_path / "my_loss.py").open("a") as file:
        file.write("\n# changed\n")
    again = tuneloop("run", "--resume", "r", cwd=tmp_path)
    assert again.returncode == 2
    assert "The file of the objective has changed" in again.stderr
    assert tuneloop("chat", "r", "-m", "Hi", cwd=tmp_path).returncode == 0     # needs the loss no more


def test_rows_for_another_objective_name_it(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_llama, "dpo")
    write_jsonl(tmp_path / "rows.jsonl", judged_rows(Conversation))
    with pytest.raises(UserError, match="its rows are no pairs of answers"):
        run(recipe, tmp_path / "run", "check")
