"""Rows from live use: compared with the training rows, but nothing that a model is judged by."""

from __future__ import annotations

import re
from pathlib import Path


def is_live(file: str) -> bool:
    """Whether a set to compare with has the word `live` in its file's name: `live.jsonl`, `support-live-2026.csv`."""
    return "live" in re.split(r"[\W\d_]+", Path(file).stem.lower())
