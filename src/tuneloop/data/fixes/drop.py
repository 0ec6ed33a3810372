"""Drop every row that the named checks name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneloop.data.checks.base import Check, Chunk
from tuneloop.data.examine import CHECKS, CHUNK_ROWS
from tuneloop.data.findings import Finding, Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools
from tuneloop.errors import UserError
from tuneloop.types import Origin

UNREADABLE = "rows"
"""The name under which a report tells of rows that are no samples. They are no items: whoever reads leaves them out."""


class Fix(base.Fix):
    """Rows that no named check names."""

    about: ClassVar[str] = "drops every row that the named checks name"

    kind: Literal["drop"] = "drop"
    checks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of checks, as `tuneloop check --json` gives them; `rows` for those that cannot be read."""
    kinds: tuple[str, ...] = ()
    """Only for findings of these kinds, such as email of the check on personal data; all unless given."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        more = tools.checks()
        checks = {name: more[name] if name in more else _check(name, more) for name in self.checks
                  if name != UNREADABLE}
        numbered = [Origin("", number) for number in range(len(items))]
        for start in range(0, len(items), CHUNK_ROWS):
            part = range(start, min(start + CHUNK_ROWS, len(items)))
            chunk = Chunk("train", [numbered[i] for i in part],
                          [replace(items[i].sample, origin=numbered[i]) for i in part], [items[i].values for i in part])
            for check in checks.values():
                check.see(chunk)
        named = [(finding, {place.line for place in finding.places}) for check in checks.values()
                 for finding in check.findings() if not self.kinds or finding.kind in self.kinds]
        gone = set[int]().union(*(numbers for _, numbers in named))
        return Applied([item for number, item in enumerate(items) if number not in gone],
                       [_change(finding, numbers, items) for finding, numbers in named if numbers])


def _check(name: str, more: Mapping[str, Check]) -> Check:
    if name == "proof" and not more:
        raise UserError("The check proof needs the tokenizer of a base.", fix="name one with --model, or use a recipe")
    made: Check = CHECKS.get(name)()
    return made


def _change(finding: Finding, numbers: set[int], items: Sequence[Item]) -> Change:
    rows = base.count_of(numbers)
    return Change(f"{rows} dropped", f"{finding.check}: {finding.what}",
                  Places(items[number].origin for number in sorted(numbers)), finding.examples)
