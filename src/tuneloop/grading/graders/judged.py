"""Graders that ask a model: a language model by a rubric of ours, or by the messages of a hosted `score_model`; and a
reward model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import UNBOUNDED, UNIT, Case, Grader, Mark, Means, failed
from tuneloop.grading.graders.template import MissingError, TemplateText, parse
from tuneloop.grading.judge import HELPFUL, Judge, read_rubric
from tuneloop.inference.backend import Backend
from tuneloop.spec import Spec
from tuneloop.types import Completion, Constraint, Message, Request, Sampling

REPLY_TOKENS = 1024
_FENCED = re.compile(r"^```\w*\n(.*)\n```$", re.DOTALL)
_STEP = {"type": "object", "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
         "required": ["description", "conclusion"], "additionalProperties": False}
REPLY = json.dumps({"type": "object", "required": ["steps", "result"], "additionalProperties": False, "properties": {
    "steps": {"type": "array", "items": _STEP}, "result": {"type": "number"}}})
"""What a hosted `score_model` has its model reply: its reasoning in steps, then the number."""


class LanguageModel(Grader):
    """What a model says of the answer by a rubric: 0 for the grade 1, 1 for the grade 5 (docs/evaluation.md).

    A reply without one clear grade is a failure.
    """

    kind: Literal["judge"] = "judge"
    model: Annotated[str, Field(min_length=1)]
    """Who judges: any model by name, folder, run or URL#MODEL."""
    rubric: Annotated[str, Field(min_length=1)] | None = None
    """A file that says what makes an answer good; what is helpful, correct and complete unless given."""
    shows_reference: bool = True
    """Whether the judge sees the row's right answer, where it has one."""
    key_env: str = ""
    """The environment variable with the key of a server."""

    _rubric: str = PrivateAttr(HELPFUL)

    @property
    def files(self) -> dict[str, str]:
        return {} if self.rubric is None else {"rubric": hashlib.sha256(self._rubric.encode()).hexdigest()}

    def read_files(self, root: Path) -> None:
        if self.rubric is not None:
            self._rubric = read_rubric(root / Path(self.rubric).expanduser())

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        judge = Judge(means.model(self.model, self.key_env), self._rubric)
        found = judge.grade([case.prompt for case in cases], [case.answer for case in cases],
                            [case.reference for case in cases] if self.shows_reference else None,
                            rows=[case.row.origin.row for case in cases if case.row] if all(
                                case.row for case in cases) else ())
        means.count(self.model, judge.replies)
        return [Mark(score) if math.isfinite(score) else
                failed("model_grader_parse_error", f"the judge's reply holds no clear grade: {reply[:200]!r}")
                for score, reply in zip(found.scores.tolist(), found.replies, strict=True)]


class RewardModel(Grader):
    """What the reward model of an earlier run says of the answer, as it is: it need not lie in [0, 1]."""

    kind: Literal["reward_model"] = "reward_model"
    run: Annotated[str, Field(min_length=1)]
    """A finished run with objective: reward, of the same base."""

    @property
    def bounds(self) -> tuple[float, float]:
        return UNBOUNDED

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        return [Mark(float(score)) for score in means.scorer(self.run)(cases)]


def _texts(content: Any) -> Any:
    """The texts of a message: a text, or parts of type input_text or output_text."""
    parts = content if isinstance(content, list | tuple) else [content]
    texts = []
    for part in parts:
        if isinstance(part, dict) and part.get("type") in ("input_text", "output_text") and isinstance(
                part.get("text"), str):
            part = part["text"]
        elif isinstance(part, dict) and part.get("type") in ("input_image", "input_audio"):
            raise ValueError(f"texts alone: {part['type']} cannot be shown to a grader here")
        if not isinstance(part, str):
            raise ValueError("a text, or a list of {type: input_text, text: …}")
        texts.append(part)
    return tuple(texts)


_PART = {"type": "object", "required": ["type", "text"], "properties": {
    "type": {"enum": ["input_text", "output_text"]}, "text": {"type": "string"}}}
