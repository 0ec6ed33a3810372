"""One thing that has seen a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """What it is, where, and what it has of the row. `removable`: a purge takes that away."""

    kind: str           # version | file | cache | run | log | adapter
    where: str
    what: str
    removable: bool
