"""Standard input, called `-`. What it holds is found out from its beginning."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from tuneloop.data.sources._spool import Spooled, spooled
from tuneloop.errors import UserError

SHOWN = "standard input"


class Source(Spooled):
    """Rows that another program pipes in, of any kind that a file may have."""

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, SHOWN if shown == name else shown, _kept())

    @classmethod
    def owns(cls, name: str) -> bool:
        return name == "-"


@cache
def _kept() -> Path:
    """All of it, in a file: it can be read only once, and rows are often read more than once."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("Nothing is piped into standard input.", wanted="rows from another program",
                        fix="zcat rows.jsonl.gz | tuneloop check -")
    return spooled(sys.stdin.buffer, "rows", SHOWN)
