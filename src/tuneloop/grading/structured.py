"""Metrics of answers that a program reads: JSON, and JSON that obeys a schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tuneloop.errors import UserError, missing_extra
from tuneloop.grading.registry import Scores, View, metric


@metric("open", default=False)
def json_valid(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """1 where the whole answer, white space aside, is one JSON value (RFC 8259; NaN and Infinity are none).

    As strict as the program that will read it: JSON in a Markdown fence or after a word of welcome scores 0.
    """
    return np.array([is_json(answer) for answer in answers], dtype=np.float64)


@metric("open", view=True, default=False, needs="jsonschema, options.schema")
def json_schema(view: View) -> Scores:
    """1 where the whole answer is JSON that obeys `options.schema` (by `jsonschema`; formats are not checked)."""
    if view.options.schema is None:
        raise UserError("json_schema needs a JSON schema to hold the answers to, and none is given.",
                        fix="give the schema, or use json_valid")
    obeys = schema_check(json.dumps(view.options.schema))
    return np.array([is_json(answer) and obeys(json.loads(answer)) for answer in view.answers.texts],
                    dtype=np.float64)


def is_json(text: str) -> bool:
    """Whether a text is one JSON value."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):        # too many digits, and too deep for a reader, included
        return False
    return True


@lru_cache(maxsize=64)
def schema_check(schema: str) -> Callable[[Any], bool]:
    """Whether a value obeys a schema, given as JSON text. Raises a UserError if it is no schema.

    A reference to another document is an error: nothing is fetched.
    """
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise missing_extra("jsonschema", "eval", "Holding answers to a JSON schema") from None
    given = json.loads(schema)
    if not isinstance(given, dict | bool):
        raise UserError(f"The JSON schema is {schema[:60]}, which is no schema.", wanted="a JSON object")
    kind = validator_for(given)
    try:
        kind.check_schema(given)  # type: ignore[arg-type]    # true and false are schemas too
    except SchemaError as error:
        where = "/".join(map(str, error.path)) or "the top"
        raise UserError(f"The JSON schema is wrong at {where}: {error.message}.") from None
    validator = kind(given, registry=Registry())

    def obeys(value: Any) -> bool:
        try:
            return bool(validator.is_valid(value))
        except RecursionError:
            return False
        except Unresolvable as error:
            raise UserError(f"The JSON schema refers to {error.ref}, which it does not hold.",
                            fix="write the whole schema into one document, under $defs") from None

    return obeys


def _refuse(constant: str) -> None:
    raise ValueError(constant)
