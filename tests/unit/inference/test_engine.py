"""The engine answers as `model.generate` does with the same adapter, alone and in any company, and computes once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from tiny import FAMILIES, tiny_base, tiny_config, tiny_tokenizer
from tuneloop.errors import UserError
from tuneloop.inference.engine import Engine
from tuneloop.inference.local import answer
from tuneloop.inference.tickets import Ticket
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Sampling

CLOSE = 1e-4        # below this gap between the two best tokens, greedy decoding may go either way
NEW = 12
WORDS = [torch.randint(5, 200, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (40, 40, 7)]
PROMPTS = [[*WORDS[0][:20], *WORDS[1][:n]] for n in (3, 9, 1, 14)] + [WORDS[1][:2], WORDS[1], WORDS[2]]
"""Four that begin alike, and three of very different lengths."""


def randomly(model: Any, seed: int = 0) -> Any:
    """PEFT begins with adapters that change nothing."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("lora_", "prompt", "ia3")):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.requires_grad_(False).eval()


def lora(base: Any, ranks: Sequence[int] = (4, 8, 2)) -> Any:
    """Adapters a0, a1 …, of different ranks and layers."""
    for i, rank in enumerate(ranks):
        config = LoraConfig(r=rank, target_modules=["q_proj", "up_proj"] if i % 2 else "all-linear", use_rslora=i == 2)
        if i:
            base.add_adapter(f"a{i}", config)
        else:
            base = get_peft_model(base, config, adapter_name="a0")
    return randomly(base)


@pytest.fixture(scope="module")
def base(untied: Path) -> Any:
    return load_model(untied, dtype=torch.float32)


@pytest.fixture(scope="module")
def adapted(untied: Path) -> Any:
    return lora(load_model(untied, dtype=torch.float32))


def alone(model: Any, tokenizer: ChatTokenizer, prompt: Sequence[int], adapter: str | None,
          new: int = NEW) -> tuple[list[int], int]:
    """What `generate` says to a prompt by itself, and how many tokens of it are beyond doubt."""
    stops = {tokenizer.end_of_turn_id, model.generation_config.eos_token_id}
    ids = torch.tensor([list(prompt)])

    def ask() -> tuple[list[int], Any]:
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                             eos_token_id=sorted(stops), pad_token_id=tokenizer.pad_id, output_logits=True,
                             return_dict_in_generate=True)
        return out.sequences[0, -len(out.logits):].tolist(), torch.cat(out.logits)

    with torch.no_grad():
        if adapter is None and hasattr(model, "peft_config"):
            with model.disable_adapter():
                found, logits = ask()
        else:
            if adapter is not None:
                model.set_adapter(adapter)
            found, logits = ask()
    best = logits.topk(2).values
    close = torch.nonzero(best[:, 0] - best[:, 1] < CLOSE).flatten().tolist()
    answered = [token for token in found if token not in stops]
    return answered, min([*close, len(answered)])


def assert_as_alone(model: Any, tokenizer: ChatTokenizer, tickets: Sequence[Ticket], new: int = NEW) -> None:
    for ticket in tickets:
        assert ticket.done is not None
        wanted, sure = alone(model, tokenizer, ticket.ids[:ticket.prompt_tokens], ticket.adapter, new)
        assert list(ticket.done.token_ids[:sure]) == wanted[:sure]
        if sure == len(wanted):
            assert (len(ticket.done.token_ids), ticket.done.stopped) == (len(wanted), len(wanted) < new)


