"""Fixes by name, from a recipe or the command line, and one applied after the other."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from pydantic import ValidationError

from tuneloop.catalog import Catalog
from tuneloop.data.fixes.base import Again, Change, Fix, Item, Tools, Values, count_of
from tuneloop.data.flaws import RowError
from tuneloop.errors import UserError, raise_all
from tuneloop.types import Origin, Sample

FIXES = Catalog("fix", "tuneloop.data.fixes", "Fix")


@dataclass(frozen=True)
class Step:
    """One fix as it was applied: to how many rows, what they became, and every change."""

    fix: Fix
    rows_before: int
    rows_after: int
    log: list[Change]

    def lines(self) -> list[str]:
        """For the terminal."""
        rows = count_of(range(self.rows_before))
        rows += f" → {self.rows_after:,}" if self.rows_after != self.rows_before else ""
        return [f"{named(self.fix)}: {rows}" + ("" if self.log else ", nothing to do"),
                *(f"  {change} ({change.why})" for change in self.log)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"what": named(self.fix), "fix": self.fix.model_dump(mode="json"),
                "rows_before": self.rows_before, "rows_after": self.rows_after,
                "log": [change.to_json() for change in self.log]}


def apply_all(items: Sequence[Item], fixes: Sequence[Fix], tools: Tools) -> tuple[list[Item], list[Step]]:
    """The rows after all fixes in their order, and what each of them did."""
    rows, steps = list(items), []
    for fix in fixes:
        applied = fix.apply(rows, replace(tools, again=_telling(tools.again, fix)))
        steps.append(Step(fix, len(rows), len(applied.items), applied.log))
        rows = applied.items
    return rows, steps


def _telling(again: Again, fix: Fix) -> Again:
    def remade(values: Values, origin: Origin) -> Sample:
        try:
            return again(values, origin)
        except RowError as error:
            raise UserError(f"{origin}: after {named(fix)} {error.what}.", wanted="rows that stay rows",
                            fix=f"mend line {origin.line} first, or drop it") from error
    return remade


def named(fix: Fix) -> str:
    """A fix as one types it: `redact kinds=["email"]`; options that are their defaults are left out."""
    given = fix.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    options = [f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
               for key, value in given.items()]
    return " ".join([fix.kind, *options])


def parse(entry: Any) -> Fix:
    """A fix as a recipe names it: `deduplicate`, or `{kind: redact, kinds: [email]}`. Raises UserError."""
    if isinstance(entry, Fix):
        return entry
    options = dict(entry) if isinstance(entry, dict) else {"kind": entry}
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"{entry!r} names no fix.", wanted=f"one of: {', '.join(FIXES.names)}",
                        fix="such as deduplicate, or {kind: redact, kinds: [email]}")
    chosen: type[Fix] = FIXES.get(kind)
    known = _options(kind)
    raise_all([_unknown(kind, str(key), known) for key in options if key not in known])
    try:
        return chosen(kind=kind, **options)
    except ValidationError as error:
        problems = [_invalid(kind, item) for item in error.errors()]
    raise_all(problems)
    raise AssertionError


def parse_words(words: Sequence[str]) -> list[Fix]:
    """Fixes from the command line: each word without `=` names one, the `key=value` words after it are its options.

    A list may be typed without brackets: `checks=refusals,secrets`. Raises UserError with every problem at once.
    """
    entries: list[dict[str, Any]] = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            entries.append({"kind": word})
        elif not entries:
            raise UserError(f"'{word}' stands before the fix it belongs to.",
                            wanted="KIND key=value …, such as redact kinds=email")
        elif key == "kind":     # would take the place of the fix's name
            raise _unknown(entries[-1]["kind"], key, _options(entries[-1]["kind"]))
        else:
            entries[-1][key] = _value(word, text, entries[-1]["kind"], key)
    if not entries:
        raise UserError("No fix is named.", wanted=f"one of: {', '.join(FIXES.names)}")
    found, problems = [], []
    for entry in entries:
        try:
            found.append(parse(entry))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    return found


def _value(word: str, text: str, kind: str, key: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The value of '{word}' is not YAML.", fix="quote it") from error
    if isinstance(value, str) and kind in FIXES.names and _takes_many(FIXES.get(kind), key):
        return [part.strip() for part in value.split(",")]
    return value


def _options(kind: str) -> list[str]:
    return [name for name in FIXES.get(kind).model_fields if name != "kind"]


def _takes_many(chosen: type[Fix], key: str) -> bool:
    return key in chosen.model_fields and str(chosen.model_fields[key].annotation).startswith(("tuple[", "list["))


def _unknown(kind: str, key: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(key, known, n=1)
    return UserError(f"The fix {kind} has no option '{key}'.",
                     wanted=f"one of: {', '.join(known)}" if known else "no options",
                     fix=f"did you mean '{near[0]}'?" if near else "")


def _invalid(kind: str, item: Any) -> UserError:
    """One of pydantic's findings."""
    at = ".".join(map(str, item["loc"]))
    if item["type"] == "missing":
        return UserError(f"The fix {kind} needs the option '{at}'.", fix=f"{kind} {at}=…")
    wanted = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return UserError(f"{kind}: '{at}' is {item['input']!r}." if at else f"{kind} cannot be applied so.", wanted=wanted)
