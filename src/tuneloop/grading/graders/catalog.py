"""All graders by name, and how the objects of recipes and of the hosted API become graders.

Our own kinds are told by `kind`, hosted ones by `type`, with the keys that the hosted API has.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuneloop.errors import UserError, raise_all
from tuneloop.grading.graders import judged, measured, programs, texts
from tuneloop.grading.graders.base import Grader
from tuneloop.grading.graders.multi import Multi
from tuneloop.grading.graders.similarity import TextSimilarity

KINDS: dict[str, type[Grader]] = {
    "exact": texts.Exact, "contains": texts.Contains, "regex": texts.Regex, "length": texts.Length,
    "numeric": measured.Numeric, "json_schema": measured.JsonSchema, "json_keys": measured.JsonKeys,
    "tool_calls": measured.ToolCalls, "code": programs.Code, "python": programs.Python, "judge": judged.LanguageModel,
    "reward_model": judged.RewardModel}
"""Our own; a recipe may also name a metric that scores rows, or a file as FILE.py:FUNCTION."""
TYPES: dict[str, type[Grader]] = {
    "string_check": texts.StringCheck, "text_similarity": TextSimilarity, "score_model": judged.ScoreModel,
    "python": programs.HostedPython, "multi": Multi}
"""The hosted ones."""

_FILE = re.compile(r"\.py(:|$)")
Path_ = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with an object, and at which of its keys."""

    path: Path_
    found: str              # a sentence without its stop
    wanted: str = ""
    fix: str = ""

    def error(self, shown: str) -> UserError:
        """As an error; `shown` says where the object is."""
        return UserError(f"{shown}: {self.found}.", wanted=self.wanted, fix=self.fix)


