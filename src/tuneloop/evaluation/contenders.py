"""Who is compared with whom: the base as it is, with examples, with a better prompt, rivals that the user names, and
the tuned model. Each is a name, a model and one request for every test row, so that `asking.ask` asks them all alike.

What a contender is given beside the test rows comes from training rows, and what it is chosen by from validation rows.
Rows that ask what a test row asks are left out of both.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tuneloop.errors import UserError
from tuneloop.evaluation.asking import ask, named_labels
from tuneloop.evaluation.cost import Price
from tuneloop.spec import Spec
from tuneloop.types import Conversation, Message, Request, Sampling, request_of

if TYPE_CHECKING:
    from tuneloop.inference.backend import Backend
    from tuneloop.inference.remote import Template
    from tuneloop.models.tokenizer import ChatTokenizer

FEW_SHOT, OPTIMISED = "few_shot", "optimised_prompt"
Fits = Callable[[Request], bool]
Measure = Callable[[Sequence[str], Sequence[str]], float]       # (references, texts) -> a score, higher is better

PROPOSALS, SHOWN_EXAMPLES = 4, 4
LONGEST_INSTRUCTION = 800           # characters
PROPOSING = Sampling(max_new_tokens=120, temperature=0.7, top_p=0.95)
FOR_LABELS = (
    "{labels}",
    "Decide which one fits what follows best. {labels}",
    "You are careful and exact. Read all of the text before you decide, and think of what separates the labels from "
    "each other. {labels}",
)
FOR_OPEN = (
    "Answer in the shortest form that is complete, without any introduction.",
    "You are an expert. Answer correctly and to the point, and say nothing that was not asked for.",
    "Read carefully what is asked, and in which form. Give the final answer alone.",
)
PROPOSE = ("Somebody got an instruction and followed it. Here is what came in, and what they answered each time.\n\n"
           "{examples}\n\nWrite the instruction they got, in one or two sentences, and nothing else.")


class RemoteRival(Spec):
    """A model behind a server that speaks the OpenAI API."""

    url: str
    """Such as https://host/v1."""
    model: str = ""
    """As the server calls it; may be left out where it has only one."""
    key_env: str = ""
    """The environment variable that holds the key. The key itself is never written down."""
    tokenizer: str = ""
    """A base with the model's chat template: with it, and a server that echoes, labels are chosen by likelihood."""
    price: Price | None = None


@dataclass(frozen=True)
class Contender:
    """A model and what it is asked: request i is about test row i."""

    name: str
    backend: Backend
    requests: list[Request]
    about: str = ""                 # what it was given, for whoever reads the report
    price: Price | None = None      # of its own server
    is_remote: bool = False         # then the price of this machine says nothing of it


@dataclass(frozen=True)
class Shots:
    """Requests with examples in front, and which training rows these are."""

    requests: list[Request]
    examples: list[Conversation]


@dataclass(frozen=True)
class Tried:
    """An instruction and what it reached on so many validation rows."""

    instruction: str                # "" is the prompt as it was
    rows: int
    score: float


@dataclass(frozen=True)
class BestPrompt:
    """Requests with the best instruction in front, and all that were tried, the best first."""

    requests: list[Request]
    instruction: str
    tried: list[Tried]


def requests_of(rows: Sequence[Conversation]) -> list[Request]:
    """What rows ask, without their answers."""
    return list(map(request_of, rows))


def fits_into(tokenizer: ChatTokenizer, new_tokens: int) -> Fits:
    """Whether a request and an answer of so many tokens fit into what a base takes."""
    def fits(request: Request) -> bool:
        [ids] = tokenizer.encode([tokenizer.prompt_text(request.messages, request.tools)])
        return len(ids) + new_tokens <= tokenizer.max_length

    return fits


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────────

def few_shot(rows: Sequence[Conversation], train: Sequence[Conversation], k: int, seed: int, fits: Fits, *,
             labels: Sequence[str] = ()) -> Shots:
    """Every row after the same k training rows as earlier turns, so that their tokens are computed once.

    With `labels` the examples take turns among them. Fewer examples are given where k do not fit in front of every row.
    Raises a UserError where not even one fits, or there is none.
    """
    order = _without(train, rows)
    if not order or k < 1:
        raise UserError("No training row is left to give as an example.",
                        wanted="rows that are not among the test rows")
    random = np.random.default_rng(seed)
    order = [order[i] for i in random.permutation(len(order))]
    chosen = _balanced(order, labels, random)[:k] if labels else order[:k]
    longest_first = sorted(requests_of(rows), key=lambda request: -sum(len(turn.content) for turn in request.messages))
    while chosen and not all(fits(_with_examples(request, chosen)) for request in longest_first):
        chosen = chosen[:-1]
    if not chosen:
        raise UserError("Not even one example fits in front of the longest test row.",
                        fix="leave the few-shot base out, or shorten the rows")
    return Shots([_with_examples(request, chosen) for request in requests_of(rows)], chosen)


