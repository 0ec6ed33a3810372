"""Graders that run Python in the sandbox: a file or source with a function `grade`, and tests of programs."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import UNBOUNDED, UNIT, Case, Grader, Mark, Means, failed
from tuneloop.grading.programs import python_in
from tuneloop.grading.sandbox import Limits, Outcome, Shared, Task, run_all

LARGEST_BYTES = 256 << 10       # of a source, as the hosted service has it
HOSTED_MEMORY_MB = 2048
Seconds = Annotated[float, Field(gt=0)]
Megabytes = Annotated[int, Field(ge=64)]


class Python(Grader):
    """What a function `grade(sample, item)` in a file of yours returns: a number in `range`.

    `sample` holds `output_text` (the answer), `output_json` where it is JSON, `output_tools` and `choices`; `item` the
    row's columns, and `prompt`, `reference` and `messages` where no column is called so. It runs in the sandbox, where
    the packages of this environment can be imported, and nothing that it remembers of an answer reaches the next.
    """

    kind: Literal["python"] = "python"
    file: Annotated[str, Field(pattern=r"\.py:[A-Za-z_]\w*$")]
    """FILE.py:FUNCTION, with the path from the recipe's folder."""
    range: tuple[float, float] = UNIT
    """What it may return; a number outside counts as a failure."""
    seconds: Seconds = 10.0
    """For one answer."""
    memory_mb: Megabytes = 1024

    _source: str = PrivateAttr("")

    @model_validator(mode="after")
    def _is_a_range(self) -> Python:
        if not self.range[0] < self.range[1]:
            raise ValueError("range from a lower to a higher number")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return self.range

    @property
    def files(self) -> dict[str, str]:
        return {"file": hashlib.sha256(self._source.encode()).hexdigest()}

    def read_files(self, root: Path) -> None:
        path, _, function = self.file.rpartition(":")
        try:
            self._source = (root / Path(path).expanduser()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise UserError(f"The grader's file {path} cannot be read: {why}.",
                            wanted="FILE.py:FUNCTION, with the path from the recipe's folder") from None
        if flaw := flaw_of(self._source, function):
            raise UserError(f"{path} is no grader: {flaw}.", wanted=f"def {function}(sample, item), which returns a "
                                                                    "number")

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        path, _, function = self.file.rpartition(":")
        return called_in_sandbox(Shared(self._source, Path(path).name), arguments_of(cases),
                                 Limits(seconds=self.seconds, memory_bytes=self.memory_mb << 20), function)


def _source(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_BYTES:
        raise ValueError(f"at most {LARGEST_BYTES >> 10} KiB")
    if flaw := flaw_of(text, "grade"):
        raise ValueError(f"Python that defines grade(sample, item) ({flaw})")
    return text


class HostedPython(Grader):
    """The hosted `python`: source that defines `grade(sample, item)`, which returns a number."""

    type: Literal["python"] = "python"
    name: str
    source: Annotated[str, AfterValidator(_source)]
    image_tag: str | None = None
    """Of the hosted service's machine; here the packages of this environment are there."""
    pass_threshold: float | None = None
    """Of the hosted evaluations; a reward has no use for it."""
    seconds: Seconds = 10.0
    """For one answer; not a hosted key, where it is two minutes."""

    @property
    def bounds(self) -> tuple[float, float]:
        return UNBOUNDED

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return called_in_sandbox(Shared(self.source, "grader.py"), arguments_of(cases),
                                 Limits(seconds=self.seconds, memory_bytes=HOSTED_MEMORY_MB << 20))


class Code(Grader):
    """1 where the answer's Python passes the tests (`assert` statements) that are the row's right answer, else 0.

    As the metric `code`.
    """

    kind: Literal["code"] = "code"
    seconds: Seconds = 10.0
    """For one answer and its tests."""
    memory_mb: Megabytes = 1024

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        tests = [python_in(case.reference) for case in cases]
        tasks = [Task(python_in(case.answer), test) for case, test in zip(cases, tests, strict=True)]
        outcomes = run_all(tasks, Limits(seconds=self.seconds, memory_bytes=self.memory_mb << 20))
        return [Mark(float(outcome.passed)) if test.strip() else
                failed("other_error", "code needs tests, and the row's right answer holds none")
                for test, outcome in zip(tests, outcomes, strict=True)]


def called_in_sandbox(shared: Shared, arguments: Sequence[Sequence[Any]], limits: Limits,
                      function: str = "grade") -> list[Mark]:
    """What a function returns for each list of arguments, a number; what it does else is a fault of the grader."""
    tasks = [Task(call=(function, given)) for given in arguments]
    return [_mark(outcome) for outcome in run_all(tasks, limits, shared=shared)]


def _mark(outcome: Outcome) -> Mark:
    if outcome.value is not None:
        return Mark(outcome.value)
    crashed = outcome.status in ("crashed", "too many processes", "disk full")
    return failed("python_grader_server_error" if crashed else "python_grader_runtime_error",
                  f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status)


def arguments_of(cases: Sequence[Case]) -> list[list[Any]]:
    """What `grade(sample, item)` is called with."""
    return [[case.sample, dict(case.item)] for case in cases]


def flaw_of(source: str, function: str) -> str:
    """Why a source has no such function of a sample and an item, without its being run; nothing where it has."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else error
        return f"it is no Python, {where}"
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found:
        if any(isinstance(node, ast.AsyncFunctionDef) and node.name == function for node in tree.body):
            return f"{function} is async"
        if re.search(rf"^{function}\b|\bas {function}\b|import .*\b{function}\b", source, re.MULTILINE):
            return ""           # assigned or imported: what it is shows when it is called
        return f"it defines no function {function}"
    taken = found[-1].args
    positional = len(taken.posonlyargs) + len(taken.args)
    wanted = [a for a, d in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if d is None]
    if not (positional - len(taken.defaults) <= 2 <= positional or taken.vararg) or wanted:
        return f"{function} does not take two arguments, sample and item"
    return ""
