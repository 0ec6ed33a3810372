"""The `data:` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tuneloop.spec import Spec

Share = Annotated[float, Field(ge=0)]


class Split(Spec):
    """How much is held out: a whole number is a count of rows, a fraction below 1 a share of them."""

    validation: Share = 0.1
    """Rows that decide when to stop; never trained on."""
    test: Share = 0.2
    """Rows that decide the verdict; never trained on, never looked at while training."""


class DataSpec(Spec):
    """Where the rows are and how to read them."""

    train: str
    """A file: .csv .tsv .json .jsonl, also .gz. Its row format is recognised and shown."""
    validation: str | None = None
    """A file of its own for validation rows; otherwise split off from train."""
    test: str | None = None
    """A file of its own for test rows; otherwise split off from train."""
    split: Split = Split()
    """How much is split off for whichever of validation and test has no file."""
    prompt: str | None = None
    """Template over the columns, such as "Is this review positive?\\n\\n{text}"; for plain columns."""
    answer: str | None = None
    """Template over the columns for the answer, such as "{label}"."""
    system: str | None = None
    """A system message put before every conversation that has none."""
    answers: Literal["auto", "labels", "open"] = "auto"
    """Whether answers are labels from a small set (scored by constrained choice) or open text."""
    max_length_tokens: Annotated[int, Field(ge=8)] | None = None
    """Longest row, in tokens; planned from the base and the rows unless given."""
    over_length: Literal["error", "drop"] = "error"
    """What to do with rows longer than that. An answer is never cut."""
    drop_empty: bool = False
    """Drop rows without an answer, and pairs that cannot be compared, instead of refusing the file."""
    max_train_rows: Annotated[int, Field(ge=1)] | None = None
    """Train on at most so many rows, drawn at random with the recipe's seed."""
