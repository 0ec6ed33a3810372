"""The `data:` part of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from tuneloop.data.fixes.base import Fix
from tuneloop.errors import UserError
from tuneloop.spec import Spec

Share = Annotated[float, Field(ge=0)]


class LeaveOut(Spec):
    """A kind of rows that a run does not see: clusters of rows with similar wording, one of them left out."""

    clusters: Annotated[int, Field(ge=2)]
    """Into how many clusters all rows are sorted, by what they ask; the largest is number 0."""
    cluster: Annotated[int, Field(ge=0)] | None = None
    """Which one is neither trained on nor validated with, and is tested on alone; null counts the clusters and leaves
    none out. `tuneloop run --leave-out-clusters K` does it with each."""

    @model_validator(mode="after")
    def _one_of_them(self) -> LeaveOut:
        if self.cluster is not None and self.cluster >= self.clusters:
            raise ValueError(f"a cluster from 0 to {self.clusters - 1}")
        return self


class Split(Spec):
    """How much is held out: a whole number is a count of rows, a fraction below 1 a share of them."""

    validation: Share = 0.1
    """Rows that decide when to stop; never trained on."""
    test: Share = 0.2
    """Rows that decide the verdict; never trained on, never looked at while training."""
    group: str | None = None
    """A column: rows with the same value in it are held out together, such as all rows of one customer."""
    time: str | None = None
    """A column with dates or numbers: the newest rows are held out, as when the model is used."""
    leave_out: LeaveOut | None = None
    """Train without one cluster of rows with similar wording, and test on that alone: {clusters: 4, cluster: 0}."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Split:
        if self.group and self.time:
            raise ValueError("group or time, not both")
        return self


class MixedSource(Spec):
    """Rows of another source among the training rows: general rows against forgetting, safety rows."""

    source: Annotated[str, Field(alias="from")]
    """A file, or another source of rows, such as general.jsonl or builtin:safety."""
    weight: Annotated[float, Field(gt=0, lt=1)]
    """Its share of the training rows: with 0.1 one of ten."""
    when_short: Literal["take_all", "repeat"] = "take_all"
    """What to do where it has fewer rows than that: take each once, or take them again until the share is met."""
    prompt: str | None = None
    """Template over its columns, as data.prompt."""
    answer: str | None = None
    """Template over its columns, as data.answer."""


def _room_for_own_rows(mix: tuple[MixedSource, ...]) -> tuple[MixedSource, ...]:
    if sum(source.weight for source in mix) >= 1:
        raise ValueError("weights that add up to less than 1: they are shares of the training rows, and the rows of "
                         "data.train are the rest")
    return mix


def _fix(entry: Any) -> Fix:
    from tuneloop.data.fix import parse

    try:
        return parse(entry)
    except UserError as error:
        raise ValueError(" ".join(filter(None, [error.found, error.wanted and f"Wanted: {error.wanted}.",
                                                error.fix]))) from error


FixEntry = Annotated[SerializeAsAny[Fix], BeforeValidator(_fix), WithJsonSchema({"anyOf": [
    {"type": "string"},
    {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}]})]
"""`deduplicate`, or `{kind: redact, kinds: [email]}`."""


class DataSpec(Spec):
    """Where the rows are and how to read them."""

    train: str
    """A file: .csv .tsv .json .jsonl, also .gz. Its row format is recognised and shown."""
    validation: str | None = None
    """A file of its own for validation rows; otherwise split off from train."""
    test: str | None = None
    """A file of its own for test rows; otherwise split off from train."""
    evaluation_sets: tuple[str, ...] = ()
    """Files or other sources of evaluation rows, which training rows must not repeat."""
    fix: tuple[FixEntry, ...] = ()
    """What is mended in the rows as they are read, in this order: [deduplicate, {kind: redact, kinds: [email]}]."""
    mix: Annotated[tuple[MixedSource, ...], AfterValidator(_room_for_own_rows)] = ()
    """Rows of other sources among the training rows: [{from: general.jsonl, weight: 0.1}]."""
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
    canaries: Annotated[int, Field(ge=0, le=100)] = 0
    """Put so many rows with a random secret each among the training rows, and measure whether the model learns them by
    heart."""