def _without(given: Sequence[Conversation], tested: Sequence[Conversation]) -> list[Conversation]:
    """Rows that ask what no test row asks."""
    asked = {_asked(row) for row in tested}
    return [row for row in given if _asked(row) not in asked]


def _asked(row: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((turn.role, turn.content) for turn in row.prompt if turn.role != "system")


def _balanced(rows: Sequence[Conversation], labels: Sequence[str],
              random: np.random.Generator) -> list[Conversation]:
    """Rows of each label in turn, in an order of labels that is drawn; rows of other answers are left out."""
    names = [labels[i] for i in random.permutation(len(labels))]
    piles = [[row for row in rows if row.answer.strip() == label] for label in names]
    deepest = max(map(len, piles), default=0)
    return [pile[depth] for depth in range(deepest) for pile in piles if depth < len(pile)]


def _with_examples(request: Request, examples: Sequence[Conversation]) -> Request:
    """The request's own system turn first, then the examples' turns, then its others."""
    system = [turn for turn in request.messages if turn.role == "system"]
    rest = [turn for turn in request.messages if turn.role != "system"]
    shown = [turn for row in examples for turn in row.messages if turn.role != "system"]
    return replace(request, messages=(*system, *shown, *rest),
                   rows=(*request.rows, *(row.origin.row for row in examples)))


# ── a better prompt ──────────────────────────────────────────────────────────────────────────────────────────────────

def optimised_prompt(rows: Sequence[Conversation], train: Sequence[Conversation], validation: Sequence[Conversation],
                     backend: Backend, measure: Measure, fits: Fits, *, labels: Sequence[str] = (), budget: int = 400,
                     seed: int = 0, sampling: Sampling | None = None) -> BestPrompt:
    """The best of some instructions in front of each row: written ones, and what the base itself takes to be the
    instruction that training rows followed (APE, Zhou et al. 2022, arXiv 2211.01910, forward generation).

    They are chosen by `measure` on validation rows, never on test rows: half of them drop out in each round, and the
    others are measured on more rows (successive halving, Jamieson and Talwalkar 2016, arXiv 1502.07943), with at most
    `budget` answers in all. The prompt as it was takes part, and wins ties. Deviations from APE: instructions are not
    rephrased in further rounds, and selection is by score and not by likelihood.
    """
    trials = _without(validation, rows)
    if not trials:
        raise UserError("No validation row is left to choose a prompt by.", wanted="rows that are not among the test "
                        "rows")
    random = np.random.default_rng(seed)
    trials = [trials[i] for i in random.permutation(len(trials))]
    tested, asked = requests_of(rows), requests_of(trials)
    candidates = [instruction for instruction in _candidates(_without(train, rows), backend, fits, labels, random)
                  if all(fits(_instructed(request, instruction)) for request in (*tested, *asked)) or not instruction]
    dropped: list[Tried] = []
    alive = [Tried(instruction, 0, 0.0) for instruction in candidates]
    rounds = max(1, math.ceil(math.log2(len(alive))))
    for _ in range(rounds):
        count = min(len(trials), max(1, budget // rounds // len(alive)))
        references = [row.answer for row in trials[:count]]

        def tried(instruction: str, count: int = count, references: list[str] = references) -> Tried:
            requests = [_instructed(request, instruction) for request in asked[:count]]
            texts = ask(backend, requests, references, labels, sampling, likelihood=False).answers.texts
            return Tried(instruction, count, measure(references, texts))

        ranked = sorted((tried(one.instruction) for one in alive),
                        key=lambda one: (-one.score, candidates.index(one.instruction)))
        alive, out = ranked[:math.ceil(len(ranked) / 2)], ranked[math.ceil(len(ranked) / 2):]
        dropped = out + dropped
    best = alive[0].instruction
    return BestPrompt([_instructed(request, best) for request in tested], best, alive + dropped)


def _candidates(train: Sequence[Conversation], backend: Backend, fits: Fits, labels: Sequence[str],
                random: np.random.Generator) -> list[str]:
    """The prompt as it was, the written instructions, and those that the base proposes; each once."""
    written = [text.format(labels=named_labels(labels)) for text in FOR_LABELS] if labels else list(FOR_OPEN)
    asked = []
    for _ in range(PROPOSALS if train else 0):
        drawn = random.choice(len(train), min(SHOWN_EXAMPLES, len(train)), replace=False)
        examples = "\n\n".join(f"Input: {train[i].prompt[-1].content}\nAnswer: {train[i].answer}" for i in drawn)
        asked.append(Request((Message("user", PROPOSE.format(examples=examples)),),
                             rows=tuple(train[i].origin.row for i in drawn)))
    asked = [request for request in asked if fits(request)]
    samplings = [replace(PROPOSING, seed=int(random.integers(2**31))) for _ in asked]
    proposed = [_cleaned(completion.text) for completion in backend.generate(asked, samplings)] if asked else []
    return list(dict.fromkeys(["", *written, *(f"{text} {named_labels(labels)}".strip() for text in proposed if text)]))


def _cleaned(text: str) -> str:
    """The first paragraph, without quotes or a heading such as "Instruction:"."""
    first = next((part for part in text.strip().split("\n\n") if part.strip()), "")
    head, colon, rest = first.partition(":")
    bare = rest if colon and "instruction" in head.lower() and len(head) < 40 else first
    return " ".join(bare.split()).strip("\"'“”`* ")[:LONGEST_INSTRUCTION]


def _instructed(request: Request, instruction: str) -> Request:
    """The instruction in front of the last turn of the user; not as a system turn, which some templates refuse."""
    if not instruction:
        return request
    last = max((i for i, turn in enumerate(request.messages) if turn.role == "user"), default=None)
    if last is None:
        return replace(request, messages=(*request.messages, Message("user", instruction)))
    turn = request.messages[last]
    told = replace(turn, content=f"{instruction}\n\n{turn.content}")
    return replace(request, messages=(*request.messages[:last], told, *request.messages[last + 1:]))


# ── rivals ───────────────────────────────────────────────────────────────────────────────────────────────────────────

OURS = ("base", "tuned", "rival", FEW_SHOT, OPTIMISED)
"""Names that contenders of our own have."""


def named(given: str | RemoteRival) -> str:
    """What a rival is called; "" where only its server knows."""
    return given.model if isinstance(given, RemoteRival) else given


def require_apart(compare_to: Sequence[str | RemoteRival]) -> None:
    """Raise a UserError where two models would have one name."""
    names = [*OURS, *filter(None, map(named, compare_to))]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two of the models that are compared are called {name}.",
                            fix="leave one of them out of compare_to")


def rival(given: str | RemoteRival, rows: Sequence[Conversation], open_base: Callable[[str], Backend],
          template_of: Callable[[str], Template], others: Sequence[str] = ()) -> Contender:
    """One model that the recipe compares to: a base by name, or a remote model. Raises a UserError where it cannot be
    reached or is not there, or is called as one of `OURS` or of the `others`.
    """
    backend = opened(given, open_base, template_of)
    name = backend.name if isinstance(given, RemoteRival) else given
    if name in (*OURS, *others):
        raise UserError(f"Two of the models that are compared are called {name}.",
                        fix="leave one of them out of compare_to")
    if isinstance(given, RemoteRival):
        return Contender(name, backend, requests_of(rows), f"{name} at {given.url}", given.price, is_remote=True)
    return Contender(name, backend, requests_of(rows), f"the base {name}")


def answers_file(name: str) -> str:
    """The file in `evaluation/` that holds a contender's answers. Two models that the user names, by paths or ids
    that end alike, must not share one, nor have one of ours.
    """
    if name in OURS:
        return f"{name}.json"
    readable = re.sub(r"[^\w.-]", "_", name.rpartition("/")[2])[-40:]
    return f"model-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def opened(given: str | RemoteRival, open_base: Callable[[str], Backend],
           template_of: Callable[[str], Template]) -> Backend:
    """A model that the recipe names. Raises a UserError for one that cannot be reached or is not there."""
    return _remote(given, template_of) if isinstance(given, RemoteRival) else open_base(given)


def template(tokenizer: ChatTokenizer) -> Template:
    """What a server with this tokenizer's chat template makes of requests."""
    from tuneloop.inference.remote import Template

    return Template(lambda request: tokenizer.prompt_text(request.messages, request.tools), tokenizer.end_of_turn)


def _remote(given: RemoteRival, template_of: Callable[[str], Template]) -> Backend:
    from tuneloop.inference.remote import Remote

    known = template_of(given.tokenizer) if given.tokenizer else None
    remote = Remote(given.url, given.model, given.key_env, template=known)
    remote.check()
    return remote
