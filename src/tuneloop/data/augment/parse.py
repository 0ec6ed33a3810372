"""JSON in what a model wrote: around it there may be other words, and its end may be missing."""

from __future__ import annotations

import json
import re
from typing import Any

_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.):])\s+(.*\S)", re.MULTILINE)


def objects(text: str, *keys: str) -> list[dict[str, str]]:
    """The JSON objects in a text that have all these keys, with texts, in their order; each with these keys alone."""
    found: list[dict[str, str]] = []
    at = text.find("{")
    while at >= 0:
        value, end = _decoded(text, at)
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys):
            found.append({key: value[key].strip() for key in keys})
        elif isinstance(value, dict):
            end = at + 1        # an object around others, or one that lacks a key
        at = text.find("{", end)
    return found


def texts(text: str) -> list[str]:
    """The first JSON list of texts, else the items of a numbered or dashed list."""
    at = text.find("[")
    while at >= 0:
        value, end = _decoded(text, at)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return [item.strip() for item in value]
        at = text.find("[", end)
    return _LISTED.findall(text)


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins here and where it ends; None and the next place where none does."""
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at + 1


def line(**texts: str) -> str:
    """A JSON object on one line."""
    return json.dumps(texts, ensure_ascii=False)