def run(engine: Engine, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
    with engine.running():
        while engine.busy:
            engine.step()
    return tickets


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_generate(family: str, tmp_path: Path) -> None:
    """Gemma's window of 16 tokens is shorter than most of these."""
    folder = tiny_base(tmp_path, family, tie_word_embeddings=False)
    model, own = load_model(folder, dtype=torch.float32), ChatTokenizer(folder)
    engine = Engine(model, own)
    assert engine.batched
    tickets = run(engine, [engine.submit(p, Sampling(NEW)) for p in PROMPTS])
    assert_as_alone(model, own, tickets)
    assert len({t.done.token_ids for t in tickets if t.done}) > 4


@pytest.mark.parametrize(("family", "changes"), [
    ("mistral", {"sliding_window": 8}), ("phi3", {"sliding_window": 8}), ("cohere2", {"sliding_window": 8}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ("gpt_oss", {"sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("gemma2", {"sliding_window": 8}),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    ("olmo3", {"sliding_window": 8}), ("granite", {}), ("bloom", {}), ("opt", {}), ("mamba", {}), ("gpt_neox", {}),
    ("qwen3_next", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                    "layer_types": ["linear_attention", "full_attention"]}),
    ("lfm2", {}), ("gptj", {"rotary_dim": 8}),
])
def test_every_family_is_answered_rightly(family: str, changes: dict[str, Any], tokenizer: ChatTokenizer) -> None:
    """Windows by masks; sinks, soft caps and experts by the base's own layers; others one by one with their cache."""
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, tiny_tokenizer(), **{"tie_word_embeddings": False} | changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    engine = Engine(model, tokenizer)
    assert_as_alone(model, tokenizer, run(engine, [engine.submit(p, Sampling(NEW)) for p in PROMPTS]))


@pytest.mark.parametrize(("family", "batched"), [
    ("llama", True), ("gpt_oss", True), ("mamba", False), ("bloom", False)])
def test_who_shares_a_batch(family: str, batched: bool, tokenizer: ChatTokenizer) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config(family, tiny_tokenizer()), dtype=torch.float32).eval()
    assert Engine(model, tokenizer).batched == batched


def test_adapters_and_the_base_share_a_batch(adapted: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(adapted, tokenizer)
    names = ["a0", None, "a2", "a1", "a1", "a0", None]
    tickets = run(engine, [engine.submit(p, Sampling(NEW), name) for p, name in zip(PROMPTS, names, strict=True)])
    assert_as_alone(adapted, tokenizer, tickets)
    same = run(engine, [engine.submit(PROMPTS[0], Sampling(NEW), name) for name in (None, "a0", "a1", "a2")])
    assert len({t.done.token_ids for t in same if t.done}) == 4


ARRIVALS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 25), st.integers(1, 15), st.integers(0, 2),
                              st.sampled_from([None, "a0", "a1", "a2"]), st.integers(1, 14)), min_size=1, max_size=12)


@pytest.mark.parametrize("examples", [8, pytest.param(80, marks=pytest.mark.slow)])
def test_whoever_comes_when(examples: int, adapted: Any, tokenizer: ChatTokenizer) -> None:
    """Requests of any length and adapter that join at any step, more than there are rows."""
    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(ARRIVALS)
    def check(arrivals: list[tuple[int, int, int, int, str | None, int]]) -> None:
        engine = Engine(adapted, tokenizer, max_rows=4)
        tickets = []
        with engine.running():
            for wait, shared, own, which, adapter, new in arrivals:
                for _ in range(wait):
                    engine.step()
                tickets.append(engine.submit(WORDS[0][:shared] + WORDS[which][:own], Sampling(new), adapter))
            while engine.busy:
                engine.step()
        for ticket in tickets:
            assert_as_alone(adapted, tokenizer, [ticket], ticket.sampling.max_new_tokens)

    check()


@pytest.mark.parametrize("make", [
    lambda base: get_peft_model(base, LoraConfig(r=4, use_dora=True, target_modules="all-linear"), adapter_name="x"),
    lambda base: get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
                                adapter_name="x"),
], ids=["dora", "prompt"])
def test_other_adapters_have_batches_of_their_own(make: Callable[[Any], Any], untied: Path,
                                                  tokenizer: ChatTokenizer) -> None:
    model = randomly(make(load_model(untied, dtype=torch.float32)))
    engine = Engine(model, tokenizer)
    names = ["x", None, "x", "x", None, None, "x"]
    tickets = run(engine, [engine.submit(p, Sampling(NEW), name) for p, name in zip(PROMPTS, names, strict=True)])
    by_name = {name: [t for t in tickets if t.adapter == name] for name in ("x", None)}
    assert_as_alone(model, tokenizer, by_name[None])
    for ticket in by_name["x"]:     # PEFT's own generation alone is right; padded rows are what it puts elsewhere
        assert ticket.done is not None
        wanted, sure = alone(model, tokenizer, ticket.ids[:ticket.prompt_tokens], "x")
        assert list(ticket.done.token_ids[:sure]) == wanted[:sure]


