"""A run with everybody in it: contenders, suites, slices, costs; kept, cached, bounded, and left out aloud."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fake_api import serving
from tiny import tiny_base
from toy import judged_rows, labels_recipe, open_recipe, resume, run, write_jsonl
from tuneloop.errors import UserError
from tuneloop.evaluation.blind import Judgement, ask_for, write_judgements
from tuneloop.evaluation.cache import Cached
from tuneloop.evaluation.signing import verify
from tuneloop.record import RunFolder
from tuneloop.training.watch import Silent
from tuneloop.types import Preference

EVERYBODY = {"few_shot": 2, "prompt_search": 12, "suites": ["knowledge", "harmful", "stereotypes"], "suite_items": 6,
             "max_new_tokens": 8, "metrics": ["ece"], "perturb": ["casing", "injection"], "extraction": 4}


class Said(Silent):
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELOOP_CACHE", str(folder / "cache"))
        other = tiny_base(folder / "other", seed=5)
        recipe = labels_recipe(folder, tiny_llama, evaluation=EVERYBODY | {"compare_to": [str(other)]})
        return folder, run(recipe, folder / "run")


def test_everybody_answers_the_same_rows(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, certificate = whole
    names = {"base", "tuned", "rival", "few_shot", "optimised_prompt", str(folder / "other")}
    assert set(certificate["scores"]) == names
    assert {one["name"] for one in certificate["contenders"]} == names - {"rival"}
    lines = RunFolder(folder / "run").lines("evaluation", "predictions.jsonl")
    assert all(set(line["answers"]) == names for line in lines)
    for one in certificate["differences"]:
        assert one["to"] == "tuned"
        assert 0 <= one["p"] <= one["p_holm"] <= 1
        assert one["wins"] + one["losses"] + one["ties"] == certificate["test_rows"]
        scores = certificate["scores"]
        if one["metric"] != "perplexity":
            assert one["value"] == pytest.approx(
                scores["tuned"][one["metric"]]["value"] - scores[one["from"]][one["metric"]]["value"])
    assert set(certificate["costs"]) == names - {"rival"}
    assert all(cost["machine_seconds_per_1000"] > 0 for cost in certificate["costs"].values())
    assert "ece" in certificate["scores"]["base"]
    assert "ece" not in certificate["scores"]["rival"]          # which has no confidence


def test_suites_are_asked_before_and_after(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, certificate = whole
    assert certificate["forgetting"]["items"] == 6
    assert [change["suite"] for change in certificate["suites"] if not change["part"]] == ["knowledge"]
    assert {shift["suite"] for shift in certificate["safety"]["suites"]} == {"harmful", "stereotypes"}
    before, after = (json.loads((folder / "run" / "evaluation" / f"suites-{name}.json").read_text())
                     for name in ("base", "tuned"))
    assert [item["id"] for item in before["knowledge"]] == [item["id"] for item in after["knowledge"]]


def test_changes_and_training_rows_are_tried(whole: tuple[Path, dict[str, Any]]) -> None:
    _, certificate = whole
    assert {one["kind"] for one in certificate["robustness"]} == {"casing", "injection"}
    for one in certificate["robustness"]:
        assert set(one["models"]) == {"base", "tuned"}
    assert set(certificate["memorised"]) == {"rows", "verbatim", "examples"}


def test_the_certificate_is_signed_and_holds(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = whole
    assert verify(folder / "run").ok


def test_what_is_kept_is_not_asked_again(whole: tuple[Path, dict[str, Any]], tiny_llama: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run asks nothing; another run of the same base finds its answers in the cache."""
    folder, certificate = whole
    monkeypatch.setenv("TUNELOOP_CACHE", str(folder / "cache"))
    computed: list[int] = []
    close = Cached.close
    monkeypatch.setattr(Cached, "close", lambda self: (computed.append(self.computed), close(self))[1])
    recipe = labels_recipe(folder, tiny_llama, evaluation=EVERYBODY | {"compare_to": [str(folder / "other")]})
    (folder / "other").rename(folder / "away")      # a rival that is gone has answered already
    again = resume(recipe, folder / "run")
    (folder / "away").rename(folder / "other")
    assert computed == []
    assert again["scores"] == certificate["scores"]
    second = run(recipe, folder / "second", until="baseline")
    assert second["base"] == certificate["base"]
    assert computed
    assert not any(computed)


