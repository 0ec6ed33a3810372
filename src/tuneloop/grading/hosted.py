"""Graders of the hosted API on this machine: whether an object is one, and what it makes of an answer.

The result has the fields of the API's response to `graders/run`; a grader that fails is no error there, but a flag.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tuneloop.errors import UserError
from tuneloop.grading.graders.base import Case, Fault, Grader, Mark, Means, failed, flaw_of_score
from tuneloop.grading.graders.catalog import hosted

WORST = 0.0             # the reward of a failure


@dataclass(frozen=True)
class Errors:
    """What went wrong, by the API's names."""

    formula_parse_error: bool = False
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool = False
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_server_error_details: str | None = None

    @classmethod
    def of(cls, fault: Fault | None) -> Errors:
        """The flags of a fault, with its words where the API has a place for them."""
        if fault is None:
            return cls()
        words = {
            "python_grader_server_error": {"python_grader_server_error_type": fault.what},
            "python_grader_runtime_error": {"python_grader_runtime_error_details": fault.what},
            "model_grader_server_error": {"model_grader_server_error_details": fault.what}}.get(fault.flag, {})
        flags: dict[str, Any] = {fault.flag: True, **words}
        return cls(**flags)

    @property
    def any(self) -> bool:
        return any(value is True for value in asdict(self).values())


@dataclass(frozen=True)
class Metadata:
    """How a grader came to its reward."""

    name: str
    type: str
    errors: Errors
    execution_time: float                   # seconds
    scores: dict[str, float] = field(default_factory=dict)
    token_usage: int | None = None          # of all models together; None where none was asked
    sampled_model_name: str | None = None


@dataclass(frozen=True)
class Run:
    """What a grader makes of an answer."""

    reward: float
    metadata: Metadata
    sub_rewards: dict[str, float] = field(default_factory=dict)
    model_grader_token_usage_per_model: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the API answers."""
        return asdict(self)


def validate(given: Any) -> dict[str, Any]:
    """The grader that an object is, as the API returns it. Raises a UserError with every flaw and the key it is at."""
    return {"grader": hosted(given).model_dump(mode="json", by_alias=True, exclude_unset=True)}


def run(given: Any, model_sample: str, item: Mapping[str, Any] | None = None, means: Means | None = None) -> Run:
    """What a grader makes of an answer. Raises a UserError for an object that is no grader; what goes wrong afterwards
    is a flag, with a reward of 0.
    """
    grader = hosted(given)
    means = means or Means()
    began = time.perf_counter()
    mark = _mark(grader, Case(prompt="", reference="", answer=model_sample, item=item or {}), means)
    seconds = time.perf_counter() - began
    name, kind = str(getattr(grader, "name", "")), str(getattr(grader, "type", ""))
    usage = {model: {"prompt_tokens": tokens, "completion_tokens": means.new_tokens[model]}
             for model, tokens in means.prompt_tokens.items()}
    reward = WORST if mark.fault else mark.score
    metadata = Metadata(name, kind, Errors.of(mark.fault), seconds, {name: reward} | dict(mark.parts),
                        sum(map(sum, (of.values() for of in usage.values()))) if usage else None,
                        next(iter(usage), None))
    return Run(reward, metadata, dict(mark.parts), usage)


def _mark(grader: Grader, case: Case, means: Means) -> Mark:
    """The mark of one case, whatever happens; one that is no number is a fault."""
    try:
        [mark] = grader.grade([case], means)
    except UserError as error:
        asks = any(hasattr(one, "model") for one in [grader, *getattr(grader, "graders", {}).values()])
        return failed("model_grader_server_error" if asks else "other_error", error.text.replace("\n", ";"))
    flaw = "" if mark.fault else flaw_of_score(mark.score, grader.bounds)
    python = getattr(grader, "type", "") == "python"
    return failed("python_grader_runtime_error" if python else "other_error", flaw) if flaw else mark
