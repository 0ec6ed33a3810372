"""Graders of texts, by hand and against other implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.grading.graders.base import Case, Mark, Means
from tuneloop.grading.graders.catalog import Reader
from tuneloop.grading.graders.similarity import MEASURES, bleu, common_subsequence, fuzzy_match, gleu
from tuneloop.types import Conversation, Message, Origin, ToolCall

ROW = Conversation((Message("user", "q"), Message("assistant", "", calls=(ToolCall("f", "{}"),))), Origin("", 1))


def marks(given: Any, *cases: Case) -> list[Mark]:
    reader = Reader(Path())
    grader = reader.grader(given)
    assert grader is not None, reader.flaws
    return grader.grade(cases, Means())


def score(given: Any, answer: str, reference: str = "", **item: Any) -> float:
    [mark] = marks(given, Case("q", reference, answer, item))
    assert mark.fault is None, mark
    return mark.score


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("given", "answer", "reference", "result"), [
    ("exact", " Paris\n", "Paris", 1), ("exact", "paris", "Paris", 0), ({"kind": "exact", "ignore_case": True},
                                                                       "PARIS", "paris", 1),
    ({"kind": "exact", "wanted": "{{ item.a }}!"}, "x!", "y", 1),
    ("contains", "It is Paris.", "Paris", 1), ("contains", "It is paris.", "Paris", 0),
    ({"kind": "contains", "wanted": ["a", "{{ item.a }}", "Z"]}, "a x", "", 2 / 3),
    ({"kind": "contains", "wanted": ["A", "z"], "ignore_case": True}, "a", "", 0.5),
    ({"kind": "regex", "pattern": r"\bno\b"}, "oh no!", "", 1), ({"kind": "regex", "pattern": r"\bno\b"}, "not", "", 0),
    ({"kind": "regex", "pattern": "a+", "whole": True}, "aaa", "", 1),
    ({"kind": "regex", "pattern": "a+", "whole": True}, "aab", "", 0),
    ({"kind": "length", "high": 3}, "one two three", "", 1), ({"kind": "length", "high": 3}, "1 2 3 4", "", 0),
    ({"kind": "length", "low": 2, "high": 3, "fade": 4}, "1 2 3 4", "", 0.75),
    ({"kind": "length", "low": 4, "fade": 4}, "1", "", 0.25), ({"kind": "length", "low": 4, "fade": 2}, "", "", 0),
    ({"kind": "length", "high": 3, "unit": "characters"}, "abcd", "", 0),
    ("numeric", "so it is 1,234.50", "1234.5", 1), ({"kind": "numeric", "tolerance": 0.1}, "7.5", "7", 1),
    ({"kind": "json_schema", "schema": {"type": "array"}}, "[1]", "", 1),
    ({"kind": "json_schema", "schema": {"type": "array"}}, "{}", "", 0),
    ({"kind": "json_keys", "keys": ["a", "b"]}, '{"a": 1, "c": 2}', "", 0.5),
    ({"kind": "json_keys", "keys": ["a", "b"], "only": True}, '{"a": 1, "c": 2}', "", 1 / 3),
    ({"kind": "json_keys", "keys": ["a", "b"], "only": True}, '{"b": 1, "a": 2}', "", 1),
    ({"kind": "json_keys", "keys": ["a"]}, "no JSON", "", 0), ({"kind": "json_keys", "keys": ["a"]}, '["a"]', "", 0),
    ({"kind": "code"}, "def f(x): return 2 * x", "assert f(2) == 4", 1),
    ({"kind": "code"}, "```python\ndef f(x): return x\n```", "assert f(2) == 4", 0),
    ("token_f1", "1889", "the year 1889", 2 / 3), ("json_valid", "{}", "", 1)])
def test_by_hand(given: Any, answer: str, reference: str, result: float) -> None:
    assert score(given, answer, reference, a="x") == pytest.approx(result)


def test_tool_calls_are_those_of_the_row() -> None:
    cases = [Case("q", "", answer, {}, ROW) for answer in ('{"name": "f", "arguments": {}}', "no")]
    assert [mark.score for mark in marks("tool_calls", *cases)] == [1, 0]


def test_a_row_that_a_metric_refuses_fails_alone() -> None:
    good, bad = marks("numeric", Case("q", "7", "7"), Case("q", "seven", "7"))
    assert (good.score, good.fault) == (1, None)
    assert bad.fault is not None
    assert "a number in every reference" in bad.fault.what
    without, _ = marks("code", Case("q", "", "x = 1"), Case("q", "assert x", "x = 1"))
    assert without.fault is not None
    assert "code needs tests" in without.fault.what


def test_a_pattern_that_takes_for_ever_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.grading.graders.texts._REGEX_SECONDS", 0.5)
    first, hangs, last = marks({"kind": "regex", "pattern": "(a+)+b"}, *(
        Case("", "", text) for text in ("ab", "a" * 40, "x")))
    assert (first.score, last.score) == (1, 0)
    assert hangs.fault is not None
    assert "timed out" in hangs.fault.what


# ── hosted ───────────────────────────────────────────────────────────────────────────────────────────────────────────

@pytest.mark.parametrize(("operation", "results"), [
    ("eq", [1, 0, 0]), ("ne", [0, 1, 1]), ("like", [1, 1, 0]), ("ilike", [1, 1, 1])])
def test_string_check(operation: str, results: list[float]) -> None:
    given = {"type": "string_check", "name": "x", "input": "{{ sample.output_text }}", "operation": operation,
             "reference": "{{ item.city }}"}
    assert [score(given, answer, city="Paris") for answer in ("Paris", "It is Paris.", "it is PARIS")] == results


def similarity(measure: str, text: str, reference: str) -> float:
    return score({"type": "text_similarity", "name": "x", "input": "{{ sample.output_text }}",
                  "reference": "{{ item.r }}", "evaluation_metric": measure}, text, r=reference)


def test_every_measure_is_one_for_the_same_text_and_low_for_another() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    for measure in MEASURES:
        assert similarity(measure, text, text) == pytest.approx(1), measure
        assert similarity(measure, "zzz", text) < 0.1, measure


def test_similarities_by_hand() -> None:
    assert similarity("fuzzy_match", "this is a test", "this is a test!") == pytest.approx(28 / 29)    # rapidfuzz's own
    assert similarity("fuzzy_match", "Jon Doe", "John Doe") == pytest.approx(14 / 15)
    assert similarity("fuzzy_match", "", "") == 1
    assert similarity("gleu", "a b c", "a b d") == pytest.approx(3 / 6)         # a, b, a b of 3 + 2 + 1
    assert similarity("gleu", "a", "") == 0
    assert similarity("rouge_1", "the cat", "the big cat") == pytest.approx(2 * 2 / 5)
    assert similarity("rouge_3", "a b c d", "x a b c") == pytest.approx(2 * 1 / 4)
    assert similarity("rouge_5", "a b c", "a b c") == 0                         # no five words in a row
    assert similarity("rouge_l", "police killed the gunman", "police kill the gunman") == pytest.approx(0.75)


def test_gleu_is_nltks() -> None:
    sentence_gleu = pytest.importorskip("nltk.translate.gleu_score").sentence_gleu
    for text, reference in (("a b c d e", "a b x d e"), ("it is a guide to action", "it is a guide to actions that"),
                            ("x", "y"), ("a a a", "a"), ("one two three four five six", "two three four five six one")):
        assert gleu(text, reference) == pytest.approx(sentence_gleu([reference.split()], text.split()))


def test_bleu_is_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    text, reference = "the cat sat on a mat today", "the cat sat on the mat today"
    assert bleu(text, reference) == pytest.approx(sacrebleu.sentence_bleu(text, [reference]).score / 100)
    assert 0.4 < bleu(text, reference) < 0.7


def test_rouge_is_rouge_scores() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    names = [f"rouge{n}" for n in range(1, 6)]
    text, reference = "The quick brown fox jumps over a dog today", "a quick brown fox jumps over the lazy dog"
    wanted = scorer.RougeScorer(names, use_stemmer=False).score(reference, text)
    for n in range(1, 6):
        assert MEASURES[f"rouge_{n}"](text, reference) == pytest.approx(wanted[f"rouge{n}"].fmeasure)


@given(st.text(alphabet="abcd", max_size=12), st.text(alphabet="abcd", max_size=12))
def test_the_subsequence_is_the_textbooks(a: str, b: str) -> None:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(a, b) == table[-1][-1]
    assert 0 <= fuzzy_match(a, b) <= 1


def test_what_the_answer_lacks_is_a_fault() -> None:
    given = {"type": "string_check", "name": "x", "input": "{{ sample.output_json.a }}", "reference": "1",
             "operation": "eq"}
    right, unread, lacks = marks(given, *(Case("", "", answer) for answer in ('{"a": 1}', "a = 1", "{}")))
    assert (right.score, right.fault) == (1, None)
    assert [mark.fault and (mark.fault.flag, mark.fault.of_answer) for mark in (unread, lacks)] == [
        ("sample_parse_error", True), ("invalid_variable_error", True)]
