"""The engine answers as `model.generate` does, or not at all, for every architecture of transformers.

Windows of 8 tokens are shorter than most prompts; prompts begin alike, have different lengths, and one comes late.
"""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import torch

from tuneloop.inference.engine import Engine
from tuneloop.inference.tickets import Ticket
from tuneloop.types import Sampling

CLOSE = 1e-4        # below this gap between the two best tokens, greedy decoding may go either way
NEW = 12
END = 2
LARGE = {"got_ocr2", "moss_transcribe_diarize", "phi4_multimodal"}      # their other parts have no tiny version
NOT_LEFT_TO_RIGHT = {"xlnet"}
BY_FORWARD = {"camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
              "prophetnet", "cpmant", "minimax", "moshi"}
"""`generate` of transformers says something else than the model's own forward, with which it is trained and scored."""

WINDOWS = ("sliding_window", "sliding_window_size", "window_size", "attention_window_size", "local_attention",
           "attention_chunk_size", "index_topk")
RANDOM = torch.Generator().manual_seed(1)
COMMON, OTHER, SHORT = (torch.randint(5, 319, (n,), generator=RANDOM).tolist() for n in (20, 40, 7))
PROMPTS = [COMMON + OTHER[:3], COMMON + OTHER[:9], COMMON + OTHER[5:6], COMMON + OTHER[3:17], OTHER[:2], OTHER, SHORT,
           OTHER[:1], COMMON[:9]]
LATE = [*PROMPTS[0], 9, 8, 7, 6, 5]


class Words:
    """As much of a tokenizer as the engine needs."""

    pad_id, end_of_turn_id, max_length = 0, END, 500

    def decode(self, ids: list[int], *, special: bool = True) -> str:
        return "".join(f"{i} " for i in ids)


def by_generate(model: Any, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False,
                         eos_token_id=END, pad_token_id=0, output_logits=True, return_dict_in_generate=True)
    return out.sequences[0, -len(out.logits):].tolist(), torch.cat(out.logits)


def by_forward(model: Any, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    found: list[torch.Tensor] = []
    tokens: list[int] = []
    while len(tokens) < NEW and END not in tokens:
        found.append(model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[:, -1])
        tokens.append(int(found[-1].argmax()))
    return tokens, torch.cat(found)


def answers(engine: Engine) -> list[Ticket]:
    tickets = [engine.submit(prompt, Sampling(NEW)) for prompt in PROMPTS]
    with engine.running():
        engine.step()
        engine.step()
        tickets.append(engine.submit(LATE, Sampling(NEW)))
        while engine.busy:
            engine.step()
    return tickets


def check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for window in WINDOWS:
        monkeypatch.setitem(architectures.SIZES, window, 8)
    monkeypatch.setitem(architectures.SIZES, "use_cache", True)
    witness = by_forward if name in BY_FORWARD else by_generate
    try:
        model: Any = architectures.build(name)
        model.generation_config.forced_eos_token_id = None
        with torch.no_grad():
            wanted = [witness(model, prompt) for prompt in [*PROMPTS, LATE]]
    except Exception as error:
        pytest.skip(f"no tiny model that generates: {architectures.short(error)}")
    sure = 0
    for ticket, (tokens, logits) in zip(answers(Engine(model, Words())), wanted, strict=True):  # type: ignore[arg-type]
        assert ticket.done is not None
        best = logits.topk(2).values
        said = tokens[:-1] if tokens[-1] == END else tokens
        certain = min([*torch.nonzero(best[:, 0] - best[:, 1] < CLOSE).flatten().tolist(), len(said)])
        assert list(ticket.done.token_ids[:certain]) == said[:certain]
        sure += certain
    assert sure > 40


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma3n_text", "qwen3_5_moe_text", "roberta"])
def test_unusual_architectures_are_answered_rightly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of another size than keys, layers with the keys of others, recurrent layers, positions from tokens."""
    check(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(architectures.architectures()) - LARGE - NOT_LEFT_TO_RIGHT))
def test_every_architecture_is_answered_rightly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mistral", "gpt_oss", "deepseek_v2", "mixtral", "phi3"])
def test_the_usual_ones_share_batches(name: str) -> None:
    assert Engine(architectures.build(name), Words()).batched   # type: ignore[arg-type]
