"""What files are for, by their names: the words that the hub goes by, too."""

from __future__ import annotations

import re

SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "dev": "validation",
          "val": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}


def split_of(path: str) -> str:
    """train, validation or test; "" where no part of the path says. The last word that does is the nearest."""
    words = re.split("[^a-z]+", path.lower())
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")
