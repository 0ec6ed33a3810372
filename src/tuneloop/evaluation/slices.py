"""Where is a model good, and where not? The same metric on parts of the rows: by label, file, length, language, column.

A slice is a name and the numbers of its rows; a row may lie in several slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneloop.evaluation.compare import Comparison, Stack, compare
from tuneloop.types import Ints

FEWEST_ROWS = 20
"""Below, the interval of a share is about 40 points wide: such a slice would only be named by chance."""
NAMED = 3
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class SliceReport:
    """One metric on every slice that has enough rows, each with what it gained, corrected across the slices (Holm)."""

    metric: str
    slices: tuple[Comparison, ...]
    too_few: dict[str, int]         # slices that were left out, with their rows
    worst: tuple[str, ...]          # where the second model scores worst, the worst first
    fell: tuple[str, ...]           # where it is worse than the first, beyond chance

    @property
    def sentences(self) -> list[str]:
        """What a reader must know, each as one plain sentence."""
        by_name = {one.slice: one for one in self.slices}
        told = []
        if self.worst:
            told.append("Weakest: " + ", ".join(
                f"{name} ({(now := by_name[name].scores[1]).value:.3f}, 95 % interval {now.low:.3f} to {now.high:.3f}, "
                f"{by_name[name].rows:,} rows)" for name in self.worst) + ".")
        told += [f"{name} got worse: {by_name[name].scores[0].value:.3f} to {by_name[name].scores[1].value:.3f} "
                 f"(p = {by_name[name].p_holm:.2g} after Holm's correction)." for name in self.fell]
        if self.too_few:
            count = len(self.too_few)
            told.append(f"{count} {'slice has' if count == 1 else 'slices have'} fewer than {FEWEST_ROWS} rows and "
                        f"{'is' if count == 1 else 'are'} not judged ({sum(self.too_few.values()):,} rows).")
        return told

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for json.dumps."""
        return {"metric": self.metric, "slices": [one.to_json() for one in self.slices], "too_few": self.too_few,
                "fewest_rows": FEWEST_ROWS, "worst": list(self.worst), "fell": list(self.fell),
                "sentences": self.sentences}


def by_slice(stack: Stack, slices: Mapping[str, Ints], *, first: str = "base", second: str = "tuned",
             resamples: int = 2000, seed: int = 0) -> SliceReport:
    """The metric of both models and their difference on every slice of at least FEWEST_ROWS rows."""
    enough = {name: rows for name, rows in slices.items() if len(rows) >= FEWEST_ROWS}
    found = compare([stack], [(first, second)], enough, resamples=resamples, seed=seed) if enough else []
    better = 1 if stack.higher_is_better else -1
    ranked = sorted(found, key=lambda one: better * one.scores[1].value)
    fell = [one for one in found if better * one.gain.value < 0 and one.p_holm <= SIGNIFICANT]
    return SliceReport(stack.metric, tuple(found),
                       {name: len(rows) for name, rows in slices.items() if name not in enough},
                       tuple(one.slice for one in ranked[:NAMED]),
                       tuple(one.slice for one in sorted(fell, key=lambda one: better * one.gain.value)))


def slices_of(*, labels: Sequence[str] = (), files: Sequence[str] = (), prompts: Sequence[str] = (),
              language: Callable[[str], str | None] | None = None,
              columns: Mapping[str, Sequence[object]] | None = None) -> dict[str, Ints]:
    """Slices by whatever is given, one value for each row: "label: refund", "file: a.jsonl", "length: short (…)".

    `language` names that of a prompt, or None where it cannot tell. `columns` are the user's own, and come before ours
    of the same name. A slice that would hold every row is left out: that is no slice.
    """
    kinds: dict[str, Sequence[object]] = {"label": [label.strip() for label in labels], "file": files}
    if prompts:
        kinds["length"] = _thirds([len(prompt) for prompt in prompts])
    if prompts and language:
        kinds["language"] = [language(prompt) for prompt in prompts]
    kinds |= columns or {}
    return {f"{kind}: {value}": rows for kind, values in kinds.items() for value, rows in _groups(values).items()
            if len(rows) < len(values)}


def _groups(values: Sequence[object]) -> dict[str, Ints]:
    """The rows of each value, the most frequent first; rows without one belong nowhere."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        if value is not None and str(value) != "":
            rows[str(value)].append(row)
    return {value: np.array(of) for value, of in sorted(rows.items(), key=lambda item: -len(item[1]))}


def _thirds(lengths: Sequence[int]) -> list[str]:
    """Short, middle or long for each row, with the bounds in characters. Equal lengths are never parted."""
    first, second = (int(np.quantile(lengths, share, method="lower")) for share in (1 / 3, 2 / 3))
    return [f"short (up to {first:,} characters)" if length <= first
            else f"middle (up to {second:,} characters)" if length <= second
            else f"long (over {second:,} characters)" for length in lengths]
