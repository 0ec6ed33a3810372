"""Formulas over scores, held to Python's own arithmetic."""

from __future__ import annotations

import ast
import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.errors import UserError
from tuneloop.grading.graders.formula import FUNCTIONS, parse

SCORES = {"a": 0.5, "b": 4.0, "min_x": -2.0}


def value(text: str) -> float:
    return parse(text, list(SCORES)).value(SCORES)


@pytest.mark.parametrize(("text", "result"), [
    ("1", 1), ("a", 0.5), ("a + b * 2", 8.5), ("(a + b) * 2", 9), ("b - a - 1", 2.5), ("b / 2 / 4", 0.5),
    ("2 ^ 3 ^ 2", 512), ("-2 ^ 2", -4), ("(-2) ^ 2", 4), ("2 ^ -1", 0.5), ("2 ** 3", 8), ("--1", 1), ("+a", 0.5),
    ("2 * -3", -6), ("min(a, b, 3)", 0.5), ("max(a)", 0.5), ("max(a, min_x)", 0.5), ("abs(min_x)", 2),
    ("floor(2.7) + ceil(2.1)", 5), ("exp(0) + log(1) + sqrt(16)", 5), ("log(exp(3))", 3), ("1e-2 + .5 + 1.", 1.51),
    ("  ( a+b )/2 ", 2.25), ("min_x", -2)])
def test_by_hand(text: str, result: float) -> None:
    assert value(text) == pytest.approx(result, abs=1e-12)


def test_the_documented_formulas() -> None:
    assert parse("(name + email) / 2", ["name", "email"]).value({"name": 0.5, "email": 1}) == 0.75
    assert parse("0.5 * compliant + 0.5 * explanation", ["compliant", "explanation"]).value(
        {"compliant": 1, "explanation": 0.2}) == pytest.approx(0.6)


@pytest.mark.parametrize(("text", "said"), [
    ("", "ends too early"), ("a +", "ends too early"), ("(a", "ends too early"), ("1 2", "'2' at character 3"),
    ("a b", "'b' at character 3"), ("c + 1", "'c' at character 1"), ("a; b", "';' at character 2"),
    ("a.b", "'.' at character 2"), ("'x'", "at character 1"), ("foo(1)", "'foo' at character 1"),
    ("a(1)", "'a' at character 1"), ("min()", "')' at character 5"), ("abs(1, 2)", "at character 9"),
    ("__import__('os')", "at character 1"), ("a if b else 1", "'if' at character 3"), ("lambda: 1", "'lambda'"),
    ("a = 1", "'=' at character 3"), ("a > b", "'>' at character 3"), ("2 // 3", "'/' at character 4"),
    ("(" * 60 + "1" + ")" * 60, "brackets within brackets"), ("2^" * 60 + "1", "brackets within brackets"),
    ("1+" * 3000 + "1", "6,001 characters")])
def test_what_is_no_formula_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, ["a", "b"])
    assert said in caught.value.found


@pytest.mark.parametrize("text", ["1 / (a - a)", "log(0)", "log(-1)", "sqrt(-1)", "(-8) ^ 0.5", "0 ^ -1", "exp(10000)",
                                  "10 ^ 400"])
def test_what_has_no_value_raises(text: str) -> None:
    formula = parse(text, ["a"])
    with pytest.raises((ArithmeticError, ValueError)):
        formula.value({"a": 1})


numbers = st.floats(0.015625, 8, width=16).map(lambda x: repr(float(x)))
terms = st.recursive(numbers | st.sampled_from(["a", "b"]), lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"{t[0]}{t[1]}{t[2]}"),
    inner.map(lambda t: f"-{t}"), st.tuples(st.sampled_from(["abs", "floor", "ceil", "min", "max"]), inner).map(
        lambda t: f"{t[0]}({t[1]})")), max_leaves=12)


@given(terms)
def test_it_is_pythons_arithmetic(text: str) -> None:
    tree = ast.parse(text.replace("min(", "+(").replace("max(", "+("), mode="eval")       # of one number: itself
    names = {"a": 0.75, "b": 3.0, "abs": abs, "floor": math.floor, "ceil": math.ceil}
    try:
        wanted = float(eval(compile(tree, "", "eval"), {"__builtins__": {}}, names))
    except ArithmeticError:
        with pytest.raises(ArithmeticError):
            parse(text, ["a", "b"]).value({"a": 0.75, "b": 3.0})
        return
    assert parse(text, ["a", "b"]).value({"a": 0.75, "b": 3.0}) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@given(st.text(alphabet="ab+-*/^()., 01minsqrt_", max_size=40))
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    try:
        formula = parse(text, ["a", "b"])
    except UserError:
        return
    with contextlib.suppress(ArithmeticError, ValueError):
        assert isinstance(formula.value({"a": 0.5, "b": 2.0}), float)
    assert formula.names <= {"a", "b"}
    assert set(FUNCTIONS) == {"min", "max", "abs", "floor", "ceil", "exp", "sqrt", "log"}
