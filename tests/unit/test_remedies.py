"""Remedies for forgetting: the choice among scales, the scaled adapter, and what changed recipes change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tiny import tiny_tokenizer
from toy import labels_recipe, run, weights
from tuneloop import remedies
from tuneloop.errors import UserError
from tuneloop.evaluation.intervals import Interval
from tuneloop.evaluation.suites.catalog import Forgetting
from tuneloop.methods.lora import Method
from tuneloop.models.load import load_model
from tuneloop.record import RunFolder, read_json, write_json
from tuneloop.remedies import Patient, Point, best_within, exceeded, set_scale
from tuneloop.training.watch import Silent

QUICK = {"suites": ["fluency"], "few_shot": 0, "prompt_search": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> RunFolder:
    """A run of a label task that has trained, in a folder of runs."""
    folder = tmp_path_factory.mktemp("remedies")
    recipe = labels_recipe(folder, tiny_llama, evaluation=QUICK, goal={"max_forgetting": 0.02})
    run(recipe, folder / "runs" / "first", until="train")
    return RunFolder(folder / "runs" / "first")


@pytest.fixture
def patient(trained: RunFolder, tmp_path: Path) -> Patient:
    """The same in a folder of its own, which may be changed."""
    shutil.copytree(trained.path, tmp_path / "runs" / "first")
    return Patient(RunFolder(tmp_path / "runs" / "first"))


def point(scale: float, score: float, drop: float, high: float | None = None) -> Point:
    lost = Forgetting(Interval(drop, drop - 0.01, drop + 0.01 if high is None else high), {}, 100)
    return Point(scale, Interval(score, score - 0.1, score + 0.1), lost)


# --- the choice ------------------------------------------------------------------------------------------------------

TRIED = [point(0, 0.9, 0.0), point(0.25, 0.5, 0.0), point(0.5, 0.7, 0.02), point(0.75, 0.7, 0.015),
         point(1, 0.8, 0.05)]


@pytest.mark.parametrize(("bound", "scale"), [(0.02, 0.5), (0.016, 0.75), (0.01, 0.25), (0.1, 1)])
def test_the_best_score_within_the_bound_is_chosen_and_of_equal_ones_the_smallest_scale(bound: float,
                                                                                          scale: float) -> None:
    chosen = best_within(TRIED, bound)
    assert chosen is not None
    assert chosen.scale == scale        # never 0: the base is no result, however well it scores


def test_nothing_is_chosen_where_all_scales_forget_too_much_or_nothing_was_graded() -> None:
    assert best_within(TRIED, -0.01) is None
    assert best_within([Point(0.5, Interval(1, 1, 1), None)], 0.5) is None


def test_of_a_metric_that_should_be_low_the_lowest_is_chosen() -> None:
    chosen = best_within(TRIED, 0.1, lower_is_better=True)
    assert chosen is not None
    assert chosen.scale == 0.25


def test_sure_is_the_interval_and_not_the_point() -> None:
    within, beyond = point(0.5, 0.7, 0.01, high=0.02), point(0.5, 0.7, 0.01, high=0.021)
    assert remedies.Sweep("accuracy", 9, 0.02, (within,), within).sure
    assert not remedies.Sweep("accuracy", 9, 0.02, (beyond,), beyond).sure
    assert not remedies.Sweep("accuracy", 9, 0.02, (beyond,), None).sure


def test_a_certificate_says_whether_too_much_was_forgotten() -> None:
    def certificate(bound: float | None, drop: float | None) -> dict[str, Any]:
        return {"goal": {"max_forgetting": bound}, "forgetting": None if drop is None else {"drop": {"value": drop}}}

    assert exceeded(certificate(0.02, 0.03)) == (0.03, 0.02)
    assert exceeded(certificate(0.02, 0.02)) is None
    assert exceeded(certificate(None, 0.5)) is None
    assert exceeded(certificate(0.02, None)) is None


# --- the scaled adapter ----------------------------------------------------------------------------------------------

def _logits(model: Any) -> Any:
    ids = torch.tensor([tiny_tokenizer()("Is this film review positive or negative?")["input_ids"]])
    with torch.no_grad():
        return model(input_ids=ids).logits


def _saved_lora(base: Path, folder: Path, **options: Any) -> Any:
    """A LoRA whose B is not zero, saved; and the model that has it."""
    tuned = Method(rank=4, **options).apply(load_model(base), 0)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(tuned.named_parameters()):
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    Method(rank=4, **options).save(tuned, folder)
    return tuned.eval()


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"alpha": 3}])
@pytest.mark.parametrize("scale", [0.0, 0.25, 0.75])
def test_a_scaled_adapter_in_memory_on_disk_and_in_its_matrices_are_one(
        tiny_llama: Path, tmp_path: Path, options: dict[str, Any], scale: float) -> None:
    tuned = _saved_lora(tiny_llama, tmp_path / "adapter", **options)
    assert set_scale(tuned, 0.5) == set_scale(tuned, scale) > 10        # counts from the beginning, not from 0.5
    write_json(tmp_path / "adapter" / "tuneloop.json", {"base": {}})
    remedies._scale_files(tmp_path / "adapter", "lora_alpha", scale, "first")
    loaded = Method(rank=4, **options).load(load_model(tiny_llama), tmp_path / "adapter").eval()
    by_hand = _saved_lora(tiny_llama, tmp_path / "again", **options)
    with torch.no_grad():
        for name, parameter in by_hand.named_parameters():
            if "lora_B" in name:
                parameter.mul_(scale)
    assert torch.equal(_logits(tuned), _logits(loaded))
    assert torch.allclose(_logits(tuned), _logits(by_hand), atol=1e-5)
    if scale == 0:
        assert torch.equal(_logits(tuned), _logits(load_model(tiny_llama).eval()))
    assert read_json(tmp_path / "adapter" / "tuneloop.json")["scaled"] == {"by": scale, "from": "first"}


def test_layers_with_an_alpha_of_their_own_are_scaled_too(tmp_path: Path) -> None:
    write_json(tmp_path / "adapter_config.json", {"lora_alpha": 8, "alpha_pattern": {"q_proj": 4}, "r": 4})
    write_json(tmp_path / "tuneloop.json", {})
    remedies._scale_files(tmp_path, "lora_alpha", 0.25, "first")
    assert read_json(tmp_path / "adapter_config.json") == {"lora_alpha": 2, "alpha_pattern": {"q_proj": 1}, "r": 4}


@pytest.mark.parametrize("kind", ["LOHA", "LOKR"])
def test_other_tuners_with_a_scale_go_to_the_base_as_well(tiny_llama: Path, kind: str) -> None:
    from tuneloop.methods.peft import Method as Other

    tuned = Other(type=kind, options={"r": 4, "init_weights": False}).apply(load_model(tiny_llama), 0).eval()
    whole, base = _logits(tuned), _logits(load_model(tiny_llama).eval())
    assert not torch.allclose(whole, base, atol=1e-3)
    set_scale(tuned, 0.0)
    assert torch.allclose(_logits(tuned), base, atol=1e-6)
    set_scale(tuned, 1.0)
    assert torch.equal(_logits(tuned), whole)


@pytest.mark.parametrize(("config", "said"), [
    ({"peft_type": "IA3"}, "no scale"), ({"peft_type": "LORA", "use_dora": True}, "use_dora"),
    ({"peft_type": "LORA", "bias": "all"}, "biases"), (None, "no scale")])
def test_what_a_scale_does_not_reach_is_refused_by_name(patient: Patient, config: dict[str, Any] | None,
                                                         said: str) -> None:
    file = patient.artefact / "adapter_config.json"
    if config is None:
        file.unlink()
    else:
        write_json(file, config)
    with pytest.raises(UserError, match=said):
        patient.alpha_key()
    [offer] = [offer for offer in patient.offers() if offer.by == "scale"]
    assert said in offer.refused


# --- the sweep -------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_sweep_and_the_run_that_comes_of_it(patient: Patient, own_cache: Path) -> None:
    asked: list[str] = []

    class Noting(Silent):
        def stage(self, name: str, total: int | None) -> None:
            asked.append(name)

    sweep = patient.sweep(0.5, Noting(), rows=5, items=2)
    assert [one.scale for one in sweep.points] == [0, 0.25, 0.5, 0.75, 1]
    assert asked[:4] == ["scale 0", "suites 0", "scale 0.25", "suites 0.25"]
    assert sweep.rows == 5
    base, full = sweep.points[0], sweep.points[-1]
    assert base.forgetting is not None
    assert base.forgetting.drop.value == 0
    assert full.forgetting is not None
    assert full.forgetting.drop.value != 0                      # it was trained: a sweep that scales nothing is caught
    assert full.score.value > base.score.value
    assert len({one.forgetting.by_suite["fluency"] for one in sweep.points if one.forgetting}) == 5
    assert len(list((own_cache).glob("answers.db"))) == 1
    again = patient.sweep(0.5, Silent(), rows=5, items=2)
    assert again.to_json() == sweep.to_json()                   # by what was kept

    chosen = remedies.Sweep(sweep.metric, sweep.rows, sweep.bound, sweep.points, sweep.points[2])
    made = patient.at_scale(chosen)
    record = made.read("record.json")
    assert record["run"] == made.path.name != patient.folder.path.name
    assert record["mended_from"]["run"] == "first"
    assert record["mended_from"]["chosen"] == 0.5
    config, before = (read_json(folder.file("adapter", "adapter_config.json")) for folder in (made, patient.folder))
    assert config["lora_alpha"] == before["lora_alpha"] / 2
    assert all(np.array_equal(a, b) for a, b in zip(weights(made.path).values(), weights(patient.folder.path).values(),
                                                    strict=True))
    assert not made.has("checkpoints")
    assert not made.has("evaluation", "tuned.json")


def test_the_rows_must_still_be_those_of_the_run(patient: Patient, own_cache: Path) -> None:
    patient.record["data"]["hashes"]["validation"] = "other"
    with pytest.raises(UserError, match="not those of the run"):
        patient.sweep(0.5, Silent())


def test_a_bound_is_needed(patient: Patient) -> None:
    assert patient.bound(None) == 0.02
    assert patient.bound(0.1) == 0.1
    patient.recipe.goal.__dict__["max_forgetting"] = None
    with pytest.raises(UserError, match="does not bound"):
        patient.bound(None)


# --- changed recipes -------------------------------------------------------------------------------------------------

def _differs(patient: Patient, by: str, **options: Any) -> dict[str, Any]:
    """The keys in which the changed recipe is another, its name aside."""
    path = patient.changed(by, **options)
    assert path.parent == patient.folder.path
    old, new = (yaml.safe_load(p.read_text()) for p in (patient.folder.file("recipe.yaml"), path))
    assert new.pop("name") == f"run-{by}"
    return {key: value for key, value in new.items() if value != old.get(key)}


def test_each_recipe_changes_one_thing(patient: Patient) -> None:
    data = yaml.safe_load(patient.folder.file("recipe.yaml").read_text())["data"]
    assert _differs(patient, "replay") == {"data": data | {"mix": [{"from": "builtin:general", "weight": 0.1}]}}
    assert _differs(patient, "kl") == {"objective": {"kind": "sft", "kl": 1.0}}
    training = yaml.safe_load(patient.folder.file("recipe.yaml").read_text())["training"]
    assert _differs(patient, "rate") == {"training": training | {"learning_rate": 0.00333}}
    assert _differs(patient, "kl", max_forgetting=0.1)["goal"] == {"max_forgetting": 0.1}


def test_a_remedy_that_is_there_already_gets_stronger(trained: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    given = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    given["data"]["mix"] = [{"from": "builtin:general", "weight": 0.3}]
    given["objective"] = {"kind": "sft", "kl": 0.5}
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(given))
    patient = Patient(RunFolder(tmp_path / "run"))
    assert yaml.safe_load(patient.changed("replay").read_text())["data"]["mix"][0]["weight"] == 0.5
    assert yaml.safe_load(patient.changed("kl").read_text())["objective"] == {"kind": "sft", "kl": 1.0}


@pytest.mark.parametrize(("objective", "kl"), [
    ("dpo", {"kind": "dpo", "beta": 0.2}), ({"kind": "kto", "beta": 0.3}, {"kind": "kto", "beta": 0.6}),
    ("orpo", "no pull"), ({"kind": "dpo", "reference_free": True}, "no pull")])
def test_objectives_of_other_rows_get_more_of_their_own_pull_and_no_general_rows(
        trained: RunFolder, tmp_path: Path, objective: Any, kl: Any) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    given = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()) | {"objective": objective}
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(given))
    patient = Patient(RunFolder(tmp_path / "run"))
    with pytest.raises(UserError, match="does not learn from"):
        patient.changed("replay")
    if isinstance(kl, str):
        with pytest.raises(UserError, match=kl):
            patient.changed("kl")
    else:
        assert yaml.safe_load(patient.changed("kl").read_text())["objective"] == kl


def test_the_offers_say_what_they_cost(patient: Patient) -> None:
    offers = {offer.by: offer for offer in patient.offers()}
    assert tuple(offers) == remedies.WAYS
    assert not any(offer.refused for offer in offers.values())
    assert "no training" in offers["scale"].costs
    assert all("min)" in offers[by].costs for by in ("replay", "kl", "rate"))
    assert "0.00333 instead of 0.01" in offers["rate"].what


def test_a_run_without_a_result_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    run(labels_recipe(tmp_path, tiny_llama), tmp_path / "run", until="plan")
    with pytest.raises(UserError, match="no trained model"):
        Patient(RunFolder(tmp_path / "run"))
