"""Personal data and secrets in any text of a row, also in columns that the model does not see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, is_learnt
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Severity
from tuneloop.data.personal.find import KINDS, find_personal
from tuneloop.data.personal.mask import masked

NEVER_FINE = ("secret", "card", "iban", "ssn")
HANDFUL = 5                     # different addresses or numbers may be there on purpose
MOST_COUNTED = 100_000          # different values of a kind
REPEATED_TEXTS = 1_000          # such as a system message: looked at once


class Check(base.Check):
    """Every kind of personal data: its rows, how many different values, and masked examples."""

    about = "personal data and secrets, by layout and check digits (names and postal addresses are not looked for)"

    def __init__(self) -> None:
        self._tally = Tally("personal")
        self._values: defaultdict[str, set[int]] = defaultdict(set)
        self._find = lru_cache(REPEATED_TEXTS)(find_personal)

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, values in zip(chunk.origins, chunk.values, strict=True):
            for text in texts_in(values):
                for hit in self._find(text):
                    value = text[hit.start:hit.end]
                    kind = "public" if hit.public else hit.kind
                    self._tally.add(kind, origin, value if hit.public else masked(hit.kind, value))
                    if len(self._values[kind]) < MOST_COUNTED:
                        self._values[kind].add(hash(value))

    def findings(self) -> list[Finding]:
        found = [finding for kind, name in KINDS.items() for finding in
                 self._tally.finding(kind, self._severity(kind), f"hold {name}{self._different(kind)}",
                                     f"tuneloop data fix FILE redact kinds={kind}")]
        return found + list(self._tally.finding(
            "public", "note", "hold addresses or numbers of offices, of private networks, or made for documentation; "
            "redact leaves them as they are"))

    def facts(self) -> dict[str, Any]:
        counts = {kind: {"rows": len(self._tally.rows(kind)), "different": len(self._values[kind])}
                  for kind in KINDS if self._tally.rows(kind)}
        return {"personal_data": counts} if counts else {}

    def _severity(self, kind: str) -> Severity:
        return "fix" if kind in NEVER_FINE or len(self._values[kind]) > HANDFUL else "note"

    def _different(self, kind: str) -> str:
        count, rows = len(self._values[kind]), len(self._tally.rows(kind))
        if count == rows:
            return ""
        return " (always the same)" if count == 1 else f" ({count:,} different)"


def texts_in(value: Any) -> Iterator[str]:
    """Every text of a JSON value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
