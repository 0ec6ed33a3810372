"""What a check is: it sees every row once, in chunks, and says at the end what it found.

To add one, write `checks/<name>.py` with a class `Check(base.Check)`. Memory must stay bounded: keep numbers, hashes
and places, never rows. A check that needs more looks at a sample and says so in `what`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from tuneloop.data.findings import Finding
from tuneloop.types import Conversation, Message, Origin, Preference, Prompt, Ranked, Rated, Rollout, Sample, Text


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of one part, side by side: n origins, samples, raw rows, and the texts made of them."""

    part: str                               # train | validation | test; evaluation: a set given to compare with
    origins: Sequence[Origin]               # (n,)
    samples: Sequence[Sample]               # (n,)
    values: Sequence[dict[str, Any]]        # (n,) the rows as the file has them

    def __len__(self) -> int:
        return len(self.origins)

    @cached_property
    def prompts(self) -> list[str]:
        """(n,) What a model is asked: all turns before the answer, one below the other; empty for plain text."""
        return [turns_text(sample.prompt) for sample in self.samples]

    @cached_property
    def answers(self) -> list[str]:
        """(n,) The answer to learn; of several the best one; of plain text all of it."""
        return [sample.answer for sample in self.samples]

    @cached_property
    def texts(self) -> list[str]:
        """(n,) Prompt and every answer, one below the other."""
        return [text_of(sample) for sample in self.samples]


class Check:
    """A check begins anew for every report: it is made without arguments, and may keep what it has seen."""

    about: ClassVar[str] = ""
    """What it looks for, for the report's list of checks: `exact and near duplicates, also across parts`."""

    needs_all: ClassVar[bool] = False
    """Whether the first rows alone would mislead it, as those of a file that is sorted by label do."""

    def see(self, chunk: Chunk) -> None:
        """Look at rows; called with every chunk in order."""
        raise NotImplementedError

    def findings(self) -> list[Finding]:
        """What was found; asked once, after the last chunk."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Plain JSON values for the report that are no findings: `{"languages": {"en": 0.98}}`. After `findings`."""
        return {}


def turns_text(turns: Sequence[Message]) -> str:
    return "\n".join(turn.content for turn in turns if turn.content)


def text_of(sample: Sample) -> str:
    return "\n".join(filter(None, [turns_text(sample.prompt), *answers_of(sample)]))


def answers_of(sample: Sample) -> tuple[str, ...]:
    """Every answer that a row holds."""
    match sample:
        case Conversation() | Rated():
            return (sample.answer,)
        case Preference():
            return sample.chosen, sample.rejected
        case Rollout() | Ranked():
            return sample.answers
        case Prompt():
            return sample.references
        case Text():
            return (sample.text,)
