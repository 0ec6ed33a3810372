"""What most checks keep while they look: for every kind of thing all its rows, and a few examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence, Sized

from tuneloop.data.checks.base import Chunk
from tuneloop.data.findings import Finding, Places, Severity
from tuneloop.data.personal.mask import covered
from tuneloop.types import Conversation, Message, Origin, Prompt, Rated, Sample, Text

SHOWN_EXAMPLES = 3
EXCERPT = 60        # characters
_SINGULAR = {"have": "has", "are": "is", "do": "does"}


class Tally:
    """Rows by kind. A row is counted once for a kind, however often it is added; examples are shown masked."""

    def __init__(self, check: str) -> None:
        self.check = check
        self._rows: defaultdict[str, Places] = defaultdict(Places)
        self._examples: defaultdict[str, list[str]] = defaultdict(list)
        self._last: dict[str, Origin] = {}

    def add(self, kind: str, origin: Origin, example: str = "") -> None:
        if self._last.get(kind) is origin:
            return
        self._last[kind] = origin
        self._rows[kind].add(origin)
        shown = self._examples[kind]
        if example and len(shown) < SHOWN_EXAMPLES and (safe := covered(example)) not in shown:
            shown.append(safe)

    def rows(self, kind: str) -> Places:
        return self._rows.get(kind, Places())

    def finding(self, kind: str, severity: Severity, do: str, fix: str = "") -> Iterator[Finding]:
        """`12 rows` and what they `do`; nothing where no row does."""
        rows = self.rows(kind)
        if rows:
            yield Finding(self.check, severity, rows_that(rows, do), fix, rows, self._examples.get(kind, ()), kind)


def rows_that(rows: Sized, do: str) -> str:
    """`12 rows hold a key`, `1 row holds a key`."""
    if len(rows) != 1:
        return f"{len(rows):,} rows {do}"
    verb, _, rest = do.partition(" ")
    return f"1 row {_SINGULAR.get(verb, verb + 's')} {rest}"


def excerpt(text: str, start: int = 0, end: int | None = None) -> str:
    """What stands around `text[start:end]`, on one line and short."""
    end = min(start if end is None else end, start + EXCERPT)
    first = max(0, min(start - (EXCERPT - (end - start)) // 2, len(text) - EXCERPT))
    last = first + EXCERPT
    return "…" * (first > 0) + " ".join(text[first:last].split()) + "…" * (last < len(text))


def is_learnt(chunk: Chunk) -> bool:
    """Whether the rows are the user's own: those of a set to compare with are nobody's to mend."""
    return chunk.part != "evaluation"


def turns_of(sample: Sample) -> tuple[Message, ...]:
    """All turns, the answer last; of several answers the one to prefer. Evaluation samples only ask."""
    if isinstance(sample, Conversation):
        return sample.messages
    if isinstance(sample, Prompt):
        return sample.prompt
    return (*sample.prompt, Message("assistant", sample.answer))


def learnt_answers(sample: Sample) -> Sequence[str]:
    """What a model is to say: assistant turns with loss, the better answer of several, none that people disliked."""
    match sample:
        case Conversation():
            return [turn.content for turn in sample.messages if turn.role == "assistant" and turn.train]
        case Prompt() | Text() | Rated(desirable=False):
            return ()
    return (sample.answer,)
