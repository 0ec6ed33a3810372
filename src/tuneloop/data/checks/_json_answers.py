"""Answers that are JSON objects: whether they parse, and whether they have the keys that most have."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from tuneloop.data.checks._places import in_order
from tuneloop.data.checks._tally import SHOWN_EXAMPLES, rows_that
from tuneloop.data.findings import Finding, Places
from tuneloop.types import Origin

USUAL, RARE = 0.95, 0.1     # shares of the objects that have a key
MOST_KEYS = 1_000           # different sets of keys, from which on objects are not meant to be alike

Keys = tuple[tuple[str, str], ...]
"""The keys of an object in alphabetical order, each with the kind of its value."""


def is_json_like(answer: str) -> bool:
    return answer.lstrip()[:1] in ("{", "[")


def keys_of(answer: str) -> Keys | None:
    """The keys of a JSON object, none of a list; None of what does not parse."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return tuple(sorted((key, _kind(inner)) for key, inner in value.items())) if isinstance(value, dict) else ()


def _kind(value: Any) -> str:
    """Nothing for null, which stands for any kind."""
    return {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
            dict: "an object"}.get(type(value), "")


class JsonAnswers:
    """Rows by the keys of their answer."""

    def __init__(self) -> None:
        self.broken = Places()
        self.parsed = 0
        self._rows: defaultdict[Keys, Places] = defaultdict(Places)

    def add(self, origin: Origin, answer: str) -> None:
        keys = keys_of(answer)
        if keys is None:
            self.broken.add(origin)
            return
        self.parsed += 1
        if len(self._rows) < MOST_KEYS:
            self._rows[keys].add(origin)

    def findings(self) -> Iterator[Finding]:
        if self.broken:
            yield Finding("consistency", "fix", rows_that(self.broken, "have an answer that begins like JSON and does "
                          "not parse"), "mend the JSON, or drop them: tuneloop data fix FILE drop checks=consistency "
                          "kinds=broken_json", self.broken, (), "broken_json")
        if len(self._rows) < MOST_KEYS:
            yield from self._of_keys()

    def _of_keys(self) -> Iterator[Finding]:
        held, kinds = Counter[str](), defaultdict[str, Counter[str]](Counter)
        for keys, rows in self._rows.items():
            for key, kind in keys:
                held[key] += len(rows)
                kinds[key][kind] += len(rows) if kind else 0
        usual = {key for key, count in held.items() if count >= USUAL * self.parsed}
        rare = {key for key, count in held.items() if count <= RARE * self.parsed}
        most = {key: kinds[key].most_common(1)[0] for key in usual}
        alike = {key: kind for key, (kind, count) in most.items() if count >= USUAL * kinds[key].total()}
        yield from self._odd("missing_keys", lambda keys: usual - {key for key, _ in keys},
                             "lack a key that the JSON of most rows has",
                             "write these keys, with null where there is nothing to say")
        yield from self._odd("other_kinds", lambda keys: {key for key, kind in keys if kind and alike.get(key, kind)
                                                          != kind},
                             "have a value of another kind in their JSON than most rows, such as a text for a number",
                             "write these values as most rows write them")
        if usual:
            yield from self._odd("rare_keys", lambda keys: {key for key, _ in keys} & rare,
                                 "have a key in their JSON that few rows have",
                                 "see whether it is another name of a usual key", is_note=True)

    def _odd(self, kind: str, odd: Callable[[Keys], set[str]], do: str, fix: str, *,
             is_note: bool = False) -> Iterator[Finding]:
        by_key: defaultdict[str, list[Places]] = defaultdict(list)
        found = []
        for keys, rows in self._rows.items():
            wrong = odd(keys)
            found += [rows] if wrong else []
            for key in wrong:
                by_key[key].append(rows)
        if found:
            told = [f'"{key}": {in_order(places)}' for key, places in sorted(by_key.items())]
            rows = in_order(found)
            yield Finding("consistency", "note" if is_note else "fix", rows_that(rows, do), fix, rows,
                          list(islice(told, SHOWN_EXAMPLES)), kind)
