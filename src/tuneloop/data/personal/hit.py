"""What a detector finds in a text."""

from __future__ import annotations

from typing import NamedTuple


class Hit(NamedTuple):
    """`text[start:end]` is a piece of personal data, or a secret, of this kind.

    `public` tells values that are nobody's secret: made for documentation and tests, private ranges, or the address of
    an office rather than of a person.
    """

    kind: str
    start: int
    end: int
    public: bool = False