_CONTENT = {"anyOf": [{"type": "string"}, _PART, {"type": "array", "items": {"anyOf": [{"type": "string"}, _PART]}}]}


class Turn(Spec):
    """A message of a hosted grader."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[tuple[TemplateText, ...], BeforeValidator(_texts), WithJsonSchema(_CONTENT)]
    type: Literal["message"] | None = None


class SamplingParams(Spec):
    """How the model of a hosted grader is sampled: greedily unless told, so that the same answer has the same score."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: None = None
    """Cannot be passed on, so only null is taken."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_completions_tokens or REPLY_TOKENS, self.temperature or 0.0, self.top_p or 1.0,
                        self.seed or 0)


class ScoreModel(Grader):
    """The hosted `score_model`: the number that a model replies, in `range`.

    The model is asked for JSON with its reasoning and a `result` where it can be held to that; a reply that is a number
    alone is read as well. Any other reply is a failure, and so is a number outside of the range.
    """

    type: Literal["score_model"] = "score_model"
    name: str
    model: Annotated[str, Field(min_length=1)]
    """Any model by name, folder, run or URL#MODEL."""
    input: Annotated[list[Turn], Field(min_length=1)]
    range: tuple[float, float] = UNIT
    sampling_params: SamplingParams = SamplingParams()
    pass_threshold: float | None = None
    """Of the hosted evaluations; a reward has no use for it."""

    @model_validator(mode="after")
    def _is_a_range(self) -> ScoreModel:
        if not self.range[0] < self.range[1]:
            raise ValueError("range from a lower to a higher number")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        return self.range

    @property
    def templates(self) -> list[str]:
        return [text for turn in self.input for text in turn.content]

    def grade(self, cases: Sequence[Case], means: Means) -> list[Mark]:
        marks: dict[int, Mark] = {}
        requests: dict[int, Request] = {}
        for i, case in enumerate(cases):
            try:
                requests[i] = self._request(case)
            except MissingError as error:
                marks[i] = Mark(math.nan, error.fault)
        if requests:
            sampling = _held_to_json(self.sampling_params.sampling, means.model(self.model))
            done = means.ask(self.model, list(requests.values()), sampling)
            marks |= {i: self._mark(reply) for i, reply in zip(requests, done, strict=True)}
        return [marks[i] for i in range(len(cases))]

    def _request(self, case: Case) -> Request:
        roles = {"developer": "system"}
        return Request(tuple(Message(roles.get(turn.role, turn.role), "".join(parse(text).fill(case) for text in
                                                                            turn.content)) for turn in self.input))

    def _mark(self, reply: Completion) -> Mark:
        number = number_in(reply.text)
        low, high = self.range
        if number is not None and low <= number <= high:
            return Mark(number)
        why = (f"the reply was cut after {reply.new_tokens:,} tokens" if not reply.stopped else
               f"the reply holds no number alone: {reply.text[:200]!r}" if number is None else
               f"the reply is {number:g}, outside of the range {low:g} to {high:g}")
        return failed("model_grader_parse_error", why)


def number_in(reply: str) -> float | None:
    """The number that a reply is, or that its JSON object has as `result`; None for any other."""
    text = reply.strip()
    fenced = _FENCED.match(text)
    try:
        said = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    said = said.get("result") if isinstance(said, dict) else said
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        return None
    return float(said)


def _held_to_json(sampling: Sampling, model: Backend) -> Sampling:
    """With the form of the reply, where a model can be held to one: behind a server, or here by llguidance."""
    if not model.identity.startswith("remote:") and importlib.util.find_spec("llguidance") is None:
        return sampling
    return Sampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed,
                    constraint=Constraint(json_schema=REPLY))


def refuse_label_model() -> UserError:
    """For a type of the hosted evaluations that no reward can use."""
    return UserError("The grader type label_model belongs to evaluations and is not supported.",
                     wanted="score_model, which gives a number")
