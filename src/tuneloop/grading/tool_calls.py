"""A metric of answers that call functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tuneloop.grading.registry import Scores, View, metric
from tuneloop.types import Conversation, Sample, ToolCall

_ARGUMENTS = ("arguments", "parameters")
_START = re.compile(r'\{(?=\s*")|\[(?=\s*\{)')       # of an object with a key, or of a list of objects
_READER = json.JSONDecoder()


@metric("open", view=True, default=False)
def tool_calls(view: View) -> Scores:
    """1 where the answer makes the calls of the reference, in any order: the same names, and equal arguments as JSON.

    The wanted calls are those of the sample's last turn; without samples, those in the reference's text. A row that
    wants no call scores 1 where none is made. Default values are not filled in.
    """
    samples: Sequence[Sample | None] = view.samples or [None] * len(view.references)
    return np.array([_same(_wanted(reference, sample), calls_in(answer)) for reference, sample, answer in
                     zip(view.references, samples, view.answers.texts, strict=True)], dtype=np.float64)


def calls_in(text: str) -> list[ToolCall]:
    """The calls that a text holds, in order, whatever a template puts around them.

    A call is a JSON object with a name and `arguments` (or `parameters`), which may themselves be JSON text; it may
    stand under `function`, and in lists: what Hermes, Qwen, Llama, Mistral and the OpenAI API write.
    """
    found: list[ToolCall] = []
    end = 0
    for start in _START.finditer(text):
        if start.start() < end:
            continue            # inside a value that has been read
        try:
            value, end = _READER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        found += _calls(value)
    return found


def _calls(value: Any) -> Iterator[ToolCall]:
    if isinstance(value, list):
        for item in value:
            yield from _calls(item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str) and (key := next((k for k in _ARGUMENTS if k in value), None)):
            arguments = value[key]
            yield ToolCall(value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments))
        else:
            yield from _calls(value.get("function"))
            yield from _calls(value.get("tool_calls"))


def _wanted(reference: str, sample: Sample | None) -> list[ToolCall]:
    if isinstance(sample, Conversation) and sample.messages[-1].calls:
        return list(sample.messages[-1].calls)
    return calls_in(reference)


def _same(wanted: list[ToolCall], given: list[ToolCall]) -> bool:
    return sorted(map(_key, wanted)) == sorted(map(_key, given))


def _key(call: ToolCall) -> tuple[str, str]:
    """Equal for equal calls; arguments that are no JSON equal themselves alone."""
    try:
        arguments = json.loads(call.arguments or "{}")
        return call.name, json.dumps(_plain(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return call.name, call.arguments


def _plain(value: Any) -> Any:
    """1.0 is 1 in JSON; true is not 1, as it would be in Python."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
