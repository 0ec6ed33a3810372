"""How far the judging is: who judged how much, how they agree, who clicks at random, and what a model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.people.agreement import Agreement, WithPeople, agreements, with_people
from tuneloop.people.attention import Attention, attention
from tuneloop.people.store import Judgements


@dataclass(frozen=True)
class Standing:
    """For the page and the terminal."""

    items: int                      # that there are to judge
    people: Sequence[Attention]
    agreements: Sequence[Agreement]
    judges: Sequence[WithPeople]
    edits: int
    comments: int

    @property
    def at_random(self) -> list[str]:
        """Who seems to click at random."""
        return [one.annotator for one in self.people if one.state == "at random"]

    def lines(self) -> list[str]:
        """For the terminal."""
        if not self.people and not self.judges:
            return ["Nobody has judged anything yet."]
        found = []
        for one in self.people:
            pace = f", {one.median_seconds:.0f} s each" if one.median_seconds is not None else ""
            side = f", the first in {one.first:,} of {one.decided:,}" if one.decided else ""
            found.append(f"{one.annotator}: {one.judged:,} of {self.items:,}{pace}{side}")
        found += [one.sentence() for one in self.people if one.again or one.nonsense]
        found += [one.sentence() for one in self.agreements]
        found += [f"  {b.first} and {b.second}: {b.shared:,} in common, {b.same:.0%} the same" + (
            "" if b.kappa is None else f", kappa {b.kappa:.2f}")
            for one in self.agreements if len(one.people) > 2 for b in one.between]
        found += [one.sentence() for one in self.judges]
        found += [f"edited answers: {self.edits:,}"] * bool(self.edits)
        found += [f"comments: {self.comments:,}"] * bool(self.comments)
        return found

    def to_json(self) -> dict[str, Any]:
        return {"items": self.items, "people": [one.to_json() for one in self.people],
                "at_random": self.at_random, "agreement": [one.to_json() for one in self.agreements],
                "judges": [one.to_json() for one in self.judges], "edits": self.edits, "comments": self.comments}


def standing_of(items: int, store: Judgements) -> Standing:
    """As it is now."""
    store.look()
    people = {name: store.standing(name) for name in store.annotators("person")}
    judges = [said for name in store.annotators("model") for said in store.standing(name)]
    everything = [said for of in people.values() for said in of]
    return Standing(items, [attention(name, of) for name, of in people.items()], agreements(everything),
                    with_people(everything, judges), sum(said.kind == "edit" for said in everything),
                    sum(bool(said.comment) for said in everything))
