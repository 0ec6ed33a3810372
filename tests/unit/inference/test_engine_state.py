"""Whatever happens in between, answers stay right and the model is given back: nesting, errors, adapters that come and
go, layers in which adapters cannot share a batch, and ends of what positions there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from test_engine import PROMPTS, WORDS, alone, assert_as_alone, lora, randomly, run

from tiny import tiny_config, tiny_tokenizer
from tuneloop.errors import UserError
from tuneloop.inference.engine import Engine
from tuneloop.inference.local import Local, answer
from tuneloop.models.load import load_model
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Message, Request, Sampling

NEW = 8
ASK, OTHER = Request((Message("user", "Is it good?"),)), Request((Message("user", "What?"),))


@pytest.fixture
def base(untied: Path) -> Any:
    return load_model(untied, dtype=torch.float32)


def check(model: Any, tokenizer: ChatTokenizer, names: Sequence[str | None], **options: Any) -> Engine:
    engine = Engine(model, tokenizer, **options)
    tickets = [engine.submit(p, Sampling(NEW), name) for p, name in zip(PROMPTS, names, strict=True)]
    assert_as_alone(model, tokenizer, run(engine, tickets), NEW)
    return engine


def of_family(family: str, **changes: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = tiny_config(family, tiny_tokenizer(), **changes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_streams_may_be_open_while_others_are_answered(base: Any, tokenizer: ChatTokenizer) -> None:
    model = lora(base)
    local = Local(model, tokenizer, adapter="a0")
    plain = local.beside("plain", None)
    sampling = Sampling(NEW)
    wanted, other = local.generate([ASK, OTHER], sampling)
    [bare] = plain.generate([OTHER], sampling)
    [scored] = local.score([ASK], ["yes"])
    first, second = local.stream(ASK, sampling), plain.stream(OTHER, sampling)
    pieces = [next(first)]
    assert local.generate([OTHER], sampling) == [other]
    pieces += [next(first)]
    next(second)
    assert local.score([ASK], ["yes"])[0].total == pytest.approx(scored.total, abs=1e-4)
    *rest, last = first
    assert last == wanted
    assert "".join(str(p) for p in pieces + rest).strip() == wanted.text
    assert list(second)[-1] == bare
    assert not local.engine.busy
    assert not any(module._forward_hooks for module in model.modules())


def test_a_stream_that_others_finish_is_whole(base: Any, tokenizer: ChatTokenizer) -> None:
    local = Local(base, tokenizer)
    [wanted] = local.generate([ASK], Sampling(NEW))
    stream = local.stream(ASK, Sampling(NEW))
    pieces = [next(stream)]
    local.generate([OTHER], Sampling(NEW * 2))
    *rest, last = stream
    assert isinstance(last, Completion)
    assert last == wanted
    assert "".join(str(p) for p in pieces + rest).strip() == wanted.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_an_error_leaves_model_and_engine_in_order(at: int, error: type[BaseException], base: Any,
                                                   tokenizer: ChatTokenizer) -> None:
    model = lora(base)
    model.set_adapter("a1")
    trains = [p.requires_grad for p in model.parameters()]
    model.train()
    engine, calls = Engine(model, tokenizer, max_rows=3), iter(range(100))

    def fail(*unused: Any) -> None:
        if next(calls) == at:
            raise error

    handle = model.get_base_model().model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(error):
        answer(engine, PROMPTS, Sampling(NEW), ["a0", None, "a1"] * 2 + [None])
    handle.remove()
    assert model.training
    assert not engine.busy
    assert [p.requires_grad for p in model.parameters()] == trains
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()
    check(model, tokenizer, ["a0", None, "a1"] * 2 + ["a2"])
    assert [c.token_ids for c in answer(engine, PROMPTS, Sampling(NEW), ["a0"] * 7)] == \
        [c.token_ids for c in answer(Engine(model, tokenizer), PROMPTS, Sampling(NEW), ["a0"] * 7)]


def test_two_engines_do_not_answer_at_once(base: Any, tokenizer: ChatTokenizer) -> None:
    one, other = Engine(base, tokenizer), Engine(base, tokenizer)
    with one.running(), pytest.raises(RuntimeError, match="another engine"):
        answer(other, PROMPTS, Sampling(1), [None] * 7)
    assert len(answer(other, PROMPTS, Sampling(1), [None] * 7)) == 7


def test_adapters_may_come_and_go_between_steps(base: Any, tokenizer: ChatTokenizer) -> None:
    """A new adapter has layers that no other one has; who asked one that is gone has what came so far."""
    model = lora(base, ranks=(4,))
    model.add_adapter("gone", LoraConfig(r=2, target_modules=["q_proj"]))
    engine = Engine(model, tokenizer)
    with engine.running():
        stays, gone = (engine.submit(p, Sampling(NEW), n) for p, n in zip(PROMPTS, ("a0", "gone"), strict=False))
        engine.step()
        engine.step()
        model.add_adapter("late", LoraConfig(r=3, target_modules=["lm_head", "v_proj"], init_lora_weights=False))
        model.delete_adapter("gone")
        late = engine.submit(PROMPTS[2], Sampling(NEW), "late")
        while engine.busy:
            engine.step()
    assert_as_alone(model, tokenizer, [stays, late], NEW)
    assert gone.done is not None
    assert (len(gone.done.token_ids), gone.done.stopped) == (2, False)


def test_an_adapter_that_is_not_plain_may_come_later(base: Any, tokenizer: ChatTokenizer) -> None:
    model = lora(base, ranks=(4,))
    engine = Engine(model, tokenizer)
    model.add_adapter("dora", LoraConfig(r=3, use_dora=True, target_modules=["down_proj", "v_proj"]))
    randomly(model, 5)
    tickets = [engine.submit(p, Sampling(NEW), n) for p, n in zip(PROMPTS, ["a0", "dora", None] * 3, strict=False)]
    assert_as_alone(model, tokenizer, run(engine, tickets), NEW)


@pytest.mark.parametrize(("family", "changes", "targets", "share"), [
    ("llama", {"tie_word_embeddings": False}, ["lm_head", "q_proj"], True),
    ("llama", {"tie_word_embeddings": False}, ["embed_tokens", "q_proj"], False),
    ("opt", {}, "all-linear", False),       # its layers see tokens without rows
    ("gpt2", {}, "all-linear", True),
    ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                   "shared_expert_intermediate_size": 16}, "all-linear", False),
])
def test_adapters_share_batches_where_layers_see_rows(family: str, changes: dict[str, Any], targets: Any, share: bool,
                                                      tokenizer: ChatTokenizer) -> None:
    model = get_peft_model(of_family(family, **changes), LoraConfig(r=4, target_modules=targets), adapter_name="a")
    model.add_adapter("b", LoraConfig(r=2, target_modules=targets))
    engine = check(randomly(model), tokenizer, ["a", None, "b", "a", "b", None, "a"])
    assert engine._by_rows == share


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
@pytest.mark.parametrize("config", [PrefixTuningConfig, PromptEncoderConfig])
def test_virtual_tokens_come_before_their_own_rows(config: Any, family: str, tokenizer: ChatTokenizer) -> None:
    chosen = config(task_type="CAUSAL_LM", num_virtual_tokens=5)
    model = randomly(get_peft_model(of_family(family, tie_word_embeddings=False), chosen, adapter_name="x"))
    engine = Engine(model, tokenizer)
    names = ["x", None, "x", "x", None, "x", "x"]
    tickets = run(engine, [engine.submit(p, Sampling(NEW), n) for p, n in zip(PROMPTS, names, strict=True)])
    for ticket in tickets:
        assert ticket.done is not None
        wanted, sure = alone(model, tokenizer, ticket.ids[:ticket.prompt_tokens], ticket.adapter, NEW)
        assert list(ticket.done.token_ids[:sure]) == wanted[:sure]
    with pytest.raises(UserError, match="leaves no room"):
        engine.submit([5] * (tokenizer.max_length - 5), Sampling(1), "x")
    engine.submit([5] * (tokenizer.max_length - 5), Sampling(1))


def test_positions_that_depend_on_the_length_of_all(tokenizer: ChatTokenizer) -> None:
    """LongRoPE turns a longer text in another way: who may grow so long has a cache of its own."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "factor": 16.0,
            "long_factor": [4.0, 3.0, 2.0, 8.0], "original_max_position_embeddings": 32}
    base = of_family("phi3", tie_word_embeddings=False, original_max_position_embeddings=32, rope_parameters=rope)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"), adapter_name="a")
    engine = check(randomly(model), tokenizer, ["a", None, "a", "a", None, None, "a"])
    assert engine.batched
    tickets = [engine.submit(WORDS[0][:n] + WORDS[1][:n], Sampling(NEW), "a") for n in (11, 12, 13, 14, 16, 17)]
    assert_as_alone(model, tokenizer, run(engine, tickets), NEW)


