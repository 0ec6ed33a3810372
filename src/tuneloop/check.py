"""`tuneloop check`: of a recipe's rows, or of any data files, everything that can be said before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.data.checks.base import Check
from tuneloop.data.examine import Examined, FirstLook, Input, Reading, examine
from tuneloop.data.files import located
from tuneloop.data.findings import Finding
from tuneloop.data.fixes.base import Again, Tools
from tuneloop.data.spec import DataSpec
from tuneloop.data.versions.file_state import states_of
from tuneloop.record import find_runs

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Subject:
    """What is looked at: the data part of a recipe, or files put into one. Paths count from `root`."""

    data: DataSpec
    root: Path
    kind: type[Any] | None = None               # of sample that is to be learnt from; None: whatever the rows are
    tokenizer: ChatTokenizer | None = None      # of the base; without one there is no proof of the loss mask
    shown: dict[str, Any] | None = None         # other names of the files, for people
    deep: Path | None = None                    # the base's folder, to ask its weights too
    runs: Path | None = None                    # a folder of runs, which may have read the files as they once were


def check(subject: Subject, *, names: Sequence[str] | None = None, first_look: FirstLook | None = None) -> Examined:
    """Every check over every file of `subject`; with a tokenizer also the proof of the loss mask."""
    data = subject.data
    reading = Reading(subject.root, subject.kind, data.prompt, data.answer, data.system, data.drop_empty,
                      [fix for fix in data.fix if not fix.only_training], _tools_of(subject))
    found = examine(_inputs(subject), reading, names=names, more=_of_base(subject), first_look=first_look)
    return replace(found, findings=[*found.findings, *_changed_files(subject)])


def _changed_files(subject: Subject) -> list[Finding]:
    """Runs that have read a file of the subject as it was before it changed."""
    if subject.runs is None:
        return []
    mine = {str(located(given.name, subject.root)[0].resolve()) for given in _inputs(subject)}
    return [Finding("versions", "note", f"{folder.path} read other rows: {change}",
                    "start a new run for the rows as they are now", kind="changed")
            for folder in find_runs(subject.runs) if folder.has("record.json")
            for state in states_of(folder.read("record.json")) if state.path in mine and (change := state.change())]


def _inputs(subject: Subject) -> list[Input]:
    data, shown = subject.data, subject.shown or {}
    parts = [(part, getattr(data, part)) for part in ("train", "validation", "test")]
    sets = [Input("evaluation", name) for name in data.evaluation_sets]
    return [*sets, *(Input(part, name, str(shown.get(part) or name)) for part, name in parts if name)]


def _tools_of(subject: Subject) -> Callable[[Again], Tools]:
    """What the recipe's fixes may use, as in a run."""
    tokenizer = subject.tokenizer
    if tokenizer is None:
        return Tools
    from tuneloop.data.proof import with_tokenizer

    return lambda again: with_tokenizer(Tools(again), tokenizer)


def _of_base(subject: Subject) -> Callable[[], dict[str, Check]]:
    """The checks that need a base: its tokenizer, and its weights where they are asked."""
    tokenizer, deep = subject.tokenizer, subject.deep
    if tokenizer is None:
        return dict
    from tuneloop.data.proof import Proof

    limit = min(n for n in (tokenizer.max_length, subject.data.max_length_tokens) if n is not None)
    drops_long = subject.data.over_length == "drop"

    def made() -> dict[str, Check]:
        from tuneloop.perplexity import Perplexity

        proof: dict[str, Check] = {"proof": Proof(tokenizer, limit, drops_long=drops_long)}
        return proof | ({"perplexity": Perplexity(deep, tokenizer)} if deep else {})

    return made
