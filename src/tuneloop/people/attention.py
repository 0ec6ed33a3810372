"""Who reads, and who clicks at random: by items shown again in reverse, and by answers beside nonsense.

Two accounts of a person are weighed against each other. A careful one says the same again, and prefers an answer to
nonsense, with the probabilities below. One who clicks at random presses each key as often as they do altogether,
whatever is shown: leaning to one side, or to ties, is no sign of reading. The evidence is the log of the likelihood
ratio. The probability that a careful person is ever named, however often one looks, is at most 1 / ODDS (Ville 1939:
the ratio is a martingale). Someone whose care lies between the two may stay unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from tuneloop.people.items import AGAIN, NONSENSE, NONSENSE_ANSWER, STARS, Ask
from tuneloop.people.store import Said

ODDS = 99
SAME: dict[Ask, float] = {"compare": 0.75, "order": 0.75, "thumbs": 0.85, "stars": 0.9}
"""A careful person says the same again; of stars one more or less is the same."""
TOLD: dict[str, float] = {"told": 0.85, "unsure": 0.13, "fooled": 0.02}
"""A careful person finds an answer better than nonsense, or rates nonsense as bad; finds no difference; or likes it."""
State = Literal["reads", "at random", "not known yet"]


@dataclass(frozen=True)
class Attention:
    """What is known of one person."""

    annotator: str
    judged: int
    median_seconds: float | None
    first: int                  # of `decided` pairs those that went to the answer on the left
    decided: int
    again: int                  # items shown again
    same: int
    same_by_chance: float       # expected of someone who clicks at random
    nonsense: int               # times that nonsense was shown
    told: int
    fooled: int
    evidence: float             # above 0 for a careful person

    @property
    def state(self) -> State:
        sure = math.log(ODDS)
        return "reads" if self.evidence >= sure else "at random" if self.evidence <= -sure else "not known yet"

    def sentence(self) -> str:
        """For people."""
        said = {"reads": "reads what they judge", "at random": "seems to click at random",
                "not known yet": "not known yet whether they read"}[self.state]
        why = [f"{self.same} of {self.again} items shown again got the same verdict "
               f"({self.same_by_chance:.1f} by chance)"] * bool(self.again)
        why += [f"nonsense was told from an answer in {self.told} of {self.nonsense} tests"] * bool(self.nonsense)
        return f"{self.annotator}: {said}" + (f": {', and '.join(why)}" if why else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"state": self.state}


def attention(annotator: str, standing: Sequence[Said]) -> Attention:
    """Of one person's last words on everything."""
    verdicts = [said for said in standing if said.kind == "verdict"]
    real = {said.item: said for said in verdicts if not said.check}
    habits = _Habits(real.values())
    again = [(real[base], said) for said in verdicts if said.check == AGAIN
             and (base := said.item.removesuffix(AGAIN)) in real]
    chances = [habits.says_again(first, said) for first, said in again]
    same = [_says_the_same(first, said) for first, said in again]
    tests = [(said, outcome(said)) for said in verdicts if said.check == NONSENSE]
    evidence = sum(_weight(is_same, SAME[said.ask], chance) for is_same, chance, (_, said) in
                   zip(same, chances, again, strict=True))
    evidence += sum(math.log(TOLD[found] / habits.of_nonsense(said)[found]) for said, found in tests)
    pairs = [said.verdict.place(said.shown) for said in real.values() if len(said.shown) == 2]
    seconds = [said.seconds for said in verdicts if said.seconds is not None]
    found = Counter(result for _, result in tests)
    return Attention(annotator, len(real), median(seconds) if seconds else None, pairs.count("0"),
                     pairs.count("0") + pairs.count("1"), len(again), sum(same), sum(chances), len(tests),
                     found["told"], found["fooled"], evidence)


def _weight(happened: bool, if_careful: float, if_random: float) -> float:
    return math.log(if_careful / if_random) if happened else math.log((1 - if_careful) / (1 - if_random))


def _says_the_same(first: Said, again: Said) -> bool:
    if first.ask == "stars":
        return abs((first.verdict.stars or 0) - (again.verdict.stars or 0)) <= 1
    return _target(first, again) == again.verdict.place(again.shown)


def _target(first: Said, again: Said) -> str:
    """The key that would say again what was said first."""
    place = first.verdict.place(first.shown)
    return str(again.shown.index(first.shown[int(place)])) if place.isdecimal() and first.ask in ("compare", "order") \
        else place


def outcome(said: Said) -> str:
    """What became of an item with nonsense: `told`, `fooled` or `unsure`."""
    verdict = said.verdict
    if verdict.liked is not None:
        return "fooled" if verdict.liked else "told"
    if verdict.stars is not None:
        return "told" if verdict.stars <= 2 else "fooled" if verdict.stars > 3 else "unsure"
    place = verdict.place(said.shown)
    if not place.isdecimal():
        return "unsure"
    return "fooled" if said.shown[int(place)] == NONSENSE_ANSWER else "told"


class _Habits:
    """How often somebody presses each key, whatever is shown: counted over real items, each key once more than it was
    pressed.
    """

    def __init__(self, real: Iterable[Said]) -> None:
        self._counts: dict[tuple[Ask, int], Counter[str]] = {}
        for said in real:
            self._counts.setdefault((said.ask, len(said.shown)), Counter())[said.verdict.place(said.shown)] += 1

    def shares(self, ask: Ask, shown: int) -> Mapping[str, float]:
        keys = _keys(ask, shown)
        counts = self._counts.get((ask, shown), Counter())
        total = sum(counts.values()) + len(keys)
        return {key: (counts[key] + 1) / total for key in keys}

    def says_again(self, first: Said, again: Said) -> float:
        """The probability that a random click says the same again."""
        shares = self.shares(again.ask, len(again.shown))
        if again.ask == "stars":
            return sum(share for key, share in shares.items() if abs(int(key) - (first.verdict.stars or 0)) <= 1)
        return shares[_target(first, again)]

    def of_nonsense(self, said: Said) -> Mapping[str, float]:
        """The probability of each outcome under random clicks."""
        shares = self.shares(said.ask, len(said.shown))
        if said.ask == "thumbs":
            return {"told": shares["disliked"], "fooled": shares["liked"]}
        if said.ask == "stars":
            return {"told": shares["1"] + shares["2"], "unsure": shares["3"], "fooled": shares["4"] + shares["5"]}
        nonsense = said.shown.index(NONSENSE_ANSWER)
        return {"told": shares[str(1 - nonsense)], "fooled": shares[str(nonsense)],
                "unsure": shares["tie"] + shares["bad"]}


def _keys(ask: Ask, shown: int) -> list[str]:
    if ask == "thumbs":
        return ["liked", "disliked"]
    if ask == "stars":
        return [str(n + 1) for n in range(STARS)]
    return [*map(str, range(shown)), "tie", "bad"]
