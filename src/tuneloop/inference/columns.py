"""What objectives want to know of the rows from a model that does not train: log-probs of the reference, of the policy
that wrote the answers, of a teacher. Computed once, prefixes shared, and kept on disk by content.

The key of an entry is everything its value follows from: the model's weights and precision, the tokens, which of them
are supervised, and what was asked. So a second epoch, a second run, or a run on more rows computes only what is new.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneloop.compute.cut import cut_step
from tuneloop.compute.model import ForestModel
from tuneloop.compute.passes import passes
from tuneloop.models.cache import database_errors
from tuneloop.types import Group, Outputs, Rendered

Columns = dict[str, Any]            # name -> (supervised, ...) array of one sample
Progress = Callable[[int], None]    # called with the number of samples just finished


class ColumnCache:
    """A SQLite file of columns by content. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with database_errors("log-probs", self._path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            with self._database:
                self._database.execute("CREATE TABLE IF NOT EXISTS columns (key BLOB PRIMARY KEY, value BLOB)")

    def get(self, key: bytes) -> Columns | None:
        with database_errors("log-probs", self._path):
            found = self._database.execute("SELECT value FROM columns WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        with np.load(io.BytesIO(found[0]), allow_pickle=False) as arrays:
            return dict(arrays)

    def put(self, entries: Iterable[tuple[bytes, Columns]]) -> None:
        """Keep all entries or none."""
        with database_errors("log-probs", self._path), self._database:
            self._database.executemany("INSERT OR REPLACE INTO columns VALUES (?, ?)",
                                       ((key, _packed(columns)) for key, columns in entries))

    def close(self) -> None:
        self._database.close()


class Scorer:
    """A model that gives columns, and the cache that remembers them.

    `opened` gives the model and whether it shares prefixes, and is called only where something must be computed.
    `identity` names what the model computes: weights, configuration, precision. `top` asks for a teacher's most likely
    tokens.
    """

    def __init__(self, opened: Callable[[], tuple[ForestModel, bool]], identity: str, cache: ColumnCache, *,
                 token_budget: int, top: int = 0) -> None:
        self._opened, self._cache, self._top = opened, cache, top
        self._asked = f"{identity}:{top}".encode()
        self._budget = token_budget

    def columns(self, samples: Sequence[Rendered], progress: Progress | None = None) -> list[Columns]:
        """For every sample its `logprobs` (supervised,), and with `top` `top_ids` and `top_logprobs` (supervised, top).

        Values are float32, ids int64.
        """
        keys = [self._key(sample) for sample in samples]
        found = {key: kept for key in set(keys) if (kept := self._cache.get(key)) is not None}
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in found}
        if progress is not None:
            progress(sum(key in found for key in keys))
        order = list(missing)
        for entries in self._computed(list(missing.values())):
            fresh = [(order[i], columns) for i, columns in entries]
            self._cache.put(fresh)
            found.update(fresh)
            if progress is not None:
                progress(len(fresh))
        return [found[key] for key in keys]

    @torch.no_grad()
    def _computed(self, samples: list[Rendered]) -> Iterator[list[tuple[int, Columns]]]:
        """Piece by piece, so that what is finished stays when the rest is cut off."""
        if not samples:
            return
        plain = [Rendered(s.ids, s.weights, s.origin) for s in samples]
        model, share = self._opened()
        was_training = model.training
        model.eval()
        try:
            pieces = cut_step(plain, self._budget, share=share)
            device = next(model.parameters()).device
            for piece, _, out in passes(model, pieces, device, top=self._top):
                split = {name: piece.forest.by_branch(column) for name, column in _arrays(out).items()}
                yield [(i, {name: parts[branch] for name, parts in split.items()})
                       for branch, i in enumerate(piece.samples)]
        finally:
            model.train(was_training)

    def _key(self, sample: Rendered) -> bytes:
        digest = hashlib.sha256(self._asked)
        digest.update(sample.ids.astype("<u4").tobytes())
        digest.update(np.packbits(sample.weights != 0).tobytes())
        return digest.digest()


def with_columns(groups: Sequence[Group], scorer: Scorer, names: Mapping[str, str],
                 progress: Progress | None = None) -> list[Group]:
    """The groups with the scorer's columns under the objective's names; samples that bring one along keep theirs."""
    def lacks(sample: Rendered) -> bool:
        return any(name not in sample.named for name in names.values())

    samples = [s for group in groups for s in (*group.branches, *group.probes) if lacks(s)]
    found = iter(scorer.columns(samples, progress))

    def named(sample: Rendered) -> Rendered:
        if not lacks(sample):
            return sample
        columns = next(found)
        return replace(sample, named={names[name]: columns[name] for name in names} | dict(sample.named))

    return [Group(tuple(map(named, group.branches)), tuple(map(named, group.probes))) for group in groups]


def _arrays(out: Outputs) -> Columns:
    tensors = {"logprobs": out.logprobs, "top_ids": out.top_ids, "top_logprobs": out.top_logprobs}
    return {name: tensor.float().cpu().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
            for name, tensor in tensors.items() if tensor is not None}


def _packed(columns: Columns) -> bytes:
    file = io.BytesIO()
    np.savez(file, **columns)
    return file.getvalue()
