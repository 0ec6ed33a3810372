"""Formulas over the scores of other graders, such as `0.5 * name + 0.5 * min(email, 0.8)`: numbers, names, + - * / ^
and a few functions. They are parsed here and never run as Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuneloop.errors import UserError

FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt,
    "log": math.log}
_MANY = ("min", "max")              # take one argument or more; the others one
_LONGEST = 4000                     # characters
_DEEPEST = 50                       # brackets within brackets
_TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|.))",
                    re.DOTALL)

Values = Mapping[str, float]
Term = Callable[[Values], float]


@dataclass(frozen=True)
class Formula:
    """A formula that can be calculated."""

    text: str
    names: frozenset[str]           # of the scores that it uses
    _term: Term

    def value(self, of: Values) -> float:
        """Its value. Raises ArithmeticError or ValueError where there is none, as of 1 / 0 or the root of -1."""
        return float(self._term(of))


def parse(text: str, names: Sequence[str]) -> Formula:
    """A formula over scores of these names. Raises a UserError that says what is wrong where."""
    if len(text) > _LONGEST:
        raise UserError(f"The formula has {len(text):,} characters.", wanted=f"at most {_LONGEST:,}")
    parser = _Parser(text, names)
    return Formula(text, parser.used(), parser.whole())


class _Parser:
    """Recursive descent: a sum of products of signed powers of atoms."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text, self.names = text, names
        self.tokens = [(m.lastgroup or "", m[m.lastgroup or 0], m.start(m.lastgroup or 0))
                       for m in _TOKEN.finditer(text.rstrip())]
        self.at = self.depth = 0

    def used(self) -> frozenset[str]:
        return frozenset(said for kind, said, _ in self.tokens if kind == "name" and said in self.names)

    def whole(self) -> Term:
        term = self.sum()
        if self.at < len(self.tokens):
            raise self.wrong("an operator")
        return term

    def sum(self) -> Term:
        return self.chain(self.product, {"+": lambda a, b: a + b, "-": lambda a, b: a - b})

    def product(self) -> Term:
        return self.chain(self.signed, {"*": lambda a, b: a * b, "/": lambda a, b: a / b})

    def chain(self, part: Callable[[], Term], signs: Mapping[str, Callable[[float, float], float]]) -> Term:
        """Parts with such signs between them, from the left."""
        terms = [part()]
        between = []
        while self.next in signs:
            between.append(signs[self.take()])
            terms.append(part())

        def value(of: Values) -> float:
            total = terms[0](of)
            for sign, term in zip(between, terms[1:], strict=True):
                total = sign(total, term(of))
            return total

        return value

    def signed(self) -> Term:
        sign = 1
        while self.next in ("+", "-"):
            sign *= -1 if self.take() == "-" else 1
        power = self.power()
        return power if sign > 0 else lambda of: -power(of)

    def power(self) -> Term:
        """From the right: 2 ^ 3 ^ 2 is 2 ^ 9, and -2 ^ 2 is -4."""
        base = self.atom()
        if self.next not in ("^", "**"):
            return base
        self.take()
        self.deeper(1)
        exponent = self.signed()
        self.deeper(-1)
        return lambda of: math.pow(base(of), exponent(of))

    def atom(self) -> Term:
        kind, said, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind == "number":
            self.take()
            number = float(said)
            return lambda of: number
        if kind == "name":
            return self.call() if self.calls else self.score()
        if said != "(":
            raise self.wrong("a number, a name or a bracket")
        self.take()
        self.deeper(1)
        inner = self.sum()
        self.deeper(-1)
        self.expect(")")
        return inner

    @property
    def calls(self) -> bool:
        """Whether a bracket follows the name here, which makes it a function even where a grader has its name."""
        return self.at + 1 < len(self.tokens) and self.tokens[self.at + 1][1] == "("

    def score(self) -> Term:
        name = self.tokens[self.at][1]
        if name not in self.names:
            raise self.wrong(f"one of {', '.join(self.names)}" if self.names else "a number")
        self.take()
        return lambda of: of[name]

    def call(self) -> Term:
        name = self.tokens[self.at][1]
        if name not in FUNCTIONS:
            raise self.wrong(f"one of {', '.join(FUNCTIONS)}")
        self.take()
        self.take()
        self.deeper(1)
        arguments = [self.sum()]
        while self.next == ",":
            self.take()
            arguments.append(self.sum())
        self.deeper(-1)
        if len(arguments) > 1 and name not in _MANY:
            raise self.wrong(f"one argument for {name}")
        self.expect(")")
        function = FUNCTIONS[name]
        if len(arguments) == 1 and name in _MANY:
            return arguments[0]
        return lambda of: float(function(*(argument(of) for argument in arguments)))

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def next(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, sign: str) -> None:
        if self.next != sign:
            raise self.wrong(f"a {sign}")
        self.take()

    def deeper(self, by: int) -> None:
        self.depth += by
        if self.depth > _DEEPEST:
            raise UserError("The formula has too many brackets within brackets.", wanted=f"at most {_DEEPEST}")

    def wrong(self, wanted: str) -> UserError:
        if self.at >= len(self.tokens):
            return UserError(f"The formula {self.text!r} ends too early.", wanted=wanted)
        _, said, place = self.tokens[self.at]
        return UserError(f"The formula {self.text!r} has {said!r} at character {place + 1}.", wanted=wanted)