def test_padding_does_not_reach_beyond_the_positions(tokenizer: ChatTokenizer) -> None:
    """Two prompts that nearly fill the base's learnt positions share most; a third one begins anew beside them."""
    engine = Engine(model := of_family("gpt2", tie_word_embeddings=False), tokenizer)
    long = (WORDS[0] * 20)[:tokenizer.max_length - 20]
    prompts = [[*long, 7], [*long, *WORDS[2]], (WORDS[1] * 20)[:20]]
    tickets = run(engine, [engine.submit(p, Sampling(NEW)) for p in prompts])
    assert_as_alone(model, tokenizer, tickets, NEW)


def test_adapters_in_turn_starve_no_one(base: Any, tokenizer: ChatTokenizer) -> None:
    model = get_peft_model(base, LoraConfig(r=4, use_dora=True, target_modules="all-linear"), adapter_name="x")
    engine = Engine(randomly(model), tokenizer, max_rows=2)
    with engine.running():
        engine.submit(PROMPTS[0], Sampling(NEW), "x")
        engine.step()
        waits = engine.submit(PROMPTS[1], Sampling(NEW))
        for _ in range(2 * NEW + 2):
            engine.submit(PROMPTS[2], Sampling(3), "x")     # as if they never ended
            engine.step()
        assert waits.done is not None
        assert_as_alone(model, tokenizer, [waits], NEW)


def test_the_smallest_of_everything(base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer, max_rows=1)
    tickets = [engine.submit(p[:n], Sampling(new)) for p in PROMPTS[:3] for n in (1, 2, 50) for new in (1, 3)]
    for ticket in run(engine, tickets):
        assert_as_alone(base, tokenizer, [ticket], ticket.sampling.max_new_tokens)
    with pytest.raises(UserError, match="no tokens"):
        engine.submit([], Sampling())


@pytest.mark.parametrize("wrong", [
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_p": 0}, {"top_p": 1.1},
    {"min_p": 2}, {"min_p": -0.1}, {"max_new_tokens": 0}, {"top_k": -1}, {"top_logprobs": -1}])
def test_samplings_that_mean_nothing_are_refused(wrong: dict[str, Any], base: Any, tokenizer: ChatTokenizer) -> None:
    engine = Engine(base, tokenizer)
    with pytest.raises(UserError, match=next(iter(wrong))):
        engine.submit([5], Sampling(**wrong))
    assert not engine.busy
