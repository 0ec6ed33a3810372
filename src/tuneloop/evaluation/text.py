"""How the report writes numbers and names; an unknown value is an empty string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(share: float) -> str:
    """0.835 as 83.5%."""
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def perplexity(value: float, sign: str = "") -> str:
    """Two decimals, or none above 100; `sign` is + for a difference."""
    return f"{value:{sign},.{2 if abs(value) < 100 else 0}f}".replace("-", "−")


def number(value: float | None) -> str:
    """With thousands apart; fractions to four digits."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) or abs(value) >= 10_000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def file_size(size: float | None) -> str:
    """Bytes in decimal units."""
    if size is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def words(name: str) -> str:
    """A key as words, without the unit that `plain` writes with the value; what is no key (a file name) stays."""
    if not name.isidentifier():
        return name
    for unit in ("_seconds", "_bytes"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def plain(value: Any, key: str = "") -> str:
    """A JSON scalar, or a flat list, for people; `key` tells the unit."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key.endswith("_bytes"):
            return file_size(value)
        if key.endswith("_seconds"):
            return duration(value)
        return number(value)
    if isinstance(value, list):
        return ", ".join(plain(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items())
    return str(value)
