"""A backend whose answers are given, for tests of what is made of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tuneloop.inference.backend import Progress
from tuneloop.types import Completion, Request, Sampling, Scored


class Scripted:
    """Answers by a function of the last turn's text; scores by another, of the same text and the answer."""

    def __init__(self, answer: Callable[[str], str] = lambda asked: "", *, name: str = "scripted",
                 likes: Callable[[str, str], float] = lambda asked, answer: -1.0) -> None:
        self.name, self.identity = name, f"scripted:{name}"
        self._answer, self._likes = answer, likes
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        self.requests += requests
        texts = [self._answer(request.messages[-1].content) for request in requests]
        return [Completion(text, (), True, prompt_tokens=1, new_tokens=len(text.split()) + 1, seconds=0.01)
                for text in texts]

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        [completion] = self.generate([request], sampling)
        yield completion.text
        yield completion

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        return [Scored(value, value, max(1, len(answer.split()))) for request, answer in
                zip(requests, answers, strict=True)
                for value in [self._likes(request.messages[-1].content, answer)]]

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        return [Scored(value, value, max(1, len(text.split()))) for text in texts for value in [self._likes("", text)]]
