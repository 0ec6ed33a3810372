"""Objects of the hosted API and of recipes: what is a grader, and at which key the others are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case, Grader, Means
from tuneloop.grading.graders.catalog import KINDS, TYPES, Flaw, Reader, hosted, keys_of

CHECK = {"type": "string_check", "name": "c", "input": "{{ sample.output_text }}", "reference": "{{ item.x }}",
         "operation": "eq"}
ALIKE = {"type": "text_similarity", "name": "a", "input": "a", "reference": "b", "evaluation_metric": "fuzzy_match"}
SCORE = {"type": "score_model", "name": "s", "model": "m", "input": [{"role": "user", "content": "x"}]}
PYTHON = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1"}
MULTI = {"type": "multi", "name": "m", "graders": {"a": CHECK, "b": ALIKE}, "calculate_output": "a + b"}
DOCUMENTED = {
    "type": "multi", "name": "both", "calculate_output": "(name + email) / 2", "graders": {
        "name": {"name": "name_grader", "type": "text_similarity", "input": "{{sample.output_json.name}}",
                 "reference": "{{item.name}}", "evaluation_metric": "fuzzy_match", "pass_threshold": 0.9},
        "email": {"name": "email_grader", "type": "string_check", "input": "{{sample.output_json.email}}",
                  "reference": "{{item.email}}", "operation": "eq"}}}


def flaws(value: Any, root: Path | None = None) -> list[Flaw]:
    reader = Reader(root)
    assert reader.grader(value) is None
    assert reader.flaws
    return reader.flaws


@pytest.mark.parametrize("value", [CHECK, ALIKE, SCORE, PYTHON, MULTI, DOCUMENTED])
def test_every_hosted_type_comes_back_as_it_was(value: dict[str, Any]) -> None:
    said = hosted(value).model_dump(mode="json", by_alias=True)
    assert {key: said[key] for key in value if key not in ("graders", "input")} == {
        key: value[key] for key in value if key not in ("graders", "input")}
    assert hosted(said).model_dump(mode="json", by_alias=True) == said


def test_the_documented_multi() -> None:
    grader = hosted(DOCUMENTED)
    item = {"name": "John Doe", "email": "j@d.com"}
    right, half, unread = grader.grade([Case("", "", answer, item) for answer in (
        '{"name": "John Doe", "email": "j@d.com"}', '{"name": "Jon Doe", "email": "x"}', "John")], Means())
    assert (right.score, dict(right.parts)) == (1, {"name": 1, "email": 1})
    assert half.score == pytest.approx(14 / 15 / 2)
    assert (unread.score, unread.fault, dict(unread.parts)) == (0, None, {"name": 0, "email": 0})


@pytest.mark.parametrize("graders", [[CHECK, ALIKE], {"c": CHECK, "a": ALIKE}])
def test_graders_as_a_list_are_called_by_their_names(graders: Any) -> None:
    assert hosted(MULTI | {"graders": graders, "calculate_output": "min(a, c)"})
    assert hosted(MULTI | {"graders": CHECK, "calculate_output": "1 - c"})


def test_a_part_that_fails_fails_the_whole() -> None:
    broken = PYTHON | {"source": "def grade(sample, item): return 1 / item['x']"}
    grader = hosted(MULTI | {"graders": {"a": CHECK, "b": broken}})
    good, bad = grader.grade([Case("", "", "1", {"x": 2}), Case("", "", "1", {"x": 0})], Means())
    assert good.score == 0.5
    assert bad.fault is not None
    assert bad.fault.what.startswith("b: error: ZeroDivisionError")


def test_a_formula_without_a_value_is_a_failure() -> None:
    grader = hosted(MULTI | {"calculate_output": "b / a"})
    [mark] = grader.grade([Case("", "", "x", {"x": "y"})], Means())
    assert mark.fault is not None
    assert (mark.fault.flag, mark.fault.of_answer) == ("other_error", False)
    assert "b / a cannot be calculated of a = 0, b = 0" in mark.fault.what


@pytest.mark.parametrize(("value", "path"), [
    ({}, ""), ([], ""), ("exact", ""), (None, ""), ({"type": "foo"}, "type"), ({"type": "label_model"}, "type"),
    ({"kind": "exact"}, "kind"), ({"type": 3}, "type"), (CHECK | {"operation": "is"}, "operation"),
    (CHECK | {"input": "{{ foo }}"}, "input"), (CHECK | {"input": 3}, "input"), (CHECK | {"inputs": "x"}, "inputs"),
    ({key: CHECK[key] for key in CHECK if key != "reference"}, "reference"),
    (ALIKE | {"evaluation_metric": "cosine"}, "evaluation_metric"),
    (ALIKE | {"evaluation_metric": "meteor"}, "evaluation_metric"),
    (ALIKE | {"evaluation_metric": "rouge_6"}, "evaluation_metric"),
    (SCORE | {"input": []}, "input"), (SCORE | {"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
    (SCORE | {"input": [{"role": "user", "content": "{{ x }}"}]}, "input.0.content"),
    (SCORE | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content"),
    (SCORE | {"input": [{"role": "user", "content": 3}]}, "input.0.content"), (SCORE | {"range": [1, 1]}, "range"),
    (SCORE | {"sampling_params": {"temperature": 3}}, "sampling_params.temperature"),
    (SCORE | {"sampling_params": {"reasoning_effort": "low"}}, "sampling_params.reasoning_effort"),
    (SCORE | {"sampling_params": {"max_tokens": 3}}, "sampling_params.max_tokens"), (SCORE | {"model": ""}, "model"),
    (PYTHON | {"source": "def grade("}, "source"), (PYTHON | {"source": None}, "source"),
    (MULTI | {"calculate_output": "a + c"}, "calculate_output"), (MULTI | {"graders": {}}, "graders"),
    (MULTI | {"graders": "a"}, "graders"), (MULTI | {"graders": {"a": CHECK | {"operation": 1}, "b": ALIKE}},
                                            "graders.a.operation"),
    (MULTI | {"graders": {"a": {"type": "x"}, "b": ALIKE}}, "graders.a.type"),
    (MULTI | {"graders": [CHECK, CHECK]}, "graders"), (MULTI | {"graders": [CHECK, 3]}, "graders.1"),
    (MULTI | {"graders": {"a": {"kind": "exact"}, "b": ALIKE}}, "graders.a.kind"),
    (MULTI | {"graders": {"a": MULTI | {"calculate_output": "("}, "b": ALIKE}}, "graders.a.calculate_output")])
def test_what_is_wrong_is_told_with_its_path(value: Any, path: str) -> None:
    [flaw] = flaws(value)
    assert ".".join(flaw.path) == path
    assert path in flaw.found or flaw.found.startswith(("a grader", "The grader type"))
    assert flaw.wanted or "is missing" in flaw.found


def test_every_flaw_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        hosted(MULTI | {"graders": {"a": CHECK | {"operation": "is", "inptu": 1}, "b": {"type": "text_similar"}}})
    text = caught.value.text
    for said in ("'graders.a.operation' is 'is'", "unknown key 'graders.a.inptu'", "did you mean 'input'?",
                 "'graders.b.type' is 'text_similar'", "did you mean 'text_similarity'?"):
        assert said in text


def test_measures_that_are_not_there_say_why() -> None:
    [flaw] = flaws(ALIKE | {"evaluation_metric": "cosine"})
    assert "needs an embedding model" in flaw.wanted
    assert "fuzzy_match, bleu, gleu, rouge_1" in flaw.wanted


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("value", "path", "fix"), [
    ("exat", "kind", "did you mean 'exact'?"), ({"kind": ["exact"]}, "kind", "did you mean 'exact'?"),
    ({"kind": "exact", "ignorecase": True}, "ignorecase", "did you mean 'ignore_case'?"),
    ({"kind": "string_check"}, "kind", "write type: string_check"), ({"type": "exact"}, "type", "write kind: exact"),
    ({"kind": "bleu"}, "kind", ""), ("macro_f1", "kind", "did you mean 'micro_f1'?"),
    ({"kind": "length", "low": 3, "high": 2}, "high", ""), ({"kind": "regex", "pattern": "("}, "pattern", ""),
    ({"kind": "json_keys", "keys": []}, "keys", ""), ({"kind": "json_schema"}, "schema", ""),
    ({"kind": "json_schema", "schema": {"type": "txt"}}, "schema", ""),
    ({"kind": "numeric", "tolerance": -1}, "tolerance", ""), ({"kind": "contains", "wanted": []}, "wanted", ""),
    ({"kind": "contains", "wanted": ["{{ x }}"]}, "wanted.0", ""),
    ({"kind": "exact", "wanted": "{{ x }}"}, "wanted", ""), ({"kind": "exact", "type": "multi"}, "", ""), (3, "", ""),
    ({"kind": "judge"}, "model", "")])
def test_kinds_that_are_wrong(value: Any, path: str, fix: str, tmp_path: Path) -> None:
    [flaw] = flaws(value, tmp_path)
    assert ".".join(flaw.path) == path
    assert flaw.fix == fix


def test_every_kind_and_type_has_one_name() -> None:
    for key, table in (("kind", KINDS), ("type", TYPES)):
        for name, grader in table.items():
            assert grader.model_fields[key].default == name
            assert keys_of(grader)[0] == key
            assert issubclass(grader, Grader)
            assert grader.__doc__


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(
    ["multi", "string_check", "a + b", "{{ item.x }}", "eq", ""]), lambda inner: st.lists(inner, max_size=3) |
    st.dictionaries(st.sampled_from(["type", "kind", "name", "graders", "input", "calculate_output", "operation", "x"]),
                    inner, max_size=5), max_leaves=12)


@given(json_values)
def test_any_object_is_a_grader_or_refused(value: Any) -> None:
    reader = Reader(None)
    assert (reader.grader(value) is None) == bool(reader.flaws)


@given(st.sampled_from([CHECK, ALIKE, SCORE, PYTHON, MULTI]), st.data())
def test_any_key_may_hold_anything(value: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    reader = Reader(None)
    made = reader.grader(value | {key: data.draw(json_values)})
    assert (made is None) == bool(reader.flaws)
