"""Mend characters and white space."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from tuneloop.data.characters import CONTROL, outside_code, repaired, without_needless
from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, count_of, map_texts
from tuneloop.data.personal.mask import covered

SHOWN = 3
EXCERPT = 30        # characters on either side of the first difference

_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")
_RUN = re.compile(r"(?<=\S) {2,}(?=\S)")
_RULED = re.compile(r"[|\t]")
_COLUMNS = re.compile(r"(?:^.*[^\s.!?:;,] {2,}\S.*(?:\n|\Z)){2}", re.MULTILINE)
"""Runs of spaces in two lines running, other than after a full stop: a table, or a drawing."""
_CODE = re.compile(r"[;{}]$|^\s*(?:def |class |import |from \w+ import|return\b|#include|(?:if|for|while) .*[:{]$)",
                   re.MULTILINE)


class Fix(base.Fix):
    """Rows with whole characters, one way to write each, and no white space to spare; code keeps its spaces."""

    about: ClassVar[str] = "mends mojibake, Unicode forms, invisible characters, line ends and white space"

    kind: Literal["normalise"] = "normalise"
    form: Literal["NFC", "NFKC"] = "NFC"
    """The Unicode form. NFKC also writes ﬁ as fi, ² as 2, and full-width letters as plain ones."""

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        rows: list[Item] = []
        places: defaultdict[str, Places] = defaultdict(Places)
        examples: defaultdict[str, list[str]] = defaultdict(list)
        steps = self._steps()
        for item in items:
            values = item.values
            for what, _, step in steps:
                mended = map_texts(values, step)
                if mended != values:
                    places[what].add(item.origin)
                    if len(places[what]) <= SHOWN:
                        examples[what].append(_before_after(values, mended))
                values = mended
            rows.append(tools.changed(item, values))
        return Applied(rows, [Change(f"{count_of(places[what])}: {what}", why, places[what], examples[what])
                              for what, why, _ in steps if places[what]])

    def _steps(self) -> list[tuple[str, str, Callable[[str], str]]]:
        """What is done, why, and how; in this order."""
        return [
            ("mojibake read in its right encoding", "UTF-8 had been read as another encoding", repaired),
            ("line ends made \\n", "a model would learn several ways to end a line", partial(_LINE_ENDS.sub, "\n")),
            ("control and invisible characters removed", "nobody sees them, but a model reads them", _visible),
            (f"written in {self.form}", "equal words are then equal to a model",
             partial(unicodedata.normalize, self.form)),
            ("white space to spare removed", "what is left at line ends and between words is learnt, too", _tidy),
        ]


def _visible(text: str) -> str:
    return without_needless(CONTROL.sub("", text))


def _tidy(text: str) -> str:
    """Without white space at either end, at line ends, in runs between words, and in more than one empty line."""
    return outside_code(text.rstrip() if _CODE.search(text) else text.strip(), _tidy_prose)


def _tidy_prose(text: str) -> str:
    lines = _EMPTY_LINES.sub("\n\n", _TRAILING.sub("", text))
    if "  " not in lines or _CODE.search(lines) or _COLUMNS.search(lines):
        return lines
    return "\n".join(line if _RULED.search(line) else _RUN.sub(" ", line) for line in lines.split("\n"))


def _before_after(old: Any, new: Any) -> str:
    """The first text that differs, before and after, around its first difference."""
    before, after = next(_differing(old, new))
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    window = slice(max(0, at - EXCERPT), at + EXCERPT)
    return covered(f"{before[window]!r} → {after[window]!r}")


def _differing(old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if isinstance(old, str):
        if old != new:
            yield old, new
    elif isinstance(old, list | dict):
        pairs = zip(old.values(), new.values(), strict=True) if isinstance(old, dict) else zip(old, new, strict=True)
        for pair in pairs:
            yield from _differing(*pair)
