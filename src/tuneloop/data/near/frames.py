"""What prompts are wrapped in: an instruction before or after each makes every two of them look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MOST, SOME = 0.5, 0.05      # shares of the prompts that begin, or end, alike
SHORT, LONG = 8, 40         # characters of what counts as a frame: where most have it, and where only some do
FEWEST = 10                 # prompts that share it


@dataclass(frozen=True)
class Frames:
    """How prompts begin and end, the longest first."""

    beginnings: Sequence[str] = ()
    endings: Sequence[str] = ()

    @classmethod
    def of(cls, prompts: Sequence[str]) -> Frames:
        """The frames of a sample of prompts; a prompt that most rows have is one as a whole."""
        different = Counter(prompts)        # equal prompts count once: they are duplicates, and not in a frame
        constant = {prompt for prompt, count in different.items() if count >= max(FEWEST, MOST * len(prompts))}
        endings = _shared_beginnings({prompt[::-1] for prompt in different})
        return cls(_longest_first(constant | _shared_beginnings(set(different))),
                   _longest_first({ending[::-1] for ending in endings}))

    def __or__(self, other: Frames) -> Frames:
        return Frames(_longest_first({*self.beginnings, *other.beginnings}),
                      _longest_first({*self.endings, *other.endings}))

    def without(self, prompt: str) -> str:
        """What is between its frames."""
        prompt = prompt[len(next(filter(prompt.startswith, self.beginnings), "")):]
        ending = next(filter(prompt.endswith, self.endings), "")
        return prompt[:len(prompt) - len(ending)].strip()


def _longest_first(texts: set[str]) -> list[str]:
    return sorted(texts - {""}, key=len, reverse=True)


def _shared_beginnings(texts: set[str]) -> set[str]:
    ordered = sorted(texts)
    found: set[str] = set()
    for share, least in ((MOST, SHORT), (SOME, LONG)):
        together = max(FEWEST, int(share * len(ordered)))
        for beginning in sorted(set(map(_same, ordered, ordered[together - 1:])), key=len):
            known = max((len(shorter) for shorter in found if beginning.startswith(shorter)), default=0)
            if len(beginning) - known >= least:
                found.add(beginning)
    return found


def _same(a: str, b: str) -> str:
    """How both begin; of sorted texts so begin all between them."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return a[:low]
