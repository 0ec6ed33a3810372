"""A model in memory as a backend, and the shortest way to its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from tuneloop.compute.check import Packing, choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.data.render import RenderProblem, render
from tuneloop.errors import UserError
from tuneloop.inference.backend import Progress
from tuneloop.inference.engine import Engine, switched
from tuneloop.inference.score import score
from tuneloop.inference.tickets import Ticket
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Conversation, Ints, Message, Origin, Rendered, Request, Sampling, Scored

TOKEN_BUDGET = 4096
PAIRS_TRIED = 16        # before requests and answers that go through the template apart are joined


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
                    if piece := ticket.text.piece():
                        yield piece
                if piece := ticket.text.piece(last=True):   # another stream's steps may have brought the end
                    yield piece
                yield ticket.done
            finally:
                if ticket.done is None:
                    self.engine.cancel(ticket)
                    self.engine.drop_cancelled()

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        """See `Backend`."""
        rows = rows_to_score(requests, answers, self.tokenizer)
        return self._scored(rows, progress, _together(requests, rows, self.token_budget))

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

    def _scored(self, rows: Sequence[Rendered], progress: Progress | None,
                groups: Sequence[int] | None = None) -> list[Scored]:
        if not rows:
            return []
        longest = max(map(len, rows))
        if longest > self.tokenizer.max_length:
            raise UserError(f"A text of {longest:,} tokens cannot be scored.",
                            wanted=f"at most {self.tokenizer.max_length:,} tokens, which this base takes")
        with self.engine.aside(), self._answering():
            if self._packing is None:
                self._packing = choose_packing(self.model, sorted(rows, key=len))
            found = score(ForestModel(self.model, self._packing.mode), rows, token_budget=self.token_budget,
                          share=self._packing.share, groups=groups, progress=progress)
        return [Scored(float(total), float(bare), row.supervised)
                for total, bare, row in zip(found.total, found.without_end, rows, strict=True)]

    def _answering(self) -> AbstractContextManager[None]:
        return switched(self.model, self.adapter) if self.engine.adapters else nullcontext()


def rows_to_score(requests: Sequence[Request], answers: Sequence[str], tokenizer: ChatTokenizer) -> list[Rendered]:
    """Answer i after request i, as training sees it, of which the answer alone carries weight.

    Each request and each answer goes through the template once, and their tokens are joined. Where that is not what
    the template makes of a pair (some are tried), all pairs go through it.
    """
    pairs = list(zip(requests, answers, strict=True))
    with_request = {request: (request, text) for request, text in pairs}
    with_answer = {text: (request, text) for request, text in pairs}
    tried = dict.fromkeys([*with_request.values(), *with_answer.values(), *pairs[::len(pairs) // PAIRS_TRIED + 1]])
    whole = dict(zip(tried, _through_template(list(tried), tokenizer), strict=True))
    prompts = {r: whole[pair].ids[:-len(whole[pair].last_answer)] for r, pair in with_request.items()}
    endings = {text: whole[pair].last_answer for text, pair in with_answer.items()}
    if all(np.array_equal(np.concatenate([prompts[r], endings[text]]), row.ids) for (r, text), row in whole.items()):
        return [_weighted(prompts[r], endings[text]) for r, text in pairs]
    rows = _through_template(pairs, tokenizer)
    return [_weighted(row.ids[:-len(row.last_answer)], row.last_answer) for row in rows]


def _through_template(pairs: Sequence[tuple[Request, str]], tokenizer: ChatTokenizer) -> list[Rendered]:
    rows = []
    for found in render([Conversation((*r.messages, Message("assistant", text)), Origin("request", i + 1), r.tools)
                         for i, (r, text) in enumerate(pairs)], tokenizer):
        if isinstance(found, RenderProblem):
            raise UserError(f"An answer cannot be scored: {found.message}.")
        rows.append(found)
    return rows


def _weighted(prompt: Ints, ending: Ints) -> Rendered:
    weights = np.zeros(len(prompt) + len(ending), np.float32)
    weights[len(prompt):] = 1
    return Rendered(np.concatenate([prompt, ending]), weights)


def _together(requests: Sequence[Request], rows: Sequence[Rendered], token_budget: int) -> list[int]:
    """The group of every row: answers to one request, as many as fit into the budget."""
    numbers, tokens = count(), dict.fromkeys(requests, token_budget)
    current: dict[Request, int] = {}
    groups = []
    for request, row in zip(requests, rows, strict=True):
        tokens[request] += row.supervised
        if tokens[request] > token_budget:
            current[request], tokens[request] = next(numbers), len(row)
        groups.append(current[request])
    return groups


def answer(engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling],
           adapters: Sequence[str | None], progress: Progress | None = None) -> list[Completion]:
    """One completion for each prompt of token ids, by its own adapter, in order. Longer prompts begin first, so that
    the batch stays full to the end.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    tickets: dict[int, Ticket] = {}
    with engine.running():
        try:
            for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
                tickets[i] = engine.submit(prompts[i], each[i], adapters[i])
            left = len(prompts)
            while left:
                engine.step()
                finished = left - sum(ticket.done is None for ticket in tickets.values())
                left -= finished
                if progress is not None and finished:
                    progress(finished)
        finally:
            for ticket in tickets.values():
                engine.cancel(ticket)       # those that an error left
            engine.drop_cancelled()
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
