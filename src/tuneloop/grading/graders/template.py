"""Texts with variables, `{{ item.answer }}` and `{{ sample.output_json.x }}`, as graders of hosted services have them.

A variable is a namespace and a path: names behind dots, or names and numbers in brackets. Values are put in as they
are where they are texts, else as JSON; what is put in is not looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case, Fault

NAMESPACES = ("item", "sample")
OF_SAMPLE = ("output_text", "output_json", "output_tools", "choices")
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_STEP = re.compile(r"""\.(?P<name>[^\s.\[\]{}'"|()]+) | \[\s*(?P<number>-?\d+)\s*\]
                       | \[\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*\]""", re.VERBOSE)


class MissingError(Exception):
    """A variable that has no value for a case."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.what)


@dataclass(frozen=True, slots=True)
class Variable:
    """A place in the row or in the answer."""

    namespace: str
    path: tuple[str | int, ...]
    shown: str

    def value(self, case: Case) -> Any:
        """What stands there, which may be null. Raises MissingError where there is no such place."""
        at: Any = case.item if self.namespace == "item" else case.sample
        if self.namespace == "sample" and self.path[0] == "output_json" and "output_json" not in at:
            raise MissingError(Fault("sample_parse_error", f"{{{{ {self.shown} }}}}: the answer is not JSON", True))
        for step in self.path:
            if isinstance(at, list) and isinstance(step, int) and -len(at) <= step < len(at):
                at = at[step]
            elif isinstance(at, Mapping) and str(step) in at:
                at = at[str(step)]
            else:
                of_answer = self.namespace == "sample"
                where = "the answer" if of_answer else f"the row, which has {', '.join(map(str, case.item))}"
                raise MissingError(Fault("invalid_variable_error", f"{{{{ {self.shown} }}}} is not in {where}",
                                         of_answer))
        return at


@dataclass(frozen=True, slots=True)
class Template:
    """A text, cut at its variables."""

    parts: tuple[str | Variable, ...]

    def fill(self, case: Case) -> str:
        """The text for a case. Raises MissingError where a variable has no value."""
        return "".join(part if isinstance(part, str) else as_text(part.value(case)) for part in self.parts)

    @property
    def variables(self) -> list[Variable]:
        return [part for part in self.parts if isinstance(part, Variable)]


def _checked(text: str) -> str:
    try:
        parse(text)
    except UserError as error:
        raise ValueError(f"{error.wanted} ({error.found.rstrip('.')})") from None
    return text


TemplateText = Annotated[str, AfterValidator(_checked)]
"""A setting that may hold variables."""


@lru_cache(maxsize=1024)
def parse(text: str) -> Template:
    """The template that a text is. Raises a UserError for braces that hold no variable."""
    parts: list[str | Variable] = []
    end = 0
    for found in _BRACES.finditer(text):
        parts += [text[end:found.start()], _variable(found[1].strip())]
        end = found.end()
    return Template(tuple(part for part in (*parts, text[end:]) if part))


def as_text(value: Any) -> str:
    """A value as it is put into a text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _variable(shown: str) -> Variable:
    namespace = next((name for name in NAMESPACES if re.match(rf"{name}\b", shown)), "")
    if not namespace:
        raise UserError(f"{{{{ {shown} }}}} is no variable.",
                        wanted="{{ item.COLUMN }} for what a row says, {{ sample.output_text }} for the answer")
    path: list[str | int] = []
    at = len(namespace)
    while step := _STEP.match(shown, at):
        texts = (step["name"], step["single"], step["double"])
        path.append(int(step["number"]) if step["number"] else next(text for text in texts if text is not None))
        at = step.end()
    if at < len(shown) or not path:
        raise UserError(f"{{{{ {shown} }}}} is no variable.", wanted=f"a path, such as {{{{ {namespace}.x.y[0] }}}}")
    if namespace == "sample" and path[0] not in OF_SAMPLE:
        raise UserError(f"{{{{ {shown} }}}} is no variable.",
                        wanted=f"sample. and one of: {', '.join(OF_SAMPLE)}")
    return Variable(namespace, tuple(path), shown)