class Counted:
    """Tokens that a model computes, padding included."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module: Any, args: tuple[Any, ...], out: torch.Tensor) -> None:
        self.tokens += out.shape[0] * out.shape[1]


def test_a_common_prompt_is_computed_once(untied: Path, tokenizer: ChatTokenizer) -> None:
    model = load_model(untied, dtype=torch.float32)
    engine, counted = Engine(model, tokenizer), Counted(model)
    counted.tokens = 0
    manual = [*WORDS[0], *WORDS[1], *WORDS[0]]
    with engine.running():
        tickets = [engine.submit([*manual, 5 + i], Sampling(1)) for i in range(6)]
        while engine.busy:
            engine.step()
        assert counted.tokens == len(manual) + 6
        counted.tokens = 0
        tickets.append(engine.submit([*manual, 77, 78], Sampling(1)))      # long after the others have left
        while engine.busy:
            engine.step()
        assert counted.tokens == 2
    assert_as_alone(model, tokenizer, tickets, 1)
    counted.tokens = 0
    run(engine, [engine.submit(manual, Sampling(1))])
    assert counted.tokens == len(manual)       # weights may have changed since: nothing is kept


def test_the_model_is_given_back_as_it_was(untied: Path, tokenizer: ChatTokenizer) -> None:
    model = lora(load_model(untied, dtype=torch.float32))
    model.set_adapter("a1")
    model.train()
    trains = {n for n, p in model.named_parameters() if p.requires_grad}
    ids = torch.tensor([PROMPTS[0]])
    before = model.eval()(input_ids=ids).logits
    model.train()
    engine = Engine(model, tokenizer)
    run(engine, [engine.submit(PROMPTS[0], Sampling(3), "a0")])
    assert model.training
    assert trains
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trains
    assert torch.equal(model.eval()(input_ids=ids).logits, before)
    assert not any(m._forward_hooks for m in model.modules())


def test_log_probs_are_the_models_own(base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer)
    sampling = Sampling(NEW, temperature=1.3, top_p=0.8, seed=4, top_logprobs=3)
    [got] = answer(engine, [PROMPTS[0]], sampling, [None])
    with torch.no_grad():
        logits = base(input_ids=torch.tensor([[*PROMPTS[0], *got.token_ids]])).logits[0, len(PROMPTS[0]) - 1:]
    wanted = logits.log_softmax(-1)
    assert list(got.logprobs) == pytest.approx(
        [float(wanted[i, token]) for i, token in enumerate(got.token_ids)], abs=1e-4)
    assert [[token for token, _ in top] for top in got.top] == wanted[:len(got.token_ids)].topk(3).indices.tolist()
    assert got.prompt_tokens == len(PROMPTS[0])
    assert got.new_tokens == len(got.token_ids) + got.stopped
    assert got.seconds > 0


def test_draws_depend_on_the_request_alone(base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer, max_rows=3)
    samplings = [Sampling(NEW, temperature=1.0, top_p=0.9, seed=seed) for seed in range(len(PROMPTS))]
    together = answer(engine, PROMPTS, samplings, [None] * len(PROMPTS))
    single = [answer(engine, [p], s, [None])[0] for p, s in zip(PROMPTS, samplings, strict=True)]
    assert together == single
    other = answer(engine, [PROMPTS[0]] * 8, [Sampling(NEW, temperature=1.0, seed=s) for s in range(8)], [None] * 8)
    assert len({c.token_ids for c in other}) == 8


def test_cancelled_requests_leave(base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer, max_rows=2)
    with engine.running():
        tickets = [engine.submit(p, Sampling(NEW)) for p in PROMPTS[:4]]
        engine.step()
        engine.step()
        engine.cancel(tickets[0])
        engine.cancel(tickets[3])       # which still waits
        while engine.busy:
            engine.step()
    first, last = tickets[0].done, tickets[3].done
    assert first is not None
    assert last is not None
    assert (len(first.token_ids), first.stopped, last.token_ids) == (2, False, ())
    assert_as_alone(base, tokenizer, tickets[1:3])


def test_an_answer_ends_where_the_positions_do(base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer)
    prompt = (WORDS[0] * 20)[:tokenizer.max_length - 3]
    [got] = answer(engine, [prompt], Sampling(50), [None])
    assert len(got.token_ids) <= 3
    with pytest.raises(UserError, match="leaves no room"):
        engine.submit((WORDS[0] * 20)[:tokenizer.max_length], Sampling(1))


def test_an_unknown_adapter_is_refused(adapted: Any, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(UserError, match="no adapter 'b'"):
        Engine(adapted, tokenizer).submit([5], Sampling(), "b")
