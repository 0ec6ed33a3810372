"""What a grader is: settings of a recipe, and how answers are scored by them, many at a time.

To add one: a class below `Grader` in the file of its group, and its name in `catalog.KINDS`. A score is a number; an
answer that has none has a `Fault`. It is the answer's where it is not what the grader reads (no JSON, for instance),
and then as bad as can be; else it is the grader's, which counts as a failure and is told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuneloop.errors import UserError
from tuneloop.grading.structured import is_json
from tuneloop.grading.tool_calls import calls_in
from tuneloop.spec import Spec
from tuneloop.types import Completion, Request, Sample, Sampling

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend

Flag = Literal["formula_parse_error", "sample_parse_error", "invalid_variable_error", "other_error",
               "python_grader_server_error", "python_grader_runtime_error", "model_grader_server_error",
               "model_grader_refusal_error", "model_grader_parse_error"]
"""Why there is no score, by the names of the hosted API."""

Scorer = Callable[[Sequence["Case"]], Sequence[float]]
"""A reward model: a number for each case."""
UNIT = (0.0, 1.0)
UNBOUNDED = (-math.inf, math.inf)
Opener = Callable[[str, str], "Backend"]
"""A model by what people call it, and the environment variable that holds a server's key, or nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an answer has no score."""

    flag: Flag
    what: str                       # a sentence without its stop
    of_answer: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """What a grader says of an answer."""

    score: float                    # nan where there is a fault
    fault: Fault | None = None
    parts: Mapping[str, float] = field(default_factory=dict)        # of a grader that is made of others


def failed(flag: Flag, what: str, *, of_answer: bool = False) -> Mark:
    """No score, and why."""
    return Mark(math.nan, Fault(flag, what, of_answer))


def flaw_of_score(score: float, bounds: tuple[float, float]) -> str:
    """Why a number can be no score of a grader with these bounds; nothing where it can."""
    low, high = bounds
    if not math.isfinite(score):
        return f"its score is {score}"
    return "" if low <= score <= high else f"its score is {score:g}, outside of its range {low:g} to {high:g}"


@dataclass(frozen=True)
class Case:
    """An answer to grade, and what it answers."""

    prompt: str                     # as a judge reads it
    reference: str                  # the right answer, where the row has one
    answer: str
    item: Mapping[str, Any] = field(default_factory=dict)           # what the row's columns say, and more: `item_of`
    row: Sample | None = None

    @cached_property
    def sample(self) -> dict[str, Any]:
        """The answer as templates and Python graders see it; without `output_json` where it is no JSON."""
        calls = [{"id": f"call_{i}", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                 for i, call in enumerate(calls_in(self.answer), start=1)]
        parsed = {"output_json": json.loads(self.answer)} if is_json(self.answer) else {}
        message = {"role": "assistant", "content": self.answer, **({"tool_calls": calls} if calls else {})}
        return {"output_text": self.answer, **parsed, "output_tools": calls,
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


class Grader(Spec):
    """A way to score answers. A subclass has its name as the only value of `kind`, or `type` if it is a hosted one."""

    @property
    def bounds(self) -> tuple[float, float]:
        """What scores cannot leave; infinite where nothing says."""
        return UNIT

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        """One mark for each case, in order. Raises a UserError where none could be had, whatever the answers."""
        raise NotImplementedError

    def read_files(self, root: Path) -> None:
        """Read the files that the settings name, which count from `root`, once. Raises a UserError."""

    @property
    def files(self) -> dict[str, str]:
        """Of each setting that names a file, the sha256 of what was read."""
        return {}

    @property
    def templates(self) -> list[str]:
        """The texts among the settings that may hold variables."""
        return []


class Means:
    """What graders use beside their settings: models, each opened once. What they cost is counted by name."""

    def __init__(self, open_model: Opener | None = None, open_scorer: Callable[[str], Scorer] | None = None) -> None:
        self._open, self.open_scorer = open_model, open_scorer
        self._scorers: dict[str, Scorer] = {}
        self._models: dict[tuple[str, str], Backend] = {}
        self.prompt_tokens: dict[str, int] = {}
        self.new_tokens: dict[str, int] = {}

    def model(self, called: str, key_env: str = "") -> Backend:
        """The model that is called so. Raises a UserError where there is none."""
        if self._open is None:
            raise UserError(f"A grader asks the model {called}, and models cannot be asked here.",
                            fix="leave that grader out")
        if (called, key_env) not in self._models:
            self._models[called, key_env] = self._open(called, key_env)
        return self._models[called, key_env]

    def scorer(self, run: str) -> Scorer:
        """The reward model of a run. Raises a UserError where there is none."""
        if self.open_scorer is None:
            raise UserError(f"A grader asks the reward model {run}, and reward models cannot be asked here.",
                            fix="leave that grader out")
        if run not in self._scorers:
            self._scorers[run] = self.open_scorer(run)
        return self._scorers[run]

    def ask(self, called: str, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """What a model replies to each request."""
        done = self.model(called).generate(requests, sampling)
        self.count(called, done)
        return done

    def count(self, called: str, done: Sequence[Completion]) -> None:
        """Add what replies cost."""
        for of, tokens in ((self.prompt_tokens, sum(d.prompt_tokens for d in done)),
                           (self.new_tokens, sum(d.new_tokens for d in done))):
            of[called] = of.get(called, 0) + tokens

    def release(self) -> None:
        """Let go of the memory of models on this machine; the next question loads them again."""
        for model in self._models.values():
            release = getattr(model, "release", None)
            if release is not None:
                release()
