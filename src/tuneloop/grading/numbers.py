"""A metric of answers that end in a number, as those to sums do."""

from __future__ import annotations

import math
import re

import numpy as np

from tuneloop.errors import UserError
from tuneloop.grading.registry import Scores, View, metric

# Spaces that do not break a line, apostrophes and underscores group digits in some countries or languages
_GROUPS = "\u00a0\u2009\u202f'\u2019_"
_NUMBER = re.compile(rf"""
    (?P<sign>(?<![\w.,)])[-−+]\s?)?                     # not the dash of 3-4 or x-1
    [$€£¥]?\s?
    (?P<digits>\d+(?:[.,{_GROUPS}]\d+)*|(?<!\w)\.\d+)
    (?P<power>[eE][-+]?\d+(?![\w.]))?""", re.VERBOSE)


@metric("open", view=True, default=False)
def numeric(view: View) -> Scores:
    """1 where the last number of the answer is the last number of the reference, within `options.tolerance`.

    The tolerance is absolute, and relative to the larger of the two (`math.isclose`). An answer without a number
    scores 0; so does one that goes on to another number after the right one.
    """
    wanted = [last_number(reference) for reference in view.references]
    if None in wanted:
        row = wanted.index(None)
        raise UserError(f"numeric needs a number in every reference, but that of test row {row + 1} has none: "
                        f"{view.references[row][:60]!r}.", fix="choose another metric, such as exact_match")
    given = [last_number(answer) for answer in view.answers.texts]
    tolerance = view.options.tolerance
    return np.array([g is not None and w is not None and math.isclose(w, g, rel_tol=tolerance, abs_tol=tolerance)
                     for w, g in zip(wanted, given, strict=True)], dtype=np.float64)


def last_number(text: str) -> float | None:
    """The last number of a text, or None: `1,234.50` and `1.234,50` are one number, `-$5` is -5, `50 %` is 50.

    A plain space ends a number, so that `1 000` is two; a no-break space groups digits.

    Of points and commas, the last kind is the decimal one, unless it occurs twice or is a comma before three digits.
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    digits = re.sub(f"[{_GROUPS}]", "", found["digits"])
    point = max(digits.rfind("."), digits.rfind(","))
    if point >= 0:
        mark, other = digits[point], "," if digits[point] == "." else "."
        # 1,234 and 1,234,567 and 1.234.567 hold no decimals; 1.234 and 1,5 and 1,234.5 and 1.234,567 do
        grouped = digits.count(mark) > 1 or (mark == "," and other not in digits and len(digits) - point == 4)
        digits = digits.replace(other, "")
        digits = digits.replace(mark, "") if grouped else digits.replace(mark, ".")
    value = float(digits + (found["power"] or ""))
    return -value if (found["sign"] or "").startswith(("-", "−")) else value
