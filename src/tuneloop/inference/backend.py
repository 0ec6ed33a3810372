"""One model to ask, whatever runs it: the engine here, vLLM, or a server behind the OpenAI API.

Evaluation, samples, rollouts and serving know models by this alone. A backend answers for one model; several backends
may share one base in memory (`inference.engine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tuneloop.types import Completion, Request, Sampling, Scored

Progress = Callable[[int], None]        # called with the number of requests just finished


class Backend(Protocol):
    """A model that generates, and says how likely given answers are."""

    @property
    def name(self) -> str:
        """What a report calls the model."""
        ...

    @property
    def identity(self) -> str:
        """What the answers depend on, for caches: hashes of weights and adapter, or a server's URL and model."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        """One completion for each request, in order; one sampling for all, or one for each."""
        ...

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        """Pieces of text as they come, and the whole completion at the end. Closing the iterator cancels it."""
        ...

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        """How likely answer i is after request i. What requests have in common at the start is computed once.

        Raises a UserError where a server does not tell.
        """
        ...

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        """How likely plain texts are, from their second token on, without any template; nothing ends a turn."""
        ...
