"""Other labels for rows: mapped one by one, merged, or each in its usual spelling."""

from __future__ import annotations

import difflib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tuneloop.data.findings import Places
from tuneloop.data.fixes import base
from tuneloop.data.fixes.base import Applied, Change, Item, Tools, count_of
from tuneloop.data.labels.place import AnswerPlace, answer_place
from tuneloop.data.labels.spelling import usual_spellings
from tuneloop.errors import UserError, raise_all

LISTED = 20             # labels in a message


def _label(value: Any) -> Any:
    """Numbers and the like as data files write them."""
    return json.dumps(value) if isinstance(value, bool | int | float) else value


Label = Annotated[str, BeforeValidator(_label)]


class Fix(base.Fix):
    """Labels are compared without the white space around them, and written without it."""

    about: ClassVar[str] = "maps and merges labels; without a map, writes each label as most rows write it"

    kind: Literal["relabel"] = "relabel"
    column: str | None = None
    """Where the labels are; the answers unless given."""
    map: dict[Label, Label] = Field(default_factory=dict)
    """The new label for each old one: {pos: positive, neg: negative}."""
    merge: dict[Label, tuple[Label, ...]] = Field(default_factory=dict)
    """The old labels for each new one: {complaint: [angry, disappointed]}."""

    @model_validator(mode="after")
    def _each_once(self) -> Fix:
        named = [*self.map, *(old for olds in self.merge.values() for old in olds)]
        if twice := sorted(label for label, count in Counter(named).items() if count > 1):
            raise ValueError(f"one new label for each old one; there are several for {', '.join(twice)}")
        return self

    def apply(self, items: Sequence[Item], tools: Tools) -> Applied:
        place = place_of_labels(items, self.column, "relabel")
        written = [place.read(item.values) for item in items]
        counts = Counter(label for label in written if label is not None)
        wanted = self.map | {old: new for new, olds in self.merge.items() for old in olds}
        if wanted:
            _check_known(wanted, {label.strip() for label in counts})
            why = "the map of labels"
        else:
            wanted, why = usual_spellings(counts), "most rows write the label so"
        rows, changed = [], defaultdict[tuple[str, str], Places](Places)
        for item, old in zip(items, written, strict=True):
            new = old if old is None else _new(old, wanted)
            if old is None or new is None or new == old:
                rows.append(item)
            else:
                rows.append(tools.changed(item, place.write(item.values, new)))
                changed[old, new].add(item.origin)
        return Applied(rows, [Change(f"{count_of(where)} changed from {json.dumps(old, ensure_ascii=False)} to "
                                     f"{json.dumps(new, ensure_ascii=False)}", why, where)
                              for (old, new), where in changed.items()])


def _new(label: str, wanted: Mapping[str, str]) -> str:
    return wanted.get(label, wanted.get(label.strip(), label)).strip()


def _check_known(wanted: Mapping[str, str], labels: set[str]) -> None:
    """A label that no row has is a slip of the person who typed the map."""
    problems = []
    for old in wanted:
        if old not in labels:
            near = difflib.get_close_matches(old, labels, n=1)
            problems.append(UserError(f'relabel: no row has the label "{old}".',
                                      wanted=f"one of: {', '.join(sorted(labels)[:LISTED])}",
                                      fix=f'did you mean "{near[0]}"?' if near else ""))
    raise_all(problems)


def place_of_labels(items: Sequence[Item], column: str | None, fix: str) -> AnswerPlace:
    """The column that is named, else where the answers are. Raises UserError where there is none."""
    if column is None:
        if place := answer_place((item.values, item.sample.answer) for item in items):
            return place
        found = f"{fix}: no column holds the answers as they are."
    elif any(column in item.values for item in items):
        return AnswerPlace(column)
    else:
        found = f'{fix}: no row has the column "{column}".'
    columns = dict.fromkeys(name for item in items for name in item.values)
    raise UserError(found, wanted=f"one of: {', '.join(columns)}", fix=f"name the column of the labels: {fix} column=…")
