"""Generating for many at once: requests join and leave a running batch, and what they have in common is computed once.

A request has a row of the cache (`slots`). What its prompt shares with the tokens of any row, running or finished, is
copied from there; only the rest is computed. Greedy answers are those of `model.generate`, whoever else is answered.

Bases whose layers the slots do not fit (recurrent ones, positions that are made from a mask) are answered one by one
with their own cache. That is found out by trying when the engine is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tuneloop.compute.model import attending, logit_shaping
from tuneloop.compute.virtual import Virtual, virtual_of
from tuneloop.errors import UserError
from tuneloop.inference import slots
from tuneloop.inference.constraint import Guide
from tuneloop.inference.routed import Routes, is_plain
from tuneloop.inference.sampling import Choice, Chooser, choose
from tuneloop.inference.slots import Pass, Slots
from tuneloop.inference.text import TextSoFar
from tuneloop.methods._peft import bare
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Sampling

MAX_ROWS = 32
PREFILL_TOKENS = 2048   # of one forward, padding included
WORTH_COPYING = 8       # tokens; a shorter common beginning is computed again
CLOSE = 2e-3            # logits of the trial may differ by so much, relative to their size
CLOSE_16_BIT = 6e-2


@dataclass(eq=False)
class Ticket:
    """One request in the engine, and what has come of it."""

    ids: list[int]                          # the prompt's tokens, and the answer's as they come
    sampling: Sampling
    adapter: str | None
    chooser: Chooser
    text: TextSoFar
    prompt_tokens: int
    began: float
    computed: int = 0                       # tokens whose keys and values are in the row
    choices: list[Choice] = field(default_factory=list)
    done: Completion | None = None
    cancelled: bool = False
    cache: Any = None                       # of a base that is answered one by one

    @property
    def pending(self) -> int:
        """Tokens that no forward has seen."""
        return len(self.ids) - self.computed


class Engine:
    """A model of transformers, bare or with adapters of PEFT.

    Where all of its adapters are plain LoRA, every request may name one of them, or none for the bare base, and all of
    them share batches. Other adapters are answered in turn, each in batches of its own.
    """

    def __init__(self, model: Any, tokenizer: ChatTokenizer, *, max_rows: int = MAX_ROWS) -> None:
        slots.register()
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        configs = getattr(model, "peft_config", {})
        self.adapters = tuple(configs)
        self._routes = Routes(model) if configs and all(map(is_plain, configs.values())) else None
        self._answering: str | None = None      # the adapter that is switched on, where they are answered in turn
        self._opened: ExitStack | None = None
        self._waiting: list[Ticket] = []
        self._active: list[Ticket] = []         # ticket i has row i of the cache
        self._kept: list[tuple[str | None, list[int]]] = []     # what every row holds
        self._stops = stop_ids(self.inner, tokenizer)
        self._slots = Slots(self.inner.config.get_text_config().num_hidden_layers)
        self._virtual: Virtual | None = None
        self.batched = False
        with self.running():
            self.batched = self._try_out()

    @property
    def inner(self) -> Any:
        """The model of transformers itself, adapters' layers included."""
        get_base = getattr(self.model, "get_base_model", None)
        return self.model if get_base is None else get_base()

    @property
    def busy(self) -> bool:
        """Whether any request is not done."""
        return bool(self._waiting or self._active)

    def submit(self, ids: Sequence[int], sampling: Sampling, adapter: str | None = None) -> Ticket:
        """Queue a prompt. `adapter` names one of the model's; None is the bare base."""
        if adapter is not None and adapter not in self.adapters:
            raise UserError(f"There is no adapter '{adapter}'.", wanted=f"one of {', '.join(self.adapters) or 'none'}")
        if len(ids) >= self.tokenizer.max_length:
            raise UserError(f"A prompt of {len(ids):,} tokens leaves no room for an answer.",
                            wanted=f"fewer than {self.tokenizer.max_length:,} tokens")
        guide = None
        if sampling.constraint is not None:
            guide = Guide(sampling.constraint, self.tokenizer, self.inner.get_output_embeddings().weight.shape[0])
        ticket = Ticket(list(ids), sampling, adapter, Chooser(sampling, guide),
                        TextSoFar(self.tokenizer, sampling.stop), len(ids), time.perf_counter())
        self._waiting.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stop answering; what has come so far is its completion."""
        ticket.cancelled = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around steps: the model answers as the engine needs it, and is given back as it was."""
        was_training = self.model.training
        self.model.eval()
        with ExitStack() as stack:
            if self._routes is not None:
                stack.enter_context(self._routes.open())
            self._forget()
            try:
                self._opened = stack.enter_context(ExitStack())
                self._switch(self._answering, again=True)
                yield
            finally:
                self._opened = None
                self.model.train(was_training)

    @torch.no_grad()
    def step(self) -> list[Ticket]:
        """Give every running request one more token; returns those that got one, or are done."""
        self._drop_cancelled()
        began = self._admit()
        going = [t for t in self._active if t not in began]
        news = self._advance(began) if began else []
        return news + (self._advance(going) if going else [])

    # ── who is answered ──────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self) -> list[Ticket]:
        """Give rows to waiting requests, and compute what they have in common."""
        if self._waiting and not self._active and self._routes is None:
            self._switch(self._waiting[0].adapter)
        fits = [t for t in self._waiting if self._routes is not None or t.adapter == self._answering]
        new = fits[:self.max_rows - len(self._active)]
        self._waiting = [t for t in self._waiting if t not in new]
        if not self.batched:
            self._active += new
            return new
        new.sort(key=lambda t: (t.adapter or "", t.ids))
        for together in _alike(new):
            shared = min(min(_common(together[0].ids, t.ids), len(t.ids) - 1) for t in together)
            if len(together) > 1 and shared - self._best(together[0])[1] >= WORTH_COPYING:
                self._place(together[0])
                self._extend([together[0]], upto=shared)
        rest = [t for t in new if t not in self._active]
        for ticket in sorted(rest, key=lambda t: len(t.ids) - self._best(t)[1]):
            self._place(ticket)
        return new

    def _best(self, ticket: Ticket) -> tuple[int, int]:
        """The row with most of a prompt's beginning, and how many tokens that is; the last one is always computed."""
        found = [(_common(ids, ticket.ids[:-1]), row) for row, (adapter, ids) in enumerate(self._kept)
                 if adapter == ticket.adapter]
        length, row = max(found, default=(0, 0))
        return (row, length) if length >= WORTH_COPYING else (0, 0)

    def _place(self, ticket: Ticket) -> None:
        """The next row is the ticket's, with what another one has of its beginning."""
        row = len(self._active)
        source, length = self._best(ticket)
        if row == len(self._kept):
            self._kept.append((None, []))
        if length and source != row:
            self._slots.copy(source, row, length + self._offset)
        elif not length and self._virtual is not None:
            self._slots.fill(row, self._virtual.cache(self.inner, 1))
        ticket.computed = length
        self._kept[row] = (ticket.adapter, ticket.ids[:length])
        self._active.append(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Close the gap with the last running row; what the row held stays until another request needs it."""
        row, last = self._active.index(ticket), len(self._active) - 1
        if self.batched and row != last:
            longest = max(len(self._kept[row][1]), len(self._kept[last][1])) + self._offset
            self._slots.swap(row, last, longest)
            self._kept[row], self._kept[last] = self._kept[last], self._kept[row]
        self._active[row] = self._active[last]
        self._active.pop()

    def _switch(self, adapter: str | None, *, again: bool = False) -> None:
        """Where adapters are answered in turn: the next one's turn."""
        assert self._opened is not None
        if self.adapters and self._routes is None and (again or adapter != self._answering):
            self._opened.close()
            self._opened.enter_context(switched(self.model, adapter))
            self._answering = adapter
            self._virtual = virtual_of(self.model)
            self._forget()

    def _forget(self) -> None:
        """Weights may have changed since: nothing that is kept holds."""
        if not self._active:
            self._kept = []

    def _drop_cancelled(self) -> None:
        for ticket in [t for t in (*self._waiting, *self._active) if t.cancelled]:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self._leave(ticket)
            self._finish(ticket, stopped=False)

    # ── computing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, tickets: list[Ticket]) -> list[Ticket]:
        """Compute what is pending and choose a token for each; pieces of neighbouring rows, of bounded size."""
        rows = sorted(tickets, key=self._active.index)
        chosen: list[tuple[Ticket, Choice]] = []
        for piece in _pieces(rows, self._active) if self.batched else [[t] for t in rows]:
            logits = self._extend(piece) if self.batched else self._alone(piece[0])
            chosen += zip(piece, choose(logits, [t.chooser for t in piece]), strict=True)
        for ticket, choice in chosen:
            self._take(ticket, choice)
        return tickets

    def _take(self, ticket: Ticket, choice: Choice) -> None:
        """One more token of an answer, or its end."""
        if choice.token in self._stops:
            ticket.choices.append(choice)
            self._leave(ticket)
            self._finish(ticket, stopped=True)
            return
        ticket.choices.append(choice)
        ticket.ids.append(choice.token)
        ticket.text.add(choice.token)
        guide = ticket.chooser.guide
        stopped = ticket.text.stopped or (guide is not None and guide.finished)
        room = min(ticket.sampling.max_new_tokens, self.tokenizer.max_length - self._offset - ticket.prompt_tokens)
        if stopped or len(ticket.ids) - ticket.prompt_tokens >= room:
            self._leave(ticket)
            self._finish(ticket, stopped=stopped)

    def _finish(self, ticket: Ticket, *, stopped: bool) -> None:
        ticket.text.close()
        kept = tuple(ticket.ids[ticket.prompt_tokens:])
        choices = ticket.choices[:len(kept)]
        ticket.cache = None
        ticket.done = Completion(
            ticket.text.text.strip(), kept, stopped, tuple(c.logprob for c in choices),
            tuple(c.top for c in choices) if ticket.sampling.top_logprobs else (), ticket.prompt_tokens,
            len(ticket.choices), time.perf_counter() - ticket.began)

    @property
    def _offset(self) -> int:
        """Virtual tokens that lie before every row's own."""
        return 0 if self._virtual is None else self._virtual.slots

    def _extend(self, tickets: Sequence[Ticket], upto: int | None = None) -> Tensor:
        """Compute the pending tokens of neighbouring rows, (B, m) padded on the right; logits (B, V) after the last."""
        low = self._active.index(tickets[0])
        ends = [len(t.ids) if upto is None else upto for t in tickets]
        counts = [end - t.computed for t, end in zip(tickets, ends, strict=True)]
        width, device = max(counts), self.inner.get_input_embeddings().weight.device
        ids = torch.tensor([t.ids[t.computed:end] + [self.tokenizer.pad_id] * (width - n)
                            for t, end, n in zip(tickets, ends, counts, strict=True)], device=device)
        starts = torch.tensor([t.computed + self._offset for t in tickets], device=device)
        now = Pass(slice(low, low + len(tickets)), starts.unsqueeze(1) + torch.arange(width, device=device),
                   max(t.computed for t in tickets) + self._offset + width)
        if self._routes is not None:
            self._routes.send([t.adapter for t in tickets])
        hidden = self._hidden(ids, now)
        last = hidden[torch.arange(len(tickets), device=device), torch.tensor(counts, device=device) - 1]
        for ticket, end in zip(tickets, ends, strict=True):
            ticket.computed = end
            self._kept[self._active.index(ticket)] = (ticket.adapter, ticket.ids[:end])
        return self._head(last)

    def _hidden(self, ids: Tensor, now: Pass) -> Tensor:
        config = self.inner.config.get_text_config()
        own = config._attn_implementation != "sdpa"
        self._slots.now = now
        with nullcontext() if own else attending(config, slots.NAME):
            out = self.inner.get_decoder()(
                input_ids=ids, position_ids=now.places, past_key_values=self._slots, use_cache=True,
                attention_mask=slots.masks(config, now, self.inner.dtype if own else None))
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.inner.get_output_embeddings()(hidden)
        shape = logit_shaping(self.inner.config)
        return logits if shape is None else shape(logits)

    def _alone(self, ticket: Ticket) -> Tensor:
        """Logits (1, V) of one request with the base's own cache; without one, everything is computed again."""
        if self._routes is not None:
            self._routes.send([ticket.adapter])
        if ticket.cache is None and self._virtual is not None:
            ticket.cache = self._virtual.cache(self.inner, 1)
        new = ticket.ids[ticket.computed:] if ticket.cache is not None else ticket.ids
        device = self.inner.get_input_embeddings().weight.device
        given = {} if ticket.cache is None else {"past_key_values": ticket.cache}
        out = self.inner(input_ids=torch.tensor([new], device=device), use_cache=True, **given)
        ticket.cache, ticket.computed = getattr(out, "past_key_values", None), len(ticket.ids)
        logits: Tensor = out.logits[:, -1]
        return logits

    @torch.no_grad()
    def _try_out(self) -> bool:
        """Whether rows of the cache give what the model's own forward gives: two prompts, in two passes."""
        try:
            slots.require_known(self.inner.config.get_text_config())
            words = min(self.inner.get_input_embeddings().weight.shape[0], 1000)
            rows = [[(7 * i + 3 * row) % (words - 1) + 1 for i in range(9 - 4 * row)] for row in range(2)]
            tickets = [Ticket(ids[:-2], Sampling(), None, Chooser(Sampling()), TextSoFar(self.tokenizer), 0, 0.0)
                       for ids in rows]
            for ticket in tickets:
                self._place(ticket)
            self._extend(tickets)
            for ticket, ids in zip(tickets, rows, strict=True):
                ticket.ids = ids
            got = self._extend(tickets)
            wanted = torch.cat([self._alone(Ticket(ids, Sampling(), None, Chooser(Sampling()),
                                                   TextSoFar(self.tokenizer), 0, 0.0)) for ids in rows])
        except Exception:   # whatever a family's own code makes of rows that it does not know
            return False
        finally:
            self._active, self._kept = [], []
        close = CLOSE if wanted.dtype == torch.float32 else CLOSE_16_BIT
        return bool((got - wanted).abs().max() <= close * (1 + wanted.abs().max()))


def stop_ids(model: Any, tokenizer: ChatTokenizer) -> set[int]:
    """Tokens that end an answer: the template's end of turn, and whatever the base itself stops at."""
    eos = model.generation_config.eos_token_id
    return {tokenizer.end_of_turn_id} | set(eos if isinstance(eos, list) else [] if eos is None else [eos])


@contextmanager
def switched(model: Any, adapter: str | None) -> Iterator[None]:
    """A PEFT model with one of its adapters switched on, or none; it is given back as it was."""
    if adapter is None:
        with bare(model):
            yield
        return
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    before = model.active_adapter
    model.set_adapter(adapter)
    try:
        yield
    finally:
        model.set_adapter(before)
        for parameter, was in trains:
            parameter.requires_grad_(was)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that two sequences have in common at the start."""
    end = min(len(one), len(other))
    return next((i for i in range(end) if one[i] != other[i]), end)


def _alike(tickets: Sequence[Ticket]) -> list[list[Ticket]]:
    """Neighbours of a sorted list whose prompts begin alike, by enough to be worth a copy; never a whole prompt."""
    found: list[list[Ticket]] = []
    for ticket in tickets:
        first = found[-1][0] if found else None
        if (first is not None and first.adapter == ticket.adapter
                and min(_common(first.ids, ticket.ids), len(first.ids) - 1, len(ticket.ids) - 1) >= WORTH_COPYING):
            found[-1].append(ticket)
        else:
            found.append([ticket])
    return found


def _pieces(tickets: Sequence[Ticket], active: Sequence[Ticket]) -> list[list[Ticket]]:
    """Runs of neighbouring rows whose padded tokens stay below the limit."""
    found: list[list[Ticket]] = []
    for ticket in tickets:
        last = found[-1] if found else []
        neighbours = bool(last) and active.index(ticket) == active.index(last[-1]) + 1
        wide = max((t.pending for t in [*last, ticket]), default=0) * (len(last) + 1)
        if neighbours and wide <= PREFILL_TOKENS:
            last.append(ticket)
        else:
            found.append([ticket])
    return found