def test_what_fails_is_left_out_aloud(tmp_path: Path, tiny_llama: Path) -> None:
    """Examples that do not fit, and no time for the rest: the verdict does not depend on them."""
    said = Said()
    recipe = labels_recipe(tmp_path, tiny_llama, evaluation={"few_shot": 2, "minutes": 1e-9, "suites": ["knowledge"]})
    certificate = run(recipe, tmp_path / "run", watch=said)
    assert set(certificate["scores"]) == {"base", "tuned"}
    assert any("few_shot is left out: evaluation.minutes" in line for line in said.said)
    assert any("knowledge is left out: evaluation.minutes" in line for line in said.said)
    assert certificate["forgetting"] is None


def test_every_rival_answers_for_itself_and_costs_what_it_costs(tmp_path: Path, tiny_llama: Path,
                                                                own_cache: Path) -> None:
    """Folders that end alike, or as one of ours; a server with prices of its own; and one that is not there."""
    others = [str(tiny_base(tmp_path / name / "model", seed=seed)) for name, seed in (("one", 5), ("two", 7))]
    others.append(str(tiny_base(tmp_path / "three" / "base", seed=9)))
    own = {"prompt_usd_per_million": 1.0, "answer_usd_per_million": 2.0}
    said = Said()
    with serving() as gone:
        pass
    with serving(lambda body: "positive", models=("large",)) as api:
        recipe = labels_recipe(tmp_path, tiny_llama, goal={"metric": "macro_f1"}, evaluation={
            "compare_to": [*others, {"url": api.url, "price": own}, {"url": gone.url, "model": "gone"}],
            "price": {"machine_usd_per_hour": 1.0}})
        certificate = run(recipe, tmp_path / "run", watch=said)
    assert set(certificate["scores"]) == {"base", "tuned", "rival", *others, "large"}
    lines = RunFolder(tmp_path / "run").lines("evaluation", "predictions.jsonl")
    perplexities = {certificate["scores"][name]["perplexity"]["value"] for name in ("base", *others)}
    assert len(perplexities) == 4                       # nobody has another's answers
    assert {line["answers"]["large"] for line in lines} == {"positive"}
    costs = certificate["costs"]
    assert costs["large"]["usd_per_1000"] == pytest.approx((7 * 1.0 + 1 * 2.0) / 1e6 * 1000)    # tokens of the stand-in
    assert costs["base"]["usd_per_1000"] == pytest.approx(costs["base"]["machine_seconds_per_1000"] / 3600)
    right = sum(line["answers"]["large"] == line["reference"] for line in lines)
    assert costs["large"]["correct"] == pytest.approx(right)        # and not by macro-F1, which counts no rows
    assert any("gone is left out" in line for line in said.said)
    assert any(note.startswith("gone is left out.") for note in certificate["notes"])
    assert verify(tmp_path / "run").ok
    again = resume(recipe, tmp_path / "run")            # the server is gone now, and not needed any more
    assert again["scores"] == certificate["scores"]


