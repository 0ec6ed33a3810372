"""Put placeholders in the place of personal data and secrets."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import ClassVar, Literal

from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, Values, count_of, map_texts
from tuneloop.data.personal.find import KINDS, Kind, find_personal

_IN_DIGITS = ("card", "ssn", "phone")
_NO_DIGIT = re.compile(r"\D")
_SPACE = re.compile(r"[\s-]")


class Fix(base.Fix):
    """Rows with `[EMAIL_1]`, `[CARD_1]` … in the place of what was found; one value has one number in a row.

    Every text of a row is looked at, also in columns that the model does not see. What is public stays: addresses of
    offices, private networks, numbers made for documentation.
    """

    about: ClassVar[str] = "puts placeholders such as [EMAIL_1] in the place of personal data and secrets"

    kind: Literal["redact"] = "redact"
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """Kinds to replace, as the check `personal` names them; all unless given."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        redacted: list[Item] = []
        rows: defaultdict[str, Places] = defaultdict(Places)
        total: Counter[str] = Counter()
        for item in items:
            row = _Row(self.kinds)
            redacted.append(tools.changed(item, row.redacted(item.values)))
            for kind in row.replaced:
                rows[kind].add(item.origin)
            total += row.replaced
        return Applied(redacted, [_change(kind, total[kind], rows[kind]) for kind in KINDS if total[kind]])


def _change(kind: Kind, replaced: int, rows: Places) -> Change:
    return Change(f"{replaced:,} replaced by [{kind.upper()}_1] and so on, in {count_of(rows)}",
                  f"each was {KINDS[kind]}", rows)


class _Row:
    """One row's placeholders."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = kinds
        self.numbers: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.replaced: Counter[str] = Counter()

    def redacted(self, values: Values) -> Values:
        changed: Values = map_texts(values, self._text)
        return changed

    def _text(self, text: str) -> str:
        """A text that is itself JSON is changed within, so that it stays JSON."""
        if text.startswith(("{", "[")):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return self._plain(text)
            changed = map_texts(value, self._text)
            return text if changed == value else json.dumps(changed, ensure_ascii=False)
        return self._plain(text)

    def _plain(self, text: str) -> str:
        pieces, at = [], 0
        for hit in find_personal(text):
            if hit.kind in self.kinds and not hit.public:
                pieces += [text[at:hit.start], self._placeholder(hit.kind, text[hit.start:hit.end])]
                at = hit.end
        return "".join(pieces) + text[at:]

    def _placeholder(self, kind: str, value: str) -> str:
        self.replaced[kind] += 1
        same = _NO_DIGIT.sub("", value) if kind in _IN_DIGITS else _SPACE.sub("", value).casefold()
        numbers = self.numbers[kind]
        return f"[{kind.upper()}_{numbers.setdefault(same, len(numbers) + 1)}]"
