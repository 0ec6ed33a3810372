"""A model in memory as a backend, and the shortest way to its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from tuneloop.compute.check import Packing, choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.data.render import RenderProblem, render
from tuneloop.errors import UserError
from tuneloop.inference.backend import Progress
from tuneloop.inference.engine import Engine, Ticket, switched
from tuneloop.inference.score import score
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Conversation, Message, Origin, Rendered, Request, Sampling, Scored

TOKEN_BUDGET = 4096


class Local:
    """One adapter of a model, or its bare base; `beside` gives the others, which share memory and batches with it."""

    def __init__(self, model: Any, tokenizer: ChatTokenizer, *, name: str = "base", identity: str = "",
                 adapter: str | None = None, packing: Packing | None = None, token_budget: int = TOKEN_BUDGET) -> None:
        """`identity` is what the answers depend on, for caches. `packing`, how to score, is found out unless given."""
        self.name, self.identity, self.adapter = name, identity or name, adapter
        self.model, self.tokenizer, self.token_budget = model, tokenizer, token_budget
        self.engine = Engine(model, tokenizer)
        self._packing = packing

    def beside(self, name: str, adapter: str | None, identity: str = "") -> Local:
        """Another adapter of the same model, or its base, by the same engine."""
        other = object.__new__(Local)
        other.__dict__ |= self.__dict__ | {"name": name, "identity": identity or name, "adapter": adapter}
        return other

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        """See `Backend`."""
        texts = [self.tokenizer.prompt_text(r.messages, r.tools) for r in requests]
        return answer(self.engine, self.tokenizer.encode(texts), sampling, [self.adapter] * len(requests), progress)

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        """See `Backend`."""
        [ids] = self.tokenizer.encode([self.tokenizer.prompt_text(request.messages, request.tools)])
        with self.engine.running():
            ticket = self.engine.submit(ids, sampling, self.adapter)
            try:
                while ticket.done is None:
                    self.engine.step()
                    if piece := ticket.text.piece(last=ticket.done is not None):
                        yield piece
                yield ticket.done
            finally:
                if ticket.done is None:
                    self.engine.cancel(ticket)
                    self.engine.step()

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        """See `Backend`."""
        rows = [Conversation((*r.messages, Message("assistant", text)), Origin("request", i + 1), r.tools)
                for i, (r, text) in enumerate(zip(requests, answers, strict=True))]
        alone = []
        for found in render(rows, self.tokenizer):
            if isinstance(found, RenderProblem):
                raise UserError(f"An answer cannot be scored: {found.message}.")
            weights = np.zeros_like(found.weights)
            weights[len(found) - len(found.last_answer):] = 1
            alone.append(replace(found, weights=weights))
        return self._scored(alone, progress)

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        """See `Backend`."""
        rows = []
        for ids in self.tokenizer.encode(texts):
            if len(ids) < 2:
                raise UserError("A text of one token cannot be scored.", wanted="two tokens or more")
            weights = np.ones(len(ids), np.float32)
            weights[0] = 0
            rows.append(Rendered(np.array(ids), weights))
        return [replace(s, without_end=s.total) for s in self._scored(rows, progress)]

    def _scored(self, rows: Sequence[Rendered], progress: Progress | None) -> list[Scored]:
        if not rows:
            return []
        longest = max(map(len, rows))
        if longest > self.tokenizer.max_length:
            raise UserError(f"A text of {longest:,} tokens cannot be scored.",
                            wanted=f"at most {self.tokenizer.max_length:,} tokens, which this base takes")
        with self._answering():
            if self._packing is None:
                self._packing = choose_packing(self.model, sorted(rows, key=len))
            found = score(ForestModel(self.model, self._packing.mode), rows, token_budget=self.token_budget,
                          share=self._packing.share, progress=progress)
        return [Scored(float(total), float(bare), row.supervised)
                for total, bare, row in zip(found.total, found.without_end, rows, strict=True)]

    def _answering(self) -> AbstractContextManager[None]:
        return switched(self.model, self.adapter) if self.engine.adapters else nullcontext()


def answer(engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling],
           adapters: Sequence[str | None], progress: Progress | None = None) -> list[Completion]:
    """One completion for each prompt of token ids, by its own adapter, in order. Longer prompts begin first, so that
    the batch stays full to the end.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    tickets: dict[int, Ticket] = {}
    with engine.running():
        for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
            tickets[i] = engine.submit(prompts[i], each[i], adapters[i])
        while engine.busy:
            finished = sum(ticket.done is not None for ticket in engine.step())
            if progress is not None and finished:
                progress(finished)
    return [done for i in range(len(prompts)) if (done := tickets[i].done) is not None]


def generate(model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Sequence[Message]],
             sampling: Sampling | Sequence[Sampling], *, tools: Sequence[Sequence[str]] = (),
             progress: Progress | None = None) -> list[Completion]:
    """One completion for each prompt by a model as it stands, with the adapter that is switched on, if any.

    `tools` has for each prompt the JSON texts of the functions it offers; none for no prompt unless given.
    """
    offered = tools or [()] * len(prompts)
    requests = [Request(tuple(p), tuple(t)) for p, t in zip(prompts, offered, strict=True)]
    return Local(model, tokenizer, adapter=in_use(model)).generate(requests, sampling, progress=progress)


def in_use(model: Any) -> str | None:
    """The adapter that a model answers with; None where there is none, or it is switched off."""
    if not getattr(model, "peft_config", None):
        return None
    if model.active_peft_config.is_prompt_learning:
        return None if model._adapters_disabled else str(model.active_adapter)
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    return None if layers and all(layer.disable_adapters for layer in layers) else str(model.active_adapter)