class Reader:
    """Makes graders of objects, and collects every flaw. Files that they name count from `root`; without one, as for
    objects that somebody else sends, only the hosted types are known, which name none.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.flaws: list[Flaw] = []

    def grader(self, given: Any, path: Path_ = ()) -> Grader | None:
        """The grader that an object says; None with its flaws noted. A text is a kind without options."""
        if isinstance(given, str) and self.root is not None:
            given = {"kind": given}
        if not isinstance(given, Mapping):
            self.wrong(path, f"{_at(path, 'a grader')} is {given!r}", "a mapping with `kind` or `type`")
            return None
        before = len(self.flaws)
        value = {str(key): item for key, item in given.items()}
        chosen = self._chosen(value, path)
        if chosen is None:
            return None
        value = self._known(value, chosen, path)
        if chosen is Multi:
            inner = self._inner(value.get("graders"), (*path, "graders"))
            if inner is None:
                return None
            value["graders"] = inner
        made = self._made(chosen, value, path)
        if made is not None:
            self._read(made, path)
        return made if len(self.flaws) == before else None

    def wrong(self, path: Path_, found: str, wanted: str = "", fix: str = "") -> None:
        """Note a flaw."""
        self.flaws.append(Flaw(path, found, wanted, fix))

    # ── one object ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _chosen(self, value: dict[str, Any], path: Path_) -> type[Grader] | None:
        """The class of an object; of a kind in short, what it stands for is put into `value`."""
        if ("kind" in value) == ("type" in value):
            kinds = f"kind: one of {', '.join(KINDS)}; or " if self.root else ""
            self.wrong(path, f"{_at(path, 'a grader')} has " + (
                "both `kind` and `type`" if "kind" in value else "no `kind`" if self.root else "no `type`"),
                       f"{kinds}type: one of {', '.join(TYPES)}")
            return None
        key = "kind" if "kind" in value else "type"
        if key == "kind" and self.root is None:
            self.wrong((*path, key), f"unknown key '{_dotted((*path, key))}'", f"type: one of {', '.join(TYPES)}")
            return None
        name, table = str(value[key]), KINDS if key == "kind" else TYPES
        if key == "kind" and _FILE.search(name):
            value |= {"kind": "python", "file": name}
            return programs.Python
        if key == "kind" and name in measured.of_rows() and name not in KINDS:
            return measured.Measured
        if name in table:
            return table[name]
        if name == "label_model":
            error = judged.refuse_label_model()
            self.wrong((*path, key), error.found.rstrip("."), error.wanted)
            return None
        other = KINDS if key == "type" else TYPES
        names = [*table, *(measured.of_rows() if key == "kind" else [])]
        near = difflib.get_close_matches(name, names, n=1)
        fix = (f"write {'type' if key == 'kind' else 'kind'}: {name}" if name in other else
               f"did you mean '{near[0]}'?" if near else "")
        at = (*path, key)
        self.wrong(at, f"'{_dotted(at)}' is {value[key]!r}", f"one of {', '.join(dict.fromkeys(names))}", fix)
        return None

    def _known(self, value: dict[str, Any], chosen: type[Grader], path: Path_) -> dict[str, Any]:
        """`value` without the keys that such a grader does not have, which are noted."""
        known = keys_of(chosen)
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                self.wrong((*path, key), f"unknown key '{_dotted((*path, key))}'", f"one of {', '.join(known)}",
                           f"did you mean '{near[0]}'?" if near else "")
        return {key: item for key, item in value.items() if key in known}

    def _inner(self, given: Any, path: Path_) -> dict[str, Grader] | None:
        """The graders of a `multi`: by name, as a list, or a single one."""
        if isinstance(given, Mapping) and ("type" in given or "kind" in given):
            given = [given]
        if isinstance(given, Sequence) and not isinstance(given, str):
            by_name = {str(one.get("name", i)) if isinstance(one, Mapping) else str(i): one
                       for i, one in enumerate(given)}
            if len(by_name) < len(given):
                self.wrong(path, f"two graders of '{_dotted(path)}' have the same name", "a name of its own each")
                return None
            paths = [(*path, str(i)) for i in range(len(given))]
        elif isinstance(given, Mapping) and given:
            by_name = {str(name): one for name, one in given.items()}
            paths = [(*path, name) for name in by_name]
        else:
            self.wrong(path, f"'{_dotted(path)}' is {given!r}", "graders by name")
            return None
        made = {name: self.grader(one, at) for (name, one), at in zip(by_name.items(), paths, strict=True)}
        found = {name: grader for name, grader in made.items() if grader is not None}
        return found if len(found) == len(made) else None

    def _made(self, chosen: type[Grader], value: dict[str, Any], path: Path_) -> Grader | None:
        try:
            return chosen.model_validate(value)
        except ValidationError as error:
            seen = set()
            for item in error.errors():
                flaw = _flaw(item, value, path)
                if flaw.path not in seen:
                    self.flaws.append(flaw)
                seen.add(flaw.path)
        return None

    def _read(self, made: Grader, path: Path_) -> None:
        """Have a grader read its files."""
        try:
            if self.root is not None:
                made.read_files(self.root)
        except UserError as error:
            key = next((name for name in ("file", "rubric") if name in type(made).model_fields), "")
            self.wrong((*path, key), error.found.rstrip("."), error.wanted, error.fix)


def keys_of(chosen: type[Grader]) -> list[str]:
    """The keys that an object of such a grader may have."""
    return [field.alias or name for name, field in chosen.model_fields.items()]


def hosted(given: Any, *, shown: str = "grader") -> Grader:
    """The grader that an object of the hosted API says. Raises a UserError with every flaw and its path."""
    reader = Reader(None)
    made = reader.grader(given)
    raise_flaws(reader.flaws, shown)
    assert made is not None
    return made


def raise_flaws(flaws: Sequence[Flaw], shown: str) -> None:
    """Raise a UserError with all flaws, if there are any."""
    raise_all([flaw.error(shown) for flaw in flaws])


def _flaw(item: Any, value: Any, path: Path_) -> Flaw:
    """One of pydantic's findings, at the key that it is about."""
    known: list[str] = []
    at = value
    missing = item["type"] == "missing"
    for part in item["loc"]:        # pydantic adds names of types that it tried, which are no keys
        inside = part in at if isinstance(at, Mapping) else isinstance(at, list) and part in range(len(at))
        if inside:
            at = at[part]
        elif not missing:
            continue
        known.append(str(part))
    wanted = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    found = item["input"]
    if item["type"] == "value_error" and not item["loc"] and isinstance(value, Mapping):        # of the whole
        spoken = next((word for word in re.findall(r"\w+", wanted) if word in value), None)
        known, found = ([spoken], value[spoken]) if spoken else (known, found)
    where = (*path, *known)
    if missing:
        return Flaw(where, f"'{_dotted(where)}' is missing")
    shown = repr(found)
    return Flaw(where, f"'{_dotted(where)}' is {shown[:120]}{'…' * (len(shown) > 120)}", wanted)


def _at(path: Path_, else_: str) -> str:
    return f"'{_dotted(path)}'" if path else else_


def _dotted(path: Path_) -> str:
    return ".".join(path)
