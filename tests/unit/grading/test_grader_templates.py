"""Texts with variables of rows and answers."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case
from tuneloop.grading.graders.template import MissingError, parse

ITEM = {"name": "Ada", "n": 3, "tags": ["a", "b"], "deep": {"x y": {"z": [1, {"w": True}]}, "none": None}}
CALL = '{"name": "find", "arguments": {"q": 1}}'


def filled(text: str, answer: str = "", **item: object) -> str:
    return parse(text).fill(Case("", "", answer, item or ITEM))


@pytest.mark.parametrize(("text", "said"), [
    ("{{ item.name }}", "Ada"), ("{{item.name}} {{  item.n  }}", "Ada 3"), ("{{ item.tags }}", '["a", "b"]'),
    ("{{ item.tags[1] }}", "b"), ("{{ item.tags[-1] }}", "b"), ("{{ item['name'] }}", "Ada"),
    ('{{ item.deep["x y"].z[1].w }}', "true"), ("{{ item.deep.none }}", "null"), ("no variable", "no variable"),
    ("{ item.name } }} {", "{ item.name } }} {"), ('{"a": {"b": 1}}', '{"a": {"b": 1}}'), ("", "")])
def test_what_the_row_says(text: str, said: str) -> None:
    assert filled(text) == said


def test_what_the_answer_says() -> None:
    answer = '{"name": "Ada", "age": 36, "tags": [1.5]}'
    assert filled("<{{ sample.output_text }}>", answer) == f"<{answer}>"
    assert filled("{{ sample.output_json.age }} {{ sample.output_json.tags[0] }}", answer) == "36 1.5"
    assert json.loads(filled("{{ sample.output_json }}", answer)) == json.loads(answer)
    assert filled("{{ sample.output_tools[0].function.name }}", f"<tool_call>{CALL}</tool_call>") == "find"
    assert json.loads(filled("{{ sample.output_tools[0].function.arguments }}", CALL)) == {"q": 1}
    assert filled("{{ sample.output_tools }}", "nothing") == "[]"
    assert filled("{{ sample.choices[0].message.content }}", "hi") == "hi"


@pytest.mark.parametrize(("text", "answer", "flag", "of_answer"), [
    ("{{ sample.output_json.x }}", "no JSON", "sample_parse_error", True),
    ("{{ sample.output_json.x }}", '{"y": 1}', "invalid_variable_error", True),
    ("{{ sample.output_json.x }}", "[1]", "invalid_variable_error", True),
    ("{{ sample.output_json[3] }}", "[1]", "invalid_variable_error", True),
    ("{{ sample.output_tools[0] }}", "", "invalid_variable_error", True),
    ("{{ item.nme }}", "", "invalid_variable_error", False), ("{{ item.name.x }}", "", "invalid_variable_error", False),
    ("{{ item.deep.none.x }}", "", "invalid_variable_error", False)])
def test_what_is_missing_is_the_answers_fault_or_the_rows(text: str, answer: str, flag: str, of_answer: bool) -> None:
    with pytest.raises(MissingError) as caught:
        filled(text, answer)
    assert (caught.value.fault.flag, caught.value.fault.of_answer) == (flag, of_answer)


@pytest.mark.parametrize("text", [
    "{{ foo.x }}", "{{ x }}", "{{ }}", "{{}}", "{{ item }}", "{{ sample }}", "{{ item. }}", "{{ item.x | upper }}",
    "{{ item.x() }}", "{{ sample.output }}", "{{ sample.output_txt }}", "{{ item[x] }}", "{{ items.x }}",
    "a {{ item.ok }} b {{ 1 + 1 }}", "{{ item.__class__.__mro__ }} {{ self }}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no variable"):
        parse(text)


def test_nothing_but_the_row_can_be_reached() -> None:
    for path in ("__class__", "keys", "name.__class__", "tags.append", "n.real"):
        with pytest.raises(MissingError):
            filled(f"{{{{ item.{path} }}}}")


@given(st.text())
def test_what_is_put_in_is_not_looked_at_again(value: str) -> None:
    assert filled("[{{ item.x }}]", x=value) == f"[{value}]"
    assert filled("[{{ sample.output_text }}]", value) == f"[{value}]"
    assert filled("{{ item.x }}{{ item.x }}", x="{{ item.y }}") == "{{ item.y }}" * 2


@given(st.text().filter(lambda text: "{{" not in text))
def test_a_text_without_variables_stays(text: str) -> None:
    assert filled(text) == text


@given(st.text(alphabet="{} itemsaplxy.[]'\"0-_", max_size=30))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse(text)
    except UserError:
        return
    with contextlib.suppress(MissingError):
        assert isinstance(template.fill(Case("", "", '{"x": [1]}', {"x": {"y": 0}})), str)
