"""Generating for many at once: requests join and leave a running batch, and what they have in common is computed once.

A request has a row of the cache (`slots`). What its prompt shares with the tokens of any row, running or finished, is
copied from there; only the rest is computed. Greedy answers are those of `model.generate`, whoever else is answered.

Bases whose layers the slots do not fit (recurrent ones, positions that are made from a mask) are answered one by one
with their own cache, or, where that is not right either, by computing everything again. That is found out by trying
when the engine is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tuneloop.compute.model import attending, logit_shaping
from tuneloop.compute.virtual import Virtual, virtual_inputs, virtual_of
from tuneloop.errors import UserError
from tuneloop.inference import slots
from tuneloop.inference.constraint import Guide
from tuneloop.inference.routed import NotByRows, Routes, is_plain
from tuneloop.inference.sampling import Choice, Chooser, choose, require_valid
from tuneloop.inference.slots import Pass, Slots
from tuneloop.inference.text import TextSoFar
from tuneloop.inference.tickets import WORTH_COPYING, Ticket, alike, common, pieces
from tuneloop.methods._peft import bare
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Sampling

MAX_ROWS = 32
WORTH_A_PASS = 64       # tokens saved by computing common beginnings first; each forward reads all weights
CLOSE = 2e-4            # logits of the trial may differ by so much, relative to their size
CLOSE_16_BIT = 6e-2

_open_engines: WeakKeyDictionary[Any, Engine] = WeakKeyDictionary()     # by the model that each answers with


class Engine:
    """A model of transformers, bare or with adapters of PEFT.

    Where all of its adapters are plain LoRA, every request may name one of them, or none for the bare base, and all of
    them share batches. Other adapters are answered in turn, each in batches of its own.
    """

    def __init__(self, model: Any, tokenizer: ChatTokenizer, *, max_rows: int = MAX_ROWS) -> None:
        slots.register()
        self.model, self.tokenizer, self.max_rows = model, tokenizer, max_rows
        self._users = 0                         # who are within `running`
        self._opened: ExitStack | None = None   # gives the model back as it was
        self._routes: Routes | None = None      # where adapters share batches
        self._by_rows = True                    # unless layers were found in which they cannot
        self._seen: list[str] = []              # the model's adapters when it was opened
        self._turn = 0.0                        # since when `_answering` is, where adapters are answered in turn
        self._answering: str | None = None
        self._switched: ExitStack | None = None
        self._virtual: Virtual | None = None
        self._waiting: list[Ticket] = []
        self._rows: list[Ticket] = []           # ticket i has row i of the cache
        self._apart: list[Ticket] = []          # these have a cache of their own
        self._kept: list[tuple[str | None, list[int]]] = []     # what every row holds
        self._slots = Slots(self._config.num_hidden_layers)
        self._stops = stop_ids(self.inner, tokenizer)
        self._reach = slots.reach(self._config)
        self.batched, self.cached = False, True
        with self.running():
            self.batched, self.cached = self._try_out()

    @property
    def inner(self) -> Any:
        """The model of transformers itself, adapters' layers included."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def adapters(self) -> dict[str, Any]:
        """The model's adapters with their configurations, as they are now."""
        return self.model.peft_config if hasattr(self.model, "get_base_model") else {}

    @property
    def busy(self) -> bool:
        """Whether any request is not done."""
        return bool(self._waiting or self._rows or self._apart)

    def submit(self, ids: Sequence[int], sampling: Sampling, adapter: str | None = None) -> Ticket:
        """Queue a prompt. `adapter` names one of the model's; None is the bare base."""
        require_valid(sampling)
        room = self.tokenizer.max_length
        if adapter is not None:
            if adapter not in self.adapters:
                raise UserError(f"There is no adapter '{adapter}'.",
                                wanted=f"one of {', '.join(self.adapters) or 'none'}")
            config = self.adapters[adapter]
            room -= config.num_virtual_tokens if config.is_prompt_learning else 0
        if not 0 < len(ids) < room:
            raise UserError(f"A prompt of {len(ids):,} tokens leaves no room for an answer." if ids else
                            "A prompt of no tokens cannot be answered.", wanted=f"1 to {room - 1:,} tokens")
        guide = None
        if sampling.constraint is not None:
            guide = Guide(sampling.constraint, self.tokenizer, self.inner.get_output_embeddings().weight.shape[0])
        ticket = Ticket(list(ids), sampling, adapter, Chooser(sampling, guide),
                        TextSoFar(self.tokenizer, sampling.stop), len(ids), time.perf_counter())
        self._waiting.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stop answering; with the next step, or `drop_cancelled`, what has come so far is its completion."""
        ticket.cancelled = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around steps: the model answers as the engine needs it, and is given back as it was. May be nested."""
        if not self._users:
            self._open()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The model as it was given, for something else than steps. Its weights and adapters may change within."""
        if not self._users:
            yield
            return
        self._close()
        try:
            yield
        finally:
            self._open()

    @torch.no_grad()
    def step(self) -> list[Ticket]:
        """Give every running request one more token; returns those that got one, or are done.

        An error ends all that are running, since nobody knows how far they came; those that wait go on waiting.
        """
        try:
            if list(self.adapters) != self._seen:
                self._reopen()
            gone = self.drop_cancelled()
            began = self._admit()
            going = [t for t in (*self._rows, *self._apart) if t not in began]
            self._advance(began)
            self._advance(going)
            return [*gone, *began, *going]
        except NotByRows:
            self._by_rows = False
            self._reopen()
            return []
        except BaseException:
            for ticket in (*self._rows, *self._apart):
                self._finish(ticket, stopped=False)
            self._rows, self._apart, self._kept = [], [], []
            raise

    def drop_cancelled(self) -> list[Ticket]:
        """Finish those, and requests to adapters that the model has no more."""
        gone = [t for t in (*self._waiting, *self._rows, *self._apart)
                if t.cancelled or not (t.adapter is None or t.adapter in self.adapters)]
        for ticket in gone:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self._leave(ticket)
            self._finish(ticket, stopped=False)
        return gone

    # ── the model while it answers ───────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if _open_engines.setdefault(self.inner, self) is not self:
            raise RuntimeError("another engine is answering with this model; both would change what the other says")
        with ExitStack() as stack:
            stack.callback(_open_engines.pop, self.inner, None)
            stack.callback(self.model.train, self.model.training)
            self.model.eval()
            self._seen = list(self.adapters)
            plain = self._by_rows and self.batched and all(map(is_plain, self.adapters.values()))
            self._routes = Routes(self.model) if self.adapters and plain else None
            if self._routes is not None:
                stack.enter_context(self._routes.open())
            self._switched = stack.enter_context(ExitStack())
            self._answering = None
            self._switch(None)
            self._opened = stack.pop_all()

    def _close(self) -> None:
        """Nothing that was computed is kept: weights may change. Who is running begins again with what has come."""
        for ticket in (*self._rows, *self._apart):
            ticket.row, ticket.computed, ticket.cache = -1, 0, None
        self._waiting = [*self._rows, *self._apart, *self._waiting]
        self._rows, self._apart, self._kept = [], [], []
        self._slots = Slots(self._config.num_hidden_layers)
        if self._opened is not None:
            self._opened.close()
        self._opened = self._switched = self._routes = self._virtual = None

    def _reopen(self) -> None:
        self._close()
        self._open()

    def _switch(self, adapter: str | None) -> None:
        """Where adapters are answered in turn: the next one's turn."""
        assert self._switched is not None
        self._turn = time.perf_counter()
        self._answering = adapter
        if self.adapters and self._routes is None:
            self._switched.close()
            self._switched.enter_context(switched(self.model, adapter))
            self._virtual = virtual_of(self.model)
            self._kept = []

    # ── who is answered ──────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self) -> list[Ticket]:
        """Give rows to waiting requests, and compute what they have in common."""
        free = self.max_rows - len(self._rows) - len(self._apart)
        fits = self._waiting if self._routes is not None else self._whose_turn(free == self.max_rows)
        new = fits[:free]
        for ticket in new:
            if not self._shares(ticket):
                self._waiting.remove(ticket)
                self._apart.append(ticket)
        rows = sorted(filter(self._shares, new), key=lambda t: (t.adapter or "", t.ids))
        ahead: list[tuple[Ticket, int]] = []
        for together in alike(rows):
            first = together[0]
            shared = min(min(common(first.ids, t.ids), len(t.ids) - 1) for t in together)
            if (len(together) - 1) * (shared - self._best(first)[1]) >= WORTH_A_PASS:
                self._place(first)
                ahead.append((first, shared))
        for piece in pieces(ahead):
            self._extend(piece)
        rest = [(len(t.ids) - self._best(t)[1], t) for t in rows if t.row < 0]
        for _, ticket in sorted(rest, key=lambda r: (r[0].bit_length(), r[1].adapter or "", r[0])):
            self._place(ticket)     # rows of like length are neighbours, and among those the rows of one adapter
        return new

    def _whose_turn(self, idle: bool) -> list[Ticket]:
        """Waiting requests to the adapter whose turn it is. Who came later than the turn began waits for the others."""
        if idle and self._waiting:
            if self._waiting[0].adapter != self._answering:
                self._switch(self._waiting[0].adapter)
            self._turn = time.perf_counter()
        alone = all(t.adapter == self._answering for t in self._waiting)
        return [t for t in self._waiting if t.adapter == self._answering and (alone or t.began <= self._turn)]

    def _shares(self, ticket: Ticket) -> bool:
        """Whether a request can have a row of the shared cache."""
        longest = ticket.prompt_tokens + ticket.sampling.max_new_tokens + self._offset
        return self.batched and (self._reach is None or longest <= self._reach)

    def _best(self, ticket: Ticket) -> tuple[int, int]:
        """The row with most of a prompt's beginning, and how many tokens that is; the last one is always computed."""
        found = [(min(common(ids, ticket.ids), len(ticket.ids) - 1), row)
                 for row, (adapter, ids) in enumerate(self._kept) if adapter == ticket.adapter]
        length, row = max(found, default=(0, 0))
        return (row, length) if length >= WORTH_COPYING else (0, 0)

    def _place(self, ticket: Ticket) -> None:
        """The next row is the ticket's, with what another one has of its beginning."""
        row = len(self._rows)
        source, length = self._best(ticket)
        if row == len(self._kept):
            self._kept.append((None, []))
        if length and source != row:
            self._slots.copy(source, row, length + self._offset)
        elif not length and self._virtual is not None:
            self._slots.fill(row, self._virtual.cache(self.inner, 1))
        self._waiting.remove(ticket)
        ticket.row, ticket.computed = row, length
        self._kept[row] = (ticket.adapter, ticket.ids[:length])
        self._rows.append(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Close the gap with the last running row; what the row held stays until another request needs it."""
        if ticket.row < 0:
            self._apart.remove(ticket)
            return
        row, last = ticket.row, self._rows.pop()
        if last is not ticket:
            longest = max(len(self._kept[row][1]), len(self._kept[last.row][1])) + self._offset
            self._slots.swap(row, last.row, longest)
            self._kept[row], self._kept[last.row] = self._kept[last.row], self._kept[row]
            self._rows[row], last.row = last, row

    # ── computing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, tickets: Sequence[Ticket]) -> None:
        """Compute what is pending and choose a token for each; pieces of neighbouring rows, of bounded size."""
        answered: list[tuple[list[Ticket], Tensor]] = []
        for piece in pieces([(t, len(t.ids)) for t in sorted(tickets, key=lambda t: t.row) if t.row >= 0]):
            answered.append(([ticket for ticket, _ in piece], self._extend(piece)))
        answered += [([ticket], self._alone(ticket)) for ticket in tickets if ticket.row < 0]
        chosen: list[tuple[Ticket, Choice]] = []
        for of, logits in answered:     # all of them first: a pass that fails must leave no token drawn and not taken
            chosen += zip(of, choose(logits, [t.chooser for t in of]), strict=True)
        for ticket, choice in chosen:
            self._take(ticket, choice)

    def _take(self, ticket: Ticket, choice: Choice) -> None:
        """One more token of an answer, or its end."""
        ticket.choices.append(choice)
        if choice.token in self._stops:
            self._leave(ticket)
            self._finish(ticket, stopped=True)
            return
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
            ticket.text.text.strip(), kept, stopped or ticket.text.stopped, tuple(c.logprob for c in choices),
            tuple(c.top for c in choices) if ticket.sampling.top_logprobs else (), ticket.prompt_tokens,
            len(ticket.choices), time.perf_counter() - ticket.began,
            next(((c.token, c.logprob) for c in ticket.choices[len(kept):]), None))

    @property
    def _config(self) -> Any:
        return self.inner.config.get_text_config()

    @property
    def _offset(self) -> int:
        """Virtual tokens that lie before every row's own."""
        return 0 if self._virtual is None else self._virtual.slots

    def _extend(self, piece: Sequence[tuple[Ticket, int]]) -> Tensor:
        """Compute the tokens of neighbouring rows up to an end each, (B, m) padded on the right; logits (B, V) there.
        """
        tickets = [ticket for ticket, _ in piece]
        counts = [end - t.computed for t, end in piece]
        width, device, pad = max(counts), self.inner.get_input_embeddings().weight.device, self.tokenizer.pad_id
        ids = torch.tensor([t.ids[t.computed:end] + [pad] * (width - n)
                            for (t, end), n in zip(piece, counts, strict=True)], device=device)
        starts = torch.tensor([t.computed + self._offset for t in tickets], device=device)
        now = Pass(slice(tickets[0].row, tickets[-1].row + 1),
                   starts.unsqueeze(1) + torch.arange(width, device=device),
                   max(t.computed for t in tickets) + self._offset + width)
        if self._routes is not None:
            self._routes.send([t.adapter for t in tickets], width)
        hidden = self._hidden(ids, now)
        last = hidden[torch.arange(len(tickets), device=device), torch.tensor(counts, device=device) - 1]
        for ticket, end in piece:
            ticket.computed = end
            self._kept[ticket.row] = (ticket.adapter, ticket.ids[:end])
        return self._head(last)

    def _hidden(self, ids: Tensor, now: Pass) -> Tensor:
        own = self._config._attn_implementation != "sdpa"
        self._slots.now = now
        positions = now.places.clamp(max=self.tokenizer.max_length - 1)     # padding reaches beyond what there is
        with nullcontext() if own else attending(self._config, slots.NAME):
            out = self.inner.get_decoder()(
                input_ids=ids, position_ids=positions, past_key_values=self._slots, use_cache=True,
                attention_mask=slots.masks(self._config, now, self.inner.dtype))
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _head(self, hidden: Tensor) -> Tensor:
        """Logits (B, V) of hidden states (B, d)."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden.unsqueeze(1)).squeeze(1)
        shape = logit_shaping(self.inner.config)
        return logits if shape is None else shape(logits)

    def _alone(self, ticket: Ticket) -> Tensor:
        """Logits (1, V) of one request with the base's own cache, or without any where that is not right."""
        if self._reach is not None and ticket.computed <= self._reach < len(ticket.ids):
            ticket.cache = None     # other positions from here on, as transformers' own generation does it
        if ticket.cache is None:
            ticket.computed = 0
        new = ticket.ids[ticket.computed:]
        if self._routes is not None:
            self._routes.send([ticket.adapter], len(new))
        if not self.cached:
            return self._whole(new)
        if ticket.cache is None and self._virtual is not None:
            ticket.cache = self._virtual.cache(self.inner, 1)
        device = self.inner.get_input_embeddings().weight.device
        out = self.inner(input_ids=torch.tensor([new], device=device), use_cache=True,
                         **{} if ticket.cache is None else {"past_key_values": ticket.cache})
        ticket.cache, ticket.computed = getattr(out, "past_key_values", None), len(ticket.ids)
        logits: Tensor = out.logits[:, -1]
        return logits

    def _whole(self, ids: Sequence[int]) -> Tensor:
        """Logits (1, V) after these tokens by one forward, with the inputs that this family gives itself."""
        given = torch.tensor([ids], device=self.inner.get_input_embeddings().weight.device)
        prepare = getattr(self.inner, "prepare_inputs_for_generation", None)
        if self._virtual is not None or prepare is None:
            inputs = virtual_inputs(self.inner, self._virtual, given)
        else:
            inputs = prepare(given, attention_mask=torch.ones_like(given))
        logits: Tensor = self.inner(**inputs | {"use_cache": False}).logits[:, -1]
        return logits

    @torch.no_grad()
    def _try_out(self) -> tuple[bool, bool]:
        """Whether rows of the cache, and whether the base's own cache, give what one forward over everything gives.

        Two prompts of different lengths, in two passes; recurrent layers take one token at a time in the second.
        """
        words = min(self.inner.get_input_embeddings().weight.shape[0], 1000)
        rows = [[(7 * i + 3 * row) % (words - 1) + 1 for i in range(9 - 4 * row)] for row in range(2)]
        wanted = torch.cat([self._whole(ids) for ids in rows])

        def right(ask: Callable[[list[Ticket]], Tensor], second: int) -> bool:
            tickets = [Ticket(ids[:-second], Sampling(), None, Chooser(Sampling()), TextSoFar(self.tokenizer), 0, 0.0)
                       for ids in rows]
            try:
                ask(tickets)
                for ticket, ids in zip(tickets, rows, strict=True):
                    ticket.ids = ids
                got = ask(tickets)
            except Exception:   # whatever a family's own code makes of rows that it does not know
                return False
            close = CLOSE if wanted.dtype == torch.float32 else CLOSE_16_BIT
            return bool((got - wanted).abs().max() <= close * (1 + wanted.abs().max()))

        def in_rows(tickets: list[Ticket]) -> Tensor:
            slots.require_known(self._config)
            for ticket in tickets:
                if ticket.row < 0:
                    self._waiting.append(ticket)
                    self._place(ticket)
            return self._extend([(ticket, len(ticket.ids)) for ticket in tickets])

        batched = right(in_rows, 2)
        self._waiting, self._rows, self._kept = [], [], []
        needed = not batched or self._reach is not None
        return batched, needed and right(lambda tickets: torch.cat([self._alone(t) for t in tickets]), 1)


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
