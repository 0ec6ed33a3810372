"""Metrics of open answers by hand, and what they refuse."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import sys
import threading

import numpy as np
import pytest

from tuneloop.errors import UserError
from tuneloop.grading import texts
from tuneloop.grading.metrics import METRICS, Options, View, chosen
from tuneloop.grading.numbers import last_number
from tuneloop.grading.tool_calls import calls_in
from tuneloop.types import Answers, Conversation, Message, Origin, ToolCall

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
          "required": ["name"], "additionalProperties": False}


@pytest.mark.parametrize(("reference", "answer", "expected"), [
    ("The Eiffel Tower", "eiffel tower!", 1), ("in the year 1889", "1889", 2 * 1 / 4), ("a cat", "dog", 0),
    ("cat cat", "cat", 2 * 1 / 3), ("", "", 1), ("the", "a", 1), ("the", "cat", 0), ("U.S.", "us", 1)])
def test_token_f1(reference: str, answer: str, expected: float) -> None:
    assert METRICS["token_f1"].value([reference], [answer]) == pytest.approx(expected)


def test_levenshtein_as_the_textbook_table() -> None:
    random = np.random.default_rng(0)
    for _ in range(80):
        a, b = ("".join(random.choice(list("abcü"), size=random.integers(0, 90))) for _ in range(2))
        table = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = min(table[i, j] + (x != y), table[i, j + 1] + 1, table[i + 1, j] + 1)
        assert texts.levenshtein(a, b) == table[-1, -1]


@pytest.mark.parametrize(("a", "b", "expected"), [("kitten", "sitting", 1 - 3 / 7), ("", "", 1), ("", "ab", 0),
                                                   ("ab", "", 0), ("same", "same", 1)])
def test_edit_similarity(a: str, b: str, expected: float) -> None:
    assert METRICS["edit_similarity"].value([a], [b]) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "number"), [
    ("so 3 + 4 = 7.", 7), ("#### 1,234", 1234), ("1,234,567.5 in all", 1234567.5), ("1.234.567", 1234567),
    ("1.234,56 €", 1234.56), ("1,5", 1.5), ("0.125", 0.125), (".5", 0.5), ("-$5", -5), ("− 3", -3), ("3-4", 4),
    ("pages 10–15", 15), ("x-1", 1), ("50 %", 50), ("6.02e23", 6.02e23), ("1'000'000", 1e6), ("12 345", 345),
    ("1\u202f000", 1000), ("12,34", 12.34), ("about 1,234.", 1234), ("$1,234.50!", 1234.5), ("+7", 7), ("1e5", 1e5)])
def test_the_last_number(text: str, number: float) -> None:
    assert last_number(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "none", "...", "-", "e"])
def test_no_number(text: str) -> None:
    assert last_number(text) is None


def test_numeric_within_the_tolerance() -> None:
    view = View(["#### 1000", "0", "7"], Answers("tuned", ["it is 1,001", "0.0005", "seven"]),
                options=Options(tolerance=0.001))
    assert np.asarray(METRICS["numeric"].function(view)).tolist() == [1, 1, 0]
    assert METRICS["numeric"].value(["1000"], ["1001"]) == 0
    with pytest.raises(UserError, match="test row 2 has none: 'many'"):
        METRICS["numeric"].value(["1", "many"], ["1", "1"])


@pytest.mark.parametrize(("answer", "valid"), [
    ('{"a": 1}', 1), (" [1, 2]\n", 1), ("null", 1), ('"text"', 1), ("", 0), ("{'a': 1}", 0), ('{"a": 1} done', 0),
    ("NaN", 0), ("[-Infinity]", 0), ('```json\n{"a": 1}\n```', 0), ("[" * 100_000, 0), ("9" * 10_000, 0)])
def test_json_valid(answer: str, valid: float) -> None:
    assert METRICS["json_valid"].value([""], [answer]) == valid


def test_json_schema() -> None:
    pytest.importorskip("jsonschema")
    answers = ['{"name": "Ann", "age": 3}', '{"name": "Ann"}', '{"age": 3}', '{"name": "Ann", "age": -1}',
               '{"name": "Ann", "x": 1}', "name: Ann", "[]"]
    view = View([""] * 7, Answers("tuned", answers), options=Options(schema=PERSON))
    assert np.asarray(METRICS["json_schema"].function(view)).tolist() == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("schema", "told"), [
    (None, "none is given"), ({"type": "text"}, "wrong at type"),
    ({"$ref": "https://example.org/x.json"}, "refers to")])
def test_schemas_that_are_refused(schema: dict[str, object] | None, told: str) -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(UserError, match=told):
        METRICS["json_schema"].value_of(View([""], Answers("tuned", ["{}"]), options=Options(schema=schema)))


def test_no_schema_is_fetched() -> None:
    pytest.importorskip("jsonschema")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        schema = {"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/x.json"}
        fetched: list[bool] = []

        def serve() -> None:
            with contextlib.suppress(TimeoutError):
                server.accept()[0].close()
                fetched.append(True)

        listener = threading.Thread(target=serve)
        listener.start()
        with pytest.raises(UserError, match="write the whole schema into one document"):
            METRICS["json_schema"].value_of(View([""], Answers("tuned", ["{}"]), options=Options(schema=schema)))
        listener.join()
    assert not fetched


@pytest.mark.parametrize("text", [
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>',
    '{"name": "weather", "parameters": {"days": 2.0, "city": "Rome"}}',
    '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome", "days": 2}}]',
    json.dumps({"tool_calls": [{"id": "1", "type": "function", "function": {
        "name": "weather", "arguments": '{"city": "Rome", "days": 2}'}}]}),
    'I look it up {now}. {"name": "weather", "arguments": {"city": "Rome", "days": 2}} [so'])
def test_tool_calls_however_they_are_written(text: str) -> None:
    sample = Conversation((Message("user", "weather?"), Message("assistant", "", calls=(
        ToolCall("weather", '{"days":2,"city":"Rome"}'),))), Origin("calls.jsonl", 1))
    assert METRICS["tool_calls"].value_of(View([""], Answers("tuned", [text]), [sample])) == 1


@pytest.mark.parametrize(("reference", "answer", "score"), [
    ('{"name": "f", "arguments": {"x": 1}}', '{"name": "f", "arguments": {"x": true}}', 0),
    ('{"name": "f", "arguments": {"x": 1}}', '{"name": "g", "arguments": {"x": 1}}', 0),
    ('{"name": "f", "arguments": {"x": 1}}', "f(x=1)", 0),
    ('[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]',
     '{"name": "g", "arguments": {}}{"name": "f", "arguments": ""}', 1),
    ('{"name": "f", "arguments": {}}', '{"name": "f", "arguments": {}}{"name": "f", "arguments": {}}', 0),
    ("No call is needed.", "Rome is sunny.", 1), ("No call.", '{"name": "f", "arguments": {}}', 0)])
def test_tool_calls_by_hand(reference: str, answer: str, score: float) -> None:
    assert METRICS["tool_calls"].value([reference], [answer]) == score


def test_hostile_text_is_read_in_time() -> None:
    assert calls_in("[" * 5_000 + '{"name": 1}' + "{" * 5_000) == []


def test_what_the_answers_carry() -> None:
    view = View(["ab", "é"], Answers("tuned", ["x", "yz"], nll=[2.0, 3.0], tokens=[1, 1], stopped=[True, False],
                                     new_tokens=[4, 8]))
    bits = METRICS["bits_per_byte"].of(view)        # 2 bytes each
    assert bits(np.array([[1.0, 1.0], [0.0, 2.0]])) == pytest.approx([5 / 4 / math.log(2), 3 / 2 / math.log(2)])
    assert [METRICS[name].value_of(view) for name in ("stop_rate", "new_tokens", "length")] == [0.5, 6, 1.5]


@pytest.mark.parametrize("name", ["bits_per_byte", "stop_rate", "new_tokens", "ece"])
def test_a_metric_that_the_answers_do_not_fit(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} needs the .* answers of rival lack"):
        METRICS[name].of(View(["a"], Answers("rival", ["a"])))


def test_bits_per_byte_of_an_empty_reference() -> None:
    with pytest.raises(UserError, match="test row 2 is empty"):
        METRICS["bits_per_byte"].of(View(["a", ""], Answers("base", ["a", "b"], nll=[1.0, 1.0])))


def test_metrics_by_name() -> None:
    assert [m.name for m in chosen("open", ["chrf", "length"])] == ["chrf", "length"]
    with pytest.raises(UserError, match="accuracy is for labels, but the answers are open"):
        chosen("open", ["accuracy"])
    with pytest.raises(UserError, match="blue is not a metric"):
        chosen("open", ["blue"])


@pytest.mark.parametrize(("name", "package"), [("bleu", "sacrebleu"), ("chrf", "sacrebleu"),
                                               ("json_schema", "jsonschema")])
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (package, f"{package}.metrics", f"{package}.exceptions", f"{package}.validators"):
        monkeypatch.setitem(sys.modules, module, None)
    from tuneloop.grading.structured import schema_check

    schema_check.cache_clear()
    with pytest.raises(UserError, match=rf"needs the package {package}.*\n.*tuneloop\[eval\]"):
        METRICS[name].of(View(["a"], Answers("tuned", ["{}"]), options=Options(schema={})))
