"""JSON on request: is the answer JSON, and does it have the shape that was asked for?"""

from __future__ import annotations

import json
from typing import Any

from tuneloop.evaluation.suites.base import Graded
from tuneloop.evaluation.suites.items import generated, joined, rows
from tuneloop.grading.structured import is_json, schema_check
from tuneloop.inference.backend import Backend, Progress

VALID, MATCH = "valid JSON", "schema match"

_LONGEST = 200      # tokens; the longest right answer has about 40


class Formats:
    """Small requests for JSON with a described shape. Each answer gets two grades, for its syntax and for its schema.

    The whole answer must be JSON, as in the metrics `json_valid` and `json_schema`: a Markdown fence around it breaks
    the program that reads it. Whether the values are right is not graded.
    """

    name = "formats"
    title = "JSON in the shape that was asked for"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        asked = rows(self.name)[:limit]
        prompts = [f"{row['prompt']}\nAnswer with JSON only, without a code block." for row in asked]
        answers = generated(backend, prompts, _LONGEST, progress)
        return [grade for row, answer in zip(asked, answers, strict=True) for grade in _grades(row, *answer)]


def _grades(row: dict[str, Any], answer: str, cut: str) -> list[Graded]:
    """Both grades of an answer; their ids differ after a #, since one answer is one unit for an interval."""
    valid = is_json(answer)
    match = valid and schema_check(json.dumps(row["schema"]))(json.loads(answer))
    found = "" if match else "another shape" if valid else "in a code block" if "```" in answer else "not JSON"
    return [Graded(f"{row['id']}#valid", VALID, float(valid), answer, joined("" if valid else found, cut)),
            Graded(f"{row['id']}#schema", MATCH, float(match), answer, joined(found, cut))]
