"""Several graders as one reward: weights, failures and what is told of them, columns of rows, and the metric."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.grading.graders.catalog import KINDS, TYPES
from tuneloop.grading.metrics import METRICS, Options, View, chosen
from tuneloop.grading.reward_spec import portable, schema
from tuneloop.grading.rewards import Rewards, item_of, rewards_of
from tuneloop.types import Answers, Conversation, Message, Origin, Prompt

TEXT_SCORES = ("def grade(sample, item):\n    text = sample['output_text']\n"
               "    return {'raise': lambda: 1 / 0, 'nan': lambda: float('nan'), 'big': lambda: 7}.get(\n"
               "        text, lambda: float(text))()\n")


def row(reference: str = "right", asked: str = "q", line: int = 1) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", reference)), Origin("rows.csv", line))


def score(config: Any, answers: list[str], root: Path = Path(), **more: Any) -> Any:
    return rewards_of(config, root, **more).score([row()] * len(answers), answers)


def refusal(config: Any, root: Path = Path()) -> str:
    with pytest.raises(UserError) as caught:
        rewards_of(config, root)
    return caught.value.text


@pytest.fixture
def by_text(tmp_path: Path) -> dict[str, Any]:
    """A grader whose score is the answer itself, or which fails as the answer says."""
    (tmp_path / "reward.py").write_text(TEXT_SCORES)
    return {"config": [{"kind": "reward.py:grade"}], "root": tmp_path}


# ── what a reward is ─────────────────────────────────────────────────────────────────────────────────────────────────

def test_it_is_the_weighted_mean() -> None:
    found = score([{"kind": "exact", "weight": 3}, {"kind": "length", "high": 1}], ["right", "right or not", "no"])
    assert found.rewards.tolist() == [1, 0, 0.25]
    assert {name: part.tolist() for name, part in found.parts.items()} == {"exact": [1, 0, 0], "length": [1, 0, 1]}
    assert (found.failures, found.notes, found.rewards.dtype) == (0, [], np.float64)


def test_weights_count_by_their_share() -> None:
    two, twenty = ([{"kind": "exact", "weight": w}, {"kind": "contains", "weight": 3 * w}] for w in (0.5, 5))
    for config in (two, twenty):
        assert score(config, ["right!"]).rewards == pytest.approx([0.75])


def test_names_tell_graders_apart() -> None:
    config = ["exact", "exact", {"kind": "exact", "name": "mine"}, {
        "type": "string_check", "name": "hosted", "input": "a", "reference": "a", "operation": "eq"}, "token_f1"]
    assert rewards_of(config, Path()).names == ["exact", "exact 2", "mine", "hosted", "token_f1"]


def test_no_answers_have_no_rewards() -> None:
    found = score(["exact"], [])
    assert (found.rewards.shape, found.failures, found.notes) == ((0,), 0, [])


def test_hosted_graders_have_weights_beside_their_own_keys() -> None:
    check = {"type": "string_check", "name": "c", "input": "{{ sample.output_text }}", "reference": "right",
             "operation": "eq", "weight": 1}
    assert score([check, {"kind": "contains", "weight": 3}], ["right!"]).rewards.tolist() == [0.75]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize("bad", ["raise", "nan", "big", "text"])
def test_a_failure_is_as_bad_as_can_be_and_told(bad: str, by_text: dict[str, Any]) -> None:
    found = score(answers=["0.5", bad, "1"], **by_text)
    assert found.rewards.tolist() == [0.5, 0, 1]
    assert (found.failures, [bool(what) for what in found.faults["grade"]]) == (1, [False, True, False])
    [note] = found.notes
    assert note.startswith("grade failed to grade 1 of 3 answers")
    assert {"raise": "division by zero", "nan": "its score is nan", "big": "7, outside of its range 0 to 1",
            "text": "could not convert"}[bad] in note


def test_the_lowest_is_that_of_the_range(by_text: dict[str, Any]) -> None:
    by_text["config"] = [{"kind": "reward.py:grade", "range": [-2, 10]}]
    assert score(answers=["7", "raise", "-1"], **by_text).rewards.tolist() == [7, -2, -1]
    by_text["config"] = [{"kind": "reward.py:grade", "range": [-2, 10], "on_failure": 0.5}]
    assert score(answers=["7", "raise", "-1"], **by_text).rewards.tolist() == [7, 0.5, -1]


def test_without_a_range_a_failure_is_never_better_than_an_answer() -> None:
    hosted = {"type": "python", "name": "p", "source": TEXT_SCORES}
    assert score([hosted], ["-5", "raise", "3"]).rewards.tolist() == [-5, -5, 3]
    assert score([hosted], ["5", "raise", "3"]).rewards.tolist() == [5, 0, 3]


def test_more_than_half_is_an_error_that_names_the_grader(by_text: dict[str, Any]) -> None:
    assert score(answers=["raise", "1"], **by_text).failures == 1
    with pytest.raises(UserError) as caught:
        score(answers=["raise", "1", "nan"], **by_text)
    assert caught.value.found == ("The grader grade failed at 2 of 3 answers, so it says nothing about them. The first "
                                  "failure: error: ZeroDivisionError: division by zero (reward.py line 3: return "
                                  "{'raise': lambda: 1 / 0, 'nan': lambda: float('nan'), 'big': lambda: 7}.get().")


def test_an_answer_that_is_not_what_is_read_is_bad_and_no_failure() -> None:
    check = {"type": "string_check", "name": "name", "input": "{{ sample.output_json.a }}", "reference": "1",
             "operation": "ne"}
    found = score([check], ["no JSON", "{}", "also none", '{"a": 2}'])
    assert (found.rewards.tolist(), found.failures) == ([0, 0, 0, 1], 0)
    assert found.notes == ["3 of 4 answers are not what name reads, and as bad as can be"]


def test_hanging_and_memory_are_cut(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def grade(sample, item):\n    if sample['output_text'] == 'hang':\n        while True: pass\n"
        "    if sample['output_text'] == 'memory': x = bytearray(10**10)\n    return 1\n")
    config = [{"kind": "reward.py:grade", "seconds": 0.5, "memory_mb": 256}]
    found = score(config, ["a", "hang", "memory", "b"], tmp_path)
    assert found.rewards.tolist() == [1, 0, 0, 1]
    assert [what.partition(":")[0] for what in found.faults["grade"]] == ["", "timed out", "out of memory", ""]


def test_a_judge_that_gives_no_clear_grade_is_a_failure() -> None:
    judge = Scripted(lambda text: "GRADE: 4" if "good" in text.partition("<answer>")[2] else "well")
    found = score([{"kind": "judge", "model": "m"}, "exact"], ["good", "good", "bad"],
                  open_model=lambda name, key: judge)
    assert found.parts["judge"].tolist() == [0.75, 0.75, 0]
    assert (found.failures, len(judge.requests)) == (1, 3)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

def test_what_graders_see_of_a_row() -> None:
    sample = Conversation((Message("system", "s"), Message("user", "q"), Message("assistant", "r")), Origin("f", 1),
                          ('{"name": "t"}',))
    found = item_of(sample, {"label": "x", "reference": "own", "when": np.datetime64("2024-01-02")})
    assert found == {"prompt": "system: s\n\nuser: q", "reference": "own", "label": "x", "when": "2024-01-02",
                     "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
                     "tools": [{"name": "t"}]}
    assert json.dumps(found)


def test_columns_come_by_the_place_of_a_row() -> None:
    items = {Origin("rows.csv", 1): {"city": "Paris"}, Origin("rows.csv", 2): {"city": "Rome"}}
    rewards = rewards_of([{"kind": "exact", "wanted": "{{ item.city }}"}], Path(), items=items)
    assert rewards.score([row(line=1), row(line=2)], ["Paris", "Paris"]).rewards.tolist() == [1, 0]
    rewards.check([row(line=1)])


def test_a_column_that_no_row_has_is_refused_before_anything_is_sampled() -> None:
    rewards = rewards_of([{"kind": "contains", "wanted": ["{{ item.prompt }}", "{{ item.cty }}"]}], Path(),
                         items={Origin("rows.csv", 1): {"city": "Paris"}})
    with pytest.raises(UserError) as caught:
        rewards.check([row(line=1), row(line=2)])
    assert "contains names {{ item.cty }}, which no row has" in caught.value.found
    assert "item.city" in caught.value.wanted


def test_a_row_without_the_column_is_a_failure() -> None:
    rewards = rewards_of([{"kind": "exact", "wanted": "{{ item.city }}"}], Path(),
                         items={Origin("rows.csv", 1): {"city": "Paris"}})
    found = rewards.score([row(line=1), row(line=2)], ["Paris", "Paris"])
    assert (found.rewards.tolist(), found.failures) == ([1, 0], 1)


def test_prompts_of_evaluation_sets_are_rows_too() -> None:
    prompt = Prompt((Message("user", "q"),), ("right",), Origin("f", 1))
    assert rewards_of(["exact"], Path()).score([prompt], ["right"]).rewards.tolist() == [1]


def test_the_number_does_not_depend_on_the_batch(by_text: dict[str, Any]) -> None:
    rewards = rewards_of([*by_text["config"], "exact"], by_text["root"])
    answers = ["0.5", "raise", "1", "0.25", "0"]
    whole = rewards.score([row()] * 5, answers).rewards
    assert whole.tolist() == [*rewards.score([row()] * 3, answers[:3]).rewards,
                              *rewards.score([row()] * 2, answers[3:]).rewards]


# ── the metric ───────────────────────────────────────────────────────────────────────────────────────────────────────

def view(by: Rewards | None, answers: list[str], **known: Any) -> View:
    return View(["right"] * len(answers), Answers("tuned", answers, **known), [row()] * len(answers),
                Options(rewards=by))


def test_the_metric_is_the_same_number() -> None:
    rewards = rewards_of(["exact", {"kind": "length", "high": 1}], Path())
    answers = ["right", "no", "right or no"]
    assert METRICS["reward"].value_of(view(rewards, answers)) == pytest.approx(
        float(rewards.score([row()] * 3, answers).rewards.mean()))
    for kind in ("labels", "open"):
        assert chosen(kind, ["reward"])[0].name == "reward"       # type: ignore[arg-type]
    with pytest.raises(UserError):
        chosen("pairs", ["reward"])


def test_answers_that_bring_their_rewards_are_not_graded_again() -> None:
    assert METRICS["reward"].value_of(view(None, ["x", "y"], rewards=[0.25, 0.75])) == 0.5


def test_without_rewards_the_metric_says_so() -> None:
    with pytest.raises(UserError, match="the recipe has no rewards"):
        METRICS["reward"].value_of(view(None, ["x"]))
    with pytest.raises(UserError, match="only their texts"):
        METRICS["reward"].value_of(View(["r"], Answers("a", ["x"]), (), Options(rewards=rewards_of(["exact"], Path()))))


def test_the_same_answer_is_graded_once() -> None:
    judge = Scripted(lambda _: "GRADE: 3")
    rewards = rewards_of([{"kind": "judge", "model": "m"}], Path(), lambda name, key: judge)
    samples = [row(), row(asked="other"), row()]
    assert rewards.measure(samples, ["a", "a", "a"]).tolist() == [0.5] * 3
    assert rewards.measure(samples, ["a", "a", "b"]).tolist() == [0.5] * 3
    assert len(judge.requests) == 3


# ── the list in a recipe ─────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("config", "said"), [
    ([], "'rewards' is []"), ("exact", "'rewards' is 'exact'"), ({"kind": "exact"}, "'rewards' is {"),
    (None, "'rewards' is None"),
    ([{"kind": "exact", "weight": -1}], "'rewards.0.weight' is -1"),
    ([{"kind": "exact", "weight": math.inf}], "'rewards.0.weight' is inf"),
    ([{"kind": "exact", "weight": "1"}], "'rewards.0.weight' is '1'"),
    ([{"kind": "exact", "on_failure": math.nan}], "'rewards.0.on_failure' is nan"),
    ([{"kind": "exact", "weight": 0}], "all weights of 'rewards' are 0"),
    (["exact", "exat"], "'rewards.1.kind' is 'exat'"),
    (["exact", {"type": "multi", "name": "m", "graders": {"a": {"type": "string_check"}}, "calculate_output": "a"}],
     "'rewards.1.graders.a.name' is missing"),
    ([{"kind": "none.py:grade"}], "none.py cannot be read")])
def test_lists_that_are_wrong(config: Any, said: str) -> None:
    assert said in refusal(config)


def test_every_flaw_of_a_list_is_told_at_once() -> None:
    text = refusal([{"kind": "exat"}, {"kind": "length", "hihg": 3, "weight": "x"}])
    for said in ("'rewards.0.kind' is 'exat'", "unknown key 'rewards.1.hihg'", "'rewards.1.weight' is 'x'"):
        assert said in text


def test_what_a_record_holds(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("def grade(sample, item): return 1")
    [mine, exact] = rewards_of([{"kind": "reward.py:grade", "weight": 2}, "exact"], tmp_path).record
    assert (mine["name"], mine["weight"], mine["file"], len(mine["sha256"]["file"])) == ("grade", 2, "reward.py:grade",
                                                                                        64)
    assert exact == {"name": "exact", "weight": 1, "on_failure": None, "kind": "exact", "wanted": None,
                     "ignore_case": False}
    assert json.dumps([mine, exact])


def test_a_list_can_be_read_from_anywhere(tmp_path: Path) -> None:
    config = ["exact", "./reward.py:grade", {"kind": "python", "file": "reward.py:grade", "weight": 2},
              {"kind": "judge", "model": "model", "rubric": "style.md"}, {"kind": "judge", "model": "m"},
              {"type": "multi", "name": "m", "calculate_output": "a", "graders": {
                  "a": {"kind": "reward.py:grade"}}}, {"kind": "reward_model", "run": "runs/rm"}]
    found = portable(config, tmp_path, lambda name: f"<{name}>")
    file = f"{tmp_path.resolve()}/reward.py:grade"
    assert found == ["exact", file, {"kind": "python", "file": file, "weight": 2},
                     {"kind": "judge", "model": "<model>", "rubric": f"{tmp_path.resolve()}/style.md"},
                     {"kind": "judge", "model": "<m>"},
                     {"type": "multi", "name": "m", "calculate_output": "a", "graders": {"a": {"kind": file}}},
                     {"kind": "reward_model", "run": "<runs/rm>"}]


@pytest.mark.parametrize(("config", "valid"), [
    (["exact", "token_f1", "./reward.py:grade", {"kind": "length", "high": 3, "weight": 2, "on_failure": 0}], True),
    ([{"kind": "./reward.py:grade", "seconds": 3}], True), ([{"kind": "json_schema", "schema": {}}], True),
    ([{"type": "string_check", "name": "a", "input": "b", "reference": "c", "operation": "eq", "weight": 2}], True),
    ([{"type": "score_model", "name": "a", "model": "m", "input": [{"role": "user", "content": "x"}]}], True),
    (["exat"], False), ([{"kind": "length", "hihg": 3}], False), ([{"kind": "regex"}], False), ("exact", False),
    (["regex"], False), ([{"type": "string_check", "name": "a"}], False), ([{"kind": "exact", "weight": -1}], False)])
def test_the_schema_for_editors(config: Any, valid: bool) -> None:
    validators = pytest.importorskip("jsonschema.validators")
    of_list, definitions = schema()
    assert validators.Draft202012Validator(of_list | {"$defs": definitions}).is_valid(config) == valid


def test_the_schema_knows_every_grader() -> None:
    text = json.dumps(schema()[0])
    assert all(f'"{name}"' in text for name in (*KINDS, *TYPES))
