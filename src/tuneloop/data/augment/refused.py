"""What filters refused of generated texts, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 3
EXCERPT = 80


@dataclass
class Refused:
    """Counts by reason, and a few excerpts of each."""

    kept: int = 0
    why: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, why: str, text: str) -> None:
        self.why[why] += 1
        shown = self.examples.setdefault(why, [])
        if len(shown) < SHOWN:
            shown.append(excerpt(text))

    def lines(self) -> list[str]:
        """For people: `12 kept`, `3 refused: the answer is not in the passage (…)`."""
        return [f"{self.kept:,} kept", *(f"{count:,} refused: {why} ({' | '.join(self.examples[why])})"
                                         for why, count in self.why.most_common())]


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    return " ".join(text[:EXCERPT].split())
