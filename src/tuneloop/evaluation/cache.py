"""Answers by content, on disk: nothing is generated or scored twice, whoever asks, and a killed run loses nothing that
was finished.

The key of an entry is everything its value follows from: the model's identity, what was asked, how to sample and with
which seed, and the kind of question. Beside the answer an entry holds the machine's seconds that it took, so that an
answer from the cache costs in a comparison what it cost when it was computed. Whose rows a request holds is noted too,
so that answers go when a row is purged.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from tuneloop.data.answer_cache import FILE, AnswerCache
from tuneloop.inference.backend import Backend, Progress
from tuneloop.models import cache
from tuneloop.types import Completion, Request, Sampling, Scored

SCHEMA_VERSION = 1          # part of every key: raised when answers would be computed differently
GENERATED_AT_ONCE = 64      # answers that a killed process may lose; the engine's batch stays full until the last few
SCORED_AT_ONCE = 512
Made = TypeVar("Made")


class Cached:
    """A backend that remembers. Implements `Backend`; `folder` is the user's cache folder unless given.

    `machine_seconds` sums up what the answers it gave took to compute, when they were computed; `computed` counts those
    that were not there. `prepare` is called before anything is computed, and its time is none of theirs.
    """

    def __init__(self, backend: Backend, folder: Path | None = None, *,
                 prepare: Callable[[], object] = lambda: None) -> None:
        self._backend, self._prepare = backend, prepare
        self._kept = AnswerCache((cache.root() if folder is None else folder) / FILE)
        self.machine_seconds, self.computed = 0.0, 0

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def identity(self) -> str:
        return self._backend.identity

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        samplings = [sampling] * len(requests) if isinstance(sampling, Sampling) else list(sampling)
        keys = [self._key("generate", _said(request), asdict(how))
                for request, how in zip(requests, samplings, strict=True)]

        def compute(chosen: list[int], progress: Progress | None) -> list[Completion]:
            return self._backend.generate([requests[i] for i in chosen], [samplings[i] for i in chosen],
                                          progress=progress)

        self._note(requests, keys)
        return self._all(keys, compute, _completion, _chunks(keys, GENERATED_AT_ONCE), progress)

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        key = self._key("generate", _said(request), asdict(sampling))
        self._note([request], [key])
        if (entry := self._kept.get(key)) is not None:
            completion = _completion(entry["value"])
            yield completion.text
            yield completion
            return
        for piece in self._backend.stream(request, sampling):
            if isinstance(piece, Completion):
                self._kept.put([(key, {"value": asdict(piece), "seconds": piece.seconds})])
            yield piece

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        said: dict[Request, Any] = {request: _said(request) for request in requests}
        keys = [self._key("score", said[request], answer) for request, answer in zip(requests, answers, strict=True)]
        together = [list(places) for _, places in groupby(range(len(requests)), key=lambda i: requests[i])]

        def compute(chosen: list[int], progress: Progress | None) -> list[Scored]:
            return self._backend.score([requests[i] for i in chosen], [answers[i] for i in chosen], progress=progress)

        self._note(requests, keys)
        return self._all(keys, compute, lambda value: Scored(**value), _gathered(together, SCORED_AT_ONCE), progress)

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        keys = [self._key("score_texts", text) for text in texts]

        def compute(chosen: list[int], progress: Progress | None) -> list[Scored]:
            return self._backend.score_texts([texts[i] for i in chosen], progress=progress)

        return self._all(keys, compute, lambda value: Scored(**value), _chunks(keys, SCORED_AT_ONCE), progress)

    def close(self) -> None:
        """Let go of the file."""
        self._kept.close()

    def _note(self, requests: Sequence[Request], keys: Sequence[bytes]) -> None:
        """Before anything is computed, so that no answer outlives its row; and of answers that are there already, since
        rows that differ may ask the same.
        """
        self._kept.note((row, key) for request, key in zip(requests, keys, strict=True) for row in request.rows)

    def _all(self, keys: Sequence[bytes], compute: Callable[[list[int], Progress | None], list[Made]],
             made: Callable[[dict[str, Any]], Made], chunks: Iterable[list[int]],
             progress: Progress | None) -> list[Made]:
        """Values for all keys, in order. What is missing is computed chunk by chunk, each kept as soon as it is done.

        A question that is asked twice is computed once.
        """
        entries = {key: entry for key in set(keys) if (entry := self._kept.get(key)) is not None}
        if progress is not None and entries:
            progress(sum(key in entries for key in keys))
        for chunk in chunks:
            missing = {keys[i]: i for i in chunk if keys[i] not in entries}
            if not missing:
                continue
            repeated = sum(keys[i] in missing for i in chunk) - len(missing)
            self._prepare()
            began = time.perf_counter()
            values = compute(list(missing.values()), progress)
            share = (time.perf_counter() - began) / len(missing)
            fresh = {key: {"value": asdict(value), "seconds": share}        # type: ignore[call-overload]
                     for key, value in zip(missing, values, strict=True)}
            self._kept.put(fresh.items())
            entries |= fresh
            self.computed += len(fresh)
            if progress is not None and repeated:
                progress(repeated)
        self.machine_seconds += sum(entries[key]["seconds"] for key in keys)
        return [made(entries[key]["value"]) for key in keys]

    def _key(self, kind: str, *asked: Any) -> bytes:
        said = json.dumps([SCHEMA_VERSION, kind, self.identity, *asked], sort_keys=True)
        return hashlib.sha256(said.encode()).digest()


def _said(request: Request) -> Any:
    """What a model sees of a request: whether a turn was to be learnt is none of it."""
    turns = [{key: value for key, value in asdict(message).items() if key != "train"} for message in request.messages]
    return [turns, list(request.tools)]


def _completion(value: dict[str, Any]) -> Completion:
    top = tuple(tuple((int(token), float(logprob)) for token, logprob in place) for place in value["top"])
    return Completion(**value | {"token_ids": tuple(value["token_ids"]), "logprobs": tuple(value["logprobs"]),
                                 "top": top})


def _chunks(keys: Sequence[bytes], size: int) -> Iterator[list[int]]:
    return (list(range(low, min(low + size, len(keys)))) for low in range(0, len(keys), size))


def _gathered(groups: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Whole groups put together up to about `size`: the choices of one row share its prompt and stay together."""
    chunk: list[int] = []
    for group in groups:
        chunk += group
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
