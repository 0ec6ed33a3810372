"""The order of turns in chats: who speaks, after whom, and whether anything is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tuneloop.data.checks import base
from tuneloop.data.checks._tally import Tally, excerpt, is_learnt, turns_of
from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding
from tuneloop.types import Message, Origin, Text

_SPEAKER = re.compile(r"^(?:(?:User|Human|Assistant|AI|Bot|System)\s?: |### ?(?:Instruction|Response|Input):)",
                      re.MULTILINE)
_FEWEST_SPEAKERS = 2


class Check(base.Check):
    """Chats that templates refuse or that teach an odd course of talk."""

    about = "the order of turns: no user turn, one role twice in a row, empty turns, some rows without a system message"

    def __init__(self) -> None:
        self._tally = Tally("turns")
        self._rows = 0

    def see(self, chunk: Chunk) -> None:
        if not is_learnt(chunk):
            return
        for origin, sample in zip(chunk.origins, chunk.samples, strict=True):
            if not isinstance(sample, Text):
                self._rows += 1
                self._look(origin, turns_of(sample))

    def _look(self, origin: Origin, turns: Sequence[Message]) -> None:
        roles = [turn.role for turn in turns]
        talk = [turn for turn in turns if turn.role != "system"]
        self._tally.add("with_system" if "system" in roles else "without_system", origin)
        if "user" not in roles:
            self._tally.add("no_user", origin, " → ".join(roles))
        elif talk[0].role != "user":
            self._tally.add("not_user_first", origin, " → ".join(roles[:4]))
        if "system" in roles[1:]:
            self._tally.add("late_system", origin, " → ".join(roles[:4]))
        for earlier, later in pairwise(talk):
            if earlier.role == later.role in ("user", "assistant") and not (earlier.calls or later.calls):
                self._tally.add("twice", origin, f"two {later.role} turns: {excerpt(later.content)}")
        if silent := [turn.role for turn in turns if not (turn.content.strip() or turn.calls or turn.media)]:
            self._tally.add("empty", origin, f"an empty {silent[0]} turn")
        for turn in talk[-1:]:
            speakers = _SPEAKER.findall(turn.content)
            if len(speakers) >= _FEWEST_SPEAKERS and len(set(speakers)) > 1:
                self._tally.add("speakers", origin, excerpt(turn.content))

    def findings(self) -> list[Finding]:
        told, without = self._tally.finding, self._tally.rows("without_system")
        mixed = without and len(without) <= self._rows / 2
        return [
            *told("no_user", "fix", "have no user turn, so the model learns to speak without being asked",
                  "put the question before the answer, or drop them: tuneloop data fix FILE drop checks=turns "
                  "kinds=no_user"),
            *told("not_user_first", "fix", "do not begin with the user, which many chat templates refuse",
                  "begin with a user turn, or move the first one into the system message"),
            *told("late_system", "fix", "have a system message that is not the first, which many chat templates "
                  "refuse or move", "put it first, or into the turn that it belongs to"),
            *told("twice", "fix", "have two turns of one role in a row, which many chat templates refuse",
                  "join them into one turn, or put in the turn that is missing between them"),
            *told("empty", "fix", "have a turn that says nothing",
                  "write what was said, or drop them: tuneloop data fix FILE drop checks=turns kinds=empty"),
            *told("speakers", "note", "have an answer that goes on with turns of its own (User: …, Assistant: …)",
                  "cut such an answer where the next turn begins, or make turns of it"),
            *(told("without_system", "note", "have no system message, while the others have one",
                   "give data.system, which is put before rows without one") if mixed else ()),
        ]
