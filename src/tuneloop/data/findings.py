"""What checks say of rows: findings that name every place, and the verdict that follows from all of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Literal

from tuneloop.types import Origin

Severity = Literal["blocks", "fix", "note"]
"""A model cannot or must not be trained on it; mend it first; worth knowing."""
Verdict = Literal["ready", "fix first", "will not train"]

SEVERITIES: tuple[Severity, ...] = ("blocks", "fix", "note")
VERDICTS: dict[Severity, Verdict] = {"blocks": "will not train", "fix": "fix first", "note": "ready"}
EXIT_CODES: dict[Verdict, int] = {"ready": 0, "will not train": 2, "fix first": 3}
SHOWN = 5
LISTED = 10_000         # places in JSON; the count is always of all


class Places:
    """Files and lines, in the order in which they were added; eight bytes each, so that millions are no burden."""

    __slots__ = ("files", "lines", "which")

    def __init__(self, origins: Iterable[Origin] = ()) -> None:
        self.files: dict[str, int] = {}
        self.which, self.lines = array("i"), array("i")
        for origin in origins:
            self.add(origin)

    def add(self, origin: Origin) -> None:
        self.which.append(self.files.setdefault(origin.file, len(self.files)))
        self.lines.append(origin.line)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Origin]:
        names = list(self.files)
        return (Origin(names[file], line) for file, line in zip(self.which, self.lines, strict=True))

    def __str__(self) -> str:
        """`reviews.csv line 3, 5, 9, …`."""
        shown = [f"{file} line {', '.join(str(o.line) for o in origins)}"
                 for file, origins in groupby(islice(self, SHOWN), key=lambda o: o.file)]
        return "; ".join(shown) + (", …" if len(self) > SHOWN else "")

    def to_json(self) -> list[dict[str, Any]]:
        """`[{"file": …, "lines": […]}, …]`, neighbours of one file together, at most LISTED lines in all."""
        return [{"file": file, "lines": [o.line for o in origins]}
                for file, origins in groupby(islice(self, LISTED), key=lambda o: o.file)]


@dataclass(frozen=True)
class Finding:
    """One thing that is so of some rows, or of all of them together (then `places` is empty)."""

    check: str                          # the check's name in the catalog
    severity: Severity
    what: str                           # a sentence without its places: `12 rows hold an e-mail address`
    fix: str                            # what to type or do; empty where nothing needs to be done
    places: Places = field(default_factory=Places)
    examples: Sequence[str] = ()        # a few short excerpts; never a secret in full
    kind: str = ""                      # what tells findings of one check apart: `email`, `iban`

    def __str__(self) -> str:
        return f"{self.what}: {self.places}" if len(self.places) else self.what

    def to_json(self) -> dict[str, Any]:
        return {"check": self.check, "kind": self.kind, "severity": self.severity, "what": self.what, "fix": self.fix,
                "rows": len(self.places), "places": self.places.to_json(), "examples": list(self.examples)}


def verdict(findings: Iterable[Finding]) -> Verdict:
    """The worst of them decides."""
    worst = min((SEVERITIES.index(f.severity) for f in findings), default=len(SEVERITIES) - 1)
    return VERDICTS[SEVERITIES[worst]]