def test_a_bound_on_what_may_be_lost_is_measured_in_full(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(
        tmp_path, tiny_llama, evaluation={"few_shot": 2, "minutes": 1e-9, "suites": ["knowledge"], "suite_items": 2},
        goal={"metric": "accuracy", "max_forgetting": 0.9, "better_than_base_by": None})
    certificate = run(recipe, tmp_path / "run")
    [check] = certificate["checks"]
    assert check["what"] == "forgetting ≤ 0.90"
    assert check["verdict"] == certificate["verdict"] == "met"
    assert certificate["forgetting"]["items"] > 100
    assert certificate["forgetting"]["drop"]["high"] <= 0.9


def test_what_the_goal_compares_with_is_asked_whatever_time_it_takes(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = labels_recipe(tmp_path, tiny_llama, goal={"better_than_few_shot_by": 0.0},
                           evaluation={"few_shot": 2, "minutes": 1e-9})
    certificate = run(recipe, tmp_path / "run")
    assert set(certificate["scores"]) == {"base", "tuned", "few_shot"}
    assert [check["what"] for check in certificate["checks"]][1] == "accuracy of tuned − few_shot > 0.00"
    assert any(note.startswith("rival is left out: evaluation.minutes") for note in certificate["notes"])


def test_pairs_are_for_base_and_tuned_model_alone_and_it_is_said(tmp_path: Path, tiny_llama: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", judged_rows(Preference, 40))
    recipe = labels_recipe(tmp_path, tiny_llama, data={"train": "pairs.jsonl"}, objective="dpo",
                           training={"epochs": 1}, evaluation={"compare_to": ["x"], "perturb": ["typos"]})
    certificate = run(recipe, tmp_path / "run")
    assert set(certificate["scores"]) == {"base", "tuned"}
    assert any(note.startswith("Left out of evaluation: compare_to, perturb, since") for note in certificate["notes"])


def test_open_answers_have_contenders_too(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = open_recipe(tmp_path, tiny_llama, evaluation={"few_shot": 1, "max_new_tokens": 8})
    certificate = run(recipe, tmp_path / "run")
    assert set(certificate["scores"]) == {"base", "tuned", "few_shot"}
    assert certificate["costs"]["few_shot"]["p95_seconds"] > 0
    assert "perplexity" in certificate["scores"]["few_shot"]


@pytest.mark.parametrize(("goal", "evaluation", "said"), [
    ({"better_than_few_shot_by": 0.0}, {}, "few_shot"),
    ({"max_forgetting": 0.1}, {}, "evaluation.suites"),
    ({"max_safety_drop": 0.1}, {"suites": ["knowledge"]}, "evaluation.suites"),
    ({}, {"metrics": ["ece", "bleu"]}, "evaluation.metrics: bleu is for open"),
    ({}, {"compare_to": ["tuned"]}, "called tuned"),
])
def test_what_cannot_be_measured_is_refused_at_once(goal: dict[str, Any], evaluation: dict[str, Any], said: str,
                                                         tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(labels_recipe(tmp_path, tiny_llama, goal=goal, evaluation=evaluation), tmp_path / "run", until="check")
    assert said in caught.value.text


def test_what_people_say_of_blind_pairs_enters_the_certificate(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = open_recipe(tmp_path, tiny_llama)
    assert run(recipe, tmp_path / "run")["blind"] is None
    folder = RunFolder.open(tmp_path / "run")
    pairs = ask_for(folder, 5)
    left = folder.read("blind", "key.json")["left"]
    judged = [Judgement(one.pair, "right" if left[one.pair] == "base" else "left", "ann") for one in pairs]
    write_judgements(judged, folder.file("blind", "judgements.jsonl"))
    blind = resume(recipe, tmp_path / "run")["blind"]
    assert (blind["wins"], blind["losses"]) == (len(pairs), 0)
    with pytest.raises(UserError, match="exists already"):
        ask_for(folder, 5)


def test_shuffled_labels_are_not_certified(tmp_path: Path, tiny_llama: Path) -> None:
    """The same rows as those that are learnt in seconds, with labels that say nothing."""
    recipe = labels_recipe(tmp_path, tiny_llama)
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    labels = [line.rpartition(",")[2] for line in lines[1:]]
    Random(4).shuffle(labels)
    rows = [f"{line.rpartition(',')[0]},{label}" for line, label in zip(lines[1:], labels, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join([lines[0], *rows, ""]))
    certificate = run(recipe, tmp_path / "run")
    assert certificate["goal"]["better_than_base_by"] == 0
    assert certificate["verdict"] != "met"
    assert certificate["scores"]["tuned"]["accuracy"]["value"] < 0.8


def test_before_and_after_are_asked_the_same_questions(tmp_path: Path, tiny_llama: Path) -> None:
    """A file of questions that is wrong is refused before anything runs, and one that changed when the run goes on."""
    recipe = labels_recipe(tmp_path, tiny_llama, evaluation={"suites": ["mine.jsonl"]})
    for text, why in (("", "mine.jsonl"), ('{"prompt": 1}', "line 1")):
        (tmp_path / "mine.jsonl").write_text(text)
        with pytest.raises(UserError, match=why):
            run(recipe, tmp_path / f"refused{len(text)}", until="check")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Which colour?", "answer": "red\u2028"}\n')
    record = run(recipe, tmp_path / "run", until="baseline")
    assert [suite["file"] for suite in record["suites"]] == ["mine.jsonl"]
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Which day?", "answer": "Monday"}\n')
    with pytest.raises(UserError, match=r"evaluation.suites have changed"):
        resume(recipe, tmp_path / "run")


def test_what_a_tuned_model_said_is_not_taken_for_what_another_says(tmp_path: Path, tiny_llama: Path,
                                                                   own_cache: Path) -> None:
    """Two models trained one after the other in a folder of the same name."""
    said = []
    for rate in (0.0001, 0.05):
        recipe = labels_recipe(tmp_path, tiny_llama, evaluation={"suites": ["fluency"], "suite_items": 4},
                               training={"learning_rate": rate})
        run(recipe, tmp_path / "run")
        said.append((tmp_path / "run" / "evaluation" / "suites-tuned.json").read_text())
        (tmp_path / "run").rename(tmp_path / f"was-{rate}")
    assert said[0] != said[1]
