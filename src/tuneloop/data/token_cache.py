"""Rendered rows by content, on disk: a second look at the same rows renders only what is new.

The key of an entry is everything its tokens follow from: what the row says, the tokenizer, the chat template, and the
code that renders. An entry that is found is therefore never stale. Its row is part of the key too, so that a row can be
purged; rows without a hash (`Origin.row`) are not kept, for nobody could.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuneloop.data import groups as grouping
from tuneloop.data import render as rendering
from tuneloop.data.groups import group_all
from tuneloop.data.render import RenderProblem
from tuneloop.models import tokenizer as tokenizers
from tuneloop.models.cache import database_errors
from tuneloop.types import Group, Learnt, Rendered

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer

FILE = "tokens.db"          # in the cache folder
MOST_BYTES = 2 * 2**30
LIBRARIES = ("transformers", "tokenizers", "jinja2")
_ASKED_AT_ONCE = 500        # SQLite allows 999 placeholders and more


class TokenCache:
    """A SQLite file of rendered rows. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with database_errors("tokens", self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            with self._database:
                self._database.execute("PRAGMA secure_delete = ON")     # a purged row's bytes are overwritten
                self._database.execute("CREATE TABLE IF NOT EXISTS tokens (key BLOB PRIMARY KEY, row TEXT, value BLOB)")
                self._database.execute("CREATE INDEX IF NOT EXISTS by_row ON tokens (row)")
                if path.stat().st_size > MOST_BYTES:        # begin anew: everything in it can be made again
                    self._database.execute("DELETE FROM tokens")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that there are."""
        found: dict[bytes, bytes] = {}
        with database_errors("tokens", self.path):
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                asked = keys[start:start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                found.update(self._database.execute(f"SELECT key, value FROM tokens WHERE key IN ({marks})", asked))
        return found

    def put(self, entries: Iterable[tuple[bytes, str, bytes]]) -> None:
        """Keep all entries (key, hash of the row, value), or none."""
        with database_errors("tokens", self.path), self._database:
            self._database.executemany("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", entries)

    def count(self, rows: Iterable[str]) -> int:
        """How many entries there are of rows with these hashes."""
        with database_errors("tokens", self.path):
            return sum(self._database.execute("SELECT count(*) FROM tokens WHERE row = ?", (row,)).fetchone()[0]
                       for row in rows)

    def forget(self, rows: Iterable[str]) -> None:
        """Remove every entry of rows with these hashes, for good."""
        with database_errors("tokens", self.path), self._database:
            self._database.executemany("DELETE FROM tokens WHERE row = ?", [(row,) for row in rows])

    def close(self) -> None:
        self._database.close()


def render_cached(samples: Sequence[Learnt], tokenizer: ChatTokenizer,
                  kept: TokenCache) -> list[Group | RenderProblem]:
    """What `group_all` gives for the samples; only those that are not kept are rendered, and then kept."""
    maker = identity(tokenizer)
    if maker is None:
        return group_all(samples, tokenizer)
    keys = [_key(maker, sample) for sample in samples]
    found = kept.get([key for key in keys if key])
    fresh = [sample for key, sample in zip(keys, samples, strict=True) if key not in found]
    rendered = iter(group_all(fresh, tokenizer))
    groups = [_unpacked(found[key], sample) if key in found else next(rendered)
              for key, sample in zip(keys, samples, strict=True)]
    kept.put((key, sample.origin.row, _packed(group)) for key, sample, group in zip(keys, samples, groups, strict=True)
             if key and key not in found and isinstance(group, Group))
    return groups


def identity(tokenizer: ChatTokenizer) -> bytes | None:
    """Everything but the row that its tokens follow from; None for a tokenizer that does not tell what it does."""
    inner = getattr(tokenizer, "inner", None)
    backend = getattr(inner, "backend_tokenizer", None)
    if inner is None or backend is None:
        return None
    said = [backend.to_str(), inner.chat_template, tokenizer.end_of_turn, sorted(tokenizer.specials), _code()]
    return hashlib.sha256(json.dumps(said).encode()).digest()


@cache
def _code() -> list[str]:
    """Versions of the libraries that render, and the sha256 of our own code that does."""
    own = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
           for module in (grouping, rendering, tokenizers)]
    return [version(name) for name in LIBRARIES] + own


def _key(maker: bytes, sample: Learnt) -> bytes:
    """Empty for a row without a hash."""
    if not sample.origin.row:
        return b""
    said = [getattr(sample, field.name) for field in fields(sample) if field.name != "origin"]
    text = repr((type(sample).__name__, sample.origin.row, said))
    return hashlib.sha256(maker + text.encode("utf-8", "surrogatepass")).digest()


def _packed(group: Group) -> bytes:
    """A line of JSON (lengths, and what the row says of each branch), then all ids as uint32 and weights as float32."""
    branches = group.branches
    header = json.dumps([[len(b) for b in branches], [{k: float(v) for k, v in b.named.items()} for b in branches]])
    ids = b"".join(b.ids.astype("<u4").tobytes() for b in branches)
    weights = b"".join(b.weights.astype("<f4").tobytes() for b in branches)
    return zlib.compress(header.encode() + b"\n" + ids + weights, 1)


def _unpacked(value: bytes, sample: Learnt) -> Group:
    header, _, numbers = zlib.decompress(value).partition(b"\n")
    lengths, named = json.loads(header)
    total = sum(lengths)
    ids = np.frombuffer(numbers, "<u4", total).astype(np.int64)
    weights = np.frombuffer(numbers, "<f4", total, 4 * total).astype(np.float32)
    ends = np.cumsum(lengths)[:-1]
    return Group(tuple(Rendered(i, w, sample.origin, _named(of_row)) for i, w, of_row
                       in zip(np.split(ids, ends), np.split(weights, ends), named, strict=True)))


def _named(of_row: Mapping[str, float]) -> dict[str, np.float32]:
    return {name: np.float32(value) for name, value in of_row.items()}
