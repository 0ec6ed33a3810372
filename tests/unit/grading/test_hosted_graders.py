"""What the hosted API's `graders/validate` and `graders/run` say, on this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Means
from tuneloop.grading.hosted import run, validate

CHECK = {"type": "string_check", "name": "city", "input": "{{ sample.output_text }}", "reference": "{{ item.city }}",
         "operation": "eq"}
PYTHON = {"type": "python", "name": "code", "seconds": 0.5, "source": (
    "def grade(sample, item):\n    text = sample['output_text']\n    if text == 'hang':\n        while True: pass\n"
    "    return {'nan': float('nan')}[text] if text == 'nan' else 1 / len(text)\n")}
SCORE = {"type": "score_model", "name": "judge", "model": "m", "input": [
    {"role": "user", "content": "Rate {{ sample.output_text }}."}]}
ERRORS = {"formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
          "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
          "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error"}
WORDS = {"python_grader_server_error_type", "python_grader_runtime_error_details", "model_grader_server_error_details"}


def flags(found: dict[str, Any]) -> set[str]:
    return {name for name, value in found["metadata"]["errors"].items() if value is True}


def ran(grader: dict[str, Any], sample: str, item: dict[str, Any] | None = None, reply: str = "0.5") -> dict[str, Any]:
    found = run(grader, sample, item, Means(lambda name, key: Scripted(lambda _: reply))).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_the_response_has_the_documented_fields() -> None:
    found = ran(CHECK, "Paris", {"city": "Paris"})
    assert set(found) == {"reward", "sub_rewards", "model_grader_token_usage_per_model", "metadata"}
    assert set(found["metadata"]) == {"name", "type", "execution_time", "scores", "token_usage", "sampled_model_name",
                                      "errors"}
    errors = found["metadata"]["errors"]
    assert set(errors) == ERRORS | WORDS
    assert all(errors[name] is False for name in ERRORS)
    assert all(errors[name] is None for name in WORDS)
    assert (found["reward"], found["metadata"]["name"], found["metadata"]["type"]) == (1, "city", "string_check")
    assert (found["metadata"]["token_usage"], found["metadata"]["sampled_model_name"]) == (None, None)


@pytest.mark.parametrize(("grader", "sample", "item", "flag"), [
    (CHECK, "Paris", {}, "invalid_variable_error"),
    (CHECK | {"input": "{{ sample.output_json.a }}"}, "Paris", {"city": "x"}, "sample_parse_error"),
    (PYTHON, "", {}, "python_grader_runtime_error"), (PYTHON, "hang", {}, "python_grader_runtime_error"),
    (PYTHON, "nan", {}, "python_grader_runtime_error"), (SCORE, "x", {}, "model_grader_parse_error"),
    ({"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "1 / a"}, "x", {"city": "y"},
     "other_error")])
def test_a_failure_is_a_flag_and_no_error(grader: dict[str, Any], sample: str, item: dict[str, Any], flag: str) -> None:
    found = ran(grader, sample, item, reply="good")
    assert (found["reward"], flags(found)) == (0, {flag})


def test_what_failed_is_told_in_words() -> None:
    errors = ran(PYTHON, "")["metadata"]["errors"]
    assert "ZeroDivisionError: division by zero (grader.py line 5" in errors["python_grader_runtime_error_details"]
    found = run(SCORE, "x").to_json()                           # no models here
    assert flags(found) == {"model_grader_server_error"}
    assert "models cannot be asked" in found["metadata"]["errors"]["model_grader_server_error_details"]


def test_a_model_is_counted() -> None:
    found = ran(SCORE, "x", reply="0.5")
    assert (found["reward"], flags(found)) == (0.5, set())
    assert found["model_grader_token_usage_per_model"] == {"m": {"prompt_tokens": 1, "completion_tokens": 2}}
    assert (found["metadata"]["token_usage"], found["metadata"]["sampled_model_name"]) == (3, "m")


def test_parts_of_a_multi_have_their_rewards() -> None:
    grader = {"type": "multi", "name": "all", "calculate_output": "0.25 * a + 0.75 * b", "graders": {
        "a": CHECK, "b": SCORE}}
    found = ran(grader, "Paris", {"city": "Paris"}, reply='{"result": 0.2}')
    assert found["reward"] == pytest.approx(0.4)
    assert found["sub_rewards"] == {"a": 1, "b": 0.2}
    assert found["metadata"]["scores"] == {"all": pytest.approx(0.4), "a": 1, "b": 0.2}


def test_what_is_validated_comes_back() -> None:
    found = validate(CHECK)
    assert found == {"grader": CHECK}
    assert validate(found["grader"]) == found
    multi = {"type": "multi", "name": "all", "graders": {"a": CHECK, "b": PYTHON}, "calculate_output": "a"}
    assert validate(multi) == {"grader": multi}


@pytest.mark.parametrize("call", [validate, lambda grader: run(grader, "x")])
def test_what_is_no_grader_is_an_error(call: Any) -> None:
    with pytest.raises(UserError, match="'operation' is 'is'"):
        call(CHECK | {"operation": "is"})
