"""How small a difference can n rows show, and how many rows does a wanted difference need?"""

from __future__ import annotations

import math
from statistics import NormalDist

from tuneloop.evaluation.intervals import LEVEL

POWER = 0.8
"""How often a difference of this size is then found."""
WORST_DISAGREEMENT = 0.5
"""Two models that are each right on half of the rows, regardless of one another, disagree about as often."""

_Z_LEVEL, _Z_POWER = NormalDist().inv_cdf((1 + LEVEL) / 2), NormalDist().inv_cdf(POWER)


def smallest_difference(rows: int, disagreement: float = WORST_DISAGREEMENT) -> float:
    """The smallest difference of two shares of right answers, in [0, 1], that `rows` show with 80 % power at 95 %.

    `disagreement` is the share of rows that only one of the models gets right. It solves the formula of `rows_for` for
    the difference, which cannot be more than the disagreement: where that would be needed, the models would have to
    disagree more often, and always in favour of one. 1.0 where no difference can be shown.
    """
    inside = rows - _Z_LEVEL ** 2 + _Z_POWER ** 2
    if inside > 0:
        roots = math.sqrt(rows) * _Z_LEVEL + _Z_POWER * math.sqrt(inside)
        found = math.sqrt(disagreement) * roots / (rows + _Z_POWER ** 2)
        if 0 < found <= disagreement:
            return min(1.0, found)
    # every disagreement in favour of one model: rows * d = (z_level + z_power * sqrt(1 - d))**2, by bisection
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rows_for(middle, middle) <= rows else (middle, high)
    return high


def rows_for(difference: float, disagreement: float = WORST_DISAGREEMENT) -> int:
    """How many rows show `difference` of two shares of right answers with 80 % power at 95 %.

    Connor 1987, Biometrics 43, 207-211, for McNemar's test, d the difference and q the disagreement:
    n = (z_0.975 * sqrt(q) + z_0.8 * sqrt(q - d**2))**2 / d**2. Deviation: q is at least d, without which there is no
    such difference.
    """
    d = abs(difference)
    if not 0 < d <= 1:
        raise ValueError(f"a difference of shares lies in (0, 1], not {difference}")
    q = max(disagreement, d)
    return math.ceil((_Z_LEVEL * math.sqrt(q) + _Z_POWER * math.sqrt(q - d ** 2)) ** 2 / d ** 2 - 1e-9)


def smallest_of_error(standard_error: float) -> float:
    """The smallest difference of any metric that is shown with 80 % power at 95 %, from its standard error.

    (z_0.975 + z_0.8) * standard error, the normal approximation; that of a bootstrap is the standard deviation of its
    resamples, which scales with 1/sqrt(rows).
    """
    return (_Z_LEVEL + _Z_POWER) * standard_error


def advice(rows: int, disagreement: float | None = None) -> str:
    """One sentence, such as "400 rows can only show differences above 4 points". None: before anything was measured."""
    q = WORST_DISAGREEMENT if disagreement is None else disagreement
    points = smallest_difference(rows, q) * 100
    if points > 99.9:
        return f"{rows:,} {'row' if rows == 1 else 'rows'} cannot show any difference."
    shown = f"{points:.0f}" if points >= 10 else f"{points:.2g}"
    unit = "point" if shown == "1" else "points"
    why = (f"if the models disagree on as many as {q:.0%} of them" if disagreement is None
           else f"as the models disagree on {q:.1%} of them")
    return (f"{rows:,} {'row' if rows == 1 else 'rows'} can only show differences above {shown} {unit} "
            f"({why}; {POWER:.0%} power at {LEVEL:.0%}).")
