"""Whether the rows of other parts are like the training rows; else what is measured there is not what is learnt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tuneloop.data.checks import base
from tuneloop.data.checks._live import is_live
from tuneloop.data.checks._tally import excerpt
from tuneloop.data.checks._two_samples import CAPITALS, LENGTH, Compared, compare, tokens_of
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places
from tuneloop.types import Origin

ROWS = 2_000            # of each part
CHARACTERS = 2_000      # of each row
FEWEST = 50             # rows of a part, below which nothing can be said
BY_CHANCE = 0.001       # the p-value below which it is no chance
NOTABLE, CLEAR = 0.55, 0.7      # shares of rows that are told apart rightly
NAMED, EXAMPLES = 20, 3         # rows that differ most
TELLING = 5             # words that tell parts apart
DEVIATIONS = 4          # standard deviations by which the share of such a word differs at least
LONGER = 1.5            # times as long as the other part's rows, to be worth telling


class Check(base.Check):
    """A two-sample test on at most 2,000 rows of each part: train against test, validation, and live rows.

    Live rows are a set to compare with whose file has the word `live` in its name.
    """

    about: ClassVar[str] = "whether test rows, and rows from live use, are like the training rows"

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}
        self._compared: dict[str, Compared] = {}

    def see(self, chunk: Chunk) -> None:
        for origin, text in zip(chunk.origins, chunk.texts, strict=True):
            if (name := _part(chunk.part, origin)) is not None:
                self._samples.setdefault(name, _Sample()).add(origin, text[:CHARACTERS])

    def findings(self) -> list[Finding]:
        return list(self._findings())

    def facts(self) -> dict[str, Any]:
        return {"representativeness": {
            name: {"told_apart": round(compared.accuracy, 3), "p_value": float(f"{compared.p_value:.2g}")}
            for name, compared in self._compared.items()}}

    def _findings(self) -> Iterator[Finding]:
        train = self._samples.pop("train", _Sample())
        for name, other in self._samples.items():
            if min(len(train.texts), len(other.texts)) < FEWEST:
                continue
            ours, theirs = ([tokens_of(text) for text in sample.texts] for sample in (train, other))
            compared = self._compared[name] = compare(ours, theirs)
            if compared.p_value < BY_CHANCE and compared.accuracy >= NOTABLE:
                yield _finding(name, other, compared, [*_lengths(train, other, name), *_words(ours, theirs, name)])


def _part(part: str, origin: Origin) -> str | None:
    """What the rows are compared as: a part, or a file of live rows; None where they are not."""
    if part != "evaluation":
        return part
    return origin.file if is_live(origin.file) else None


@dataclass
class _Sample:
    """Rows drawn from all that come along, each as likely as any other (Vitter 1985, algorithm R)."""

    origins: list[Origin] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seen: int = 0
    drawn: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, origin: Origin, text: str) -> None:
        self.seen += 1
        if len(self.texts) < ROWS:
            self.origins.append(origin)
            self.texts.append(text)
        elif (place := self.drawn.randrange(self.seen)) < ROWS:
            self.origins[place], self.texts[place] = origin, text


def _finding(name: str, other: _Sample, compared: Compared, telling: Sequence[str]) -> Finding:
    most = np.argsort(-compared.scores, kind="stable")[:NAMED].tolist()
    return Finding(
        "representativeness", "fix" if compared.accuracy >= CLEAR else "note",
        f"the rows of {name} are not like those of train: in {compared.accuracy:.0%} of cases one can tell where a row "
        "is from, and by guessing in 50%",
        f"draw train and {name} from the same rows, or find training rows like those that are named here",
        Places(other.origins[row] for row in most),
        [*telling, *(f'{other.origins[row]}: "{excerpt(other.texts[row])}"' for row in most[:EXAMPLES])], name)


def _lengths(train: _Sample, other: _Sample, name: str) -> Iterator[str]:
    """That rows of one part are longer, where they are."""
    ours, theirs = (int(np.median(list(map(len, sample.texts)))) for sample in (train, other))
    if max(ours, theirs) > LONGER * min(ours, theirs):
        yield f"half of the rows of {name} are longer than {theirs:,} characters, half of those of train than {ours:,}"


def _words(ours: Sequence[set[str]], theirs: Sequence[set[str]], name: str) -> Iterator[str]:
    """The tokens whose shares differ most for what chance does: `'refund' is in 31% of test and 4% of train, …`."""
    mine, other = (Counter(token for tokens in sample for token in tokens) for sample in (ours, theirs))
    tokens = sorted(token for token in {*mine, *other} if not token.startswith(LENGTH))
    a, b = (np.array([counts[token] / len(sample) for token in tokens])
            for counts, sample in ((mine, ours), (other, theirs)))
    both = (a * len(ours) + b * len(theirs)) / (len(ours) + len(theirs))
    deviations = np.abs(a - b) / np.sqrt(both * (1 - both) * (1 / len(ours) + 1 / len(theirs)) + 1e-9)
    most = [i for i in np.argsort(-deviations, kind="stable")[:TELLING] if deviations[i] >= DEVIATIONS]
    if most:
        yield ", ".join(f"{'capitals are' if tokens[i] == CAPITALS else f'{tokens[i]!r} is'} in {b[i]:.0%} of {name} "
                        f"and {a[i]:.0%} of train" for i in most)
