"""What is asked of vLLM and made of what it says, with a stand-in that has the package's own names and shapes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from tuneloop.errors import UserError
from tuneloop.inference.vllm import Vllm
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Completion, Constraint, Message, Request, Sampling


@dataclass
class Logprob:
    logprob: float


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None


@dataclass
class SamplingParams:
    """The defaults of the package, so that what is left out shows."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: Any = None


class LLM:
    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, **options: Any) -> None:
        self.model, self.options, self.asked = model, options, []
        self.answer: list[int] = []
        self.reason: tuple[str, int | str | None] = ("stop", None)
        LLM.made.append(self)

    def generate(self, prompts: list[dict[str, list[int]]], params: list[SamplingParams], *, use_tqdm: bool,
                 lora_request: Any) -> list[RequestOutput]:
        self.asked.append((prompts, params, lora_request))
        found = []
        for prompt, one in zip(prompts, params, strict=True):
            ids = prompt["prompt_token_ids"]
            places = [{token: Logprob(-0.5 - i), 3: Logprob(-0.1)} for i, token in enumerate(self.answer)]
            said = CompletionOutput("TEXT ", self.answer, places, *self.reason)
            likely = [None, *({token: Logprob(-i / 4)} for i, token in enumerate(ids[1:], 1))]
            found.append(RequestOutput(ids, [said], likely if one.prompt_logprobs == 0 else None))
        return found


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    modules = {"vllm": {"LLM": LLM, "SamplingParams": SamplingParams}, "vllm.lora": {},
               "vllm.lora.request": {"LoRARequest": lambda **given: given},
               "vllm.sampling_params": {"StructuredOutputsParams": lambda **given: given}}
    for name, holds in modules.items():
        module = ModuleType(name)
        module.__dict__.update(holds)
        monkeypatch.setitem(sys.modules, name, module)
    LLM.made = []
    return LLM


@pytest.fixture
def tokenizer(tiny_llama: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_llama)


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def adapter(folder: Path, rank: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


def test_it_is_asked_with_our_tokens_and_every_option(package: type[LLM], tokenizer: ChatTokenizer) -> None:
    model = Vllm(Path("base"), tokenizer, gpu_memory_utilization=0.5)
    [engine] = package.made
    engine.answer = [*tokenizer.encode(["yes"])[0], tokenizer.end_of_turn_id]
    sampling = Sampling(9, 0.5, 0.9, 3, top_k=4, min_p=0.1, stop=("\n",), top_logprobs=1,
                        constraint=Constraint(choices=("yes", "no")))
    seen: list[int] = []
    [found, _] = model.generate([ask("a"), ask("b")], [sampling, Sampling()], progress=seen.append)
    [(prompts, params, lora)] = engine.asked
    assert (engine.model, engine.options) == ("base", {"max_model_len": 512, "gpu_memory_utilization": 0.5})
    assert [p["prompt_token_ids"] for p in prompts] == tokenizer.encode(
        [tokenizer.prompt_text(ask(text).messages) for text in "ab"])
    end = [tokenizer.end_of_turn_id]
    assert params == [SamplingParams(9, 0.5, 0.9, 4, 0.1, 3, ["\n"], end, 1, None, {"choice": ["yes", "no"]}),
                      SamplingParams(256, 0.0, seed=0, stop_token_ids=end, logprobs=0)]
    assert lora is None
    assert sum(seen) == 2
    assert (found.text, found.token_ids, found.stopped) == ("yes", tuple(engine.answer[:-1]), True)
    assert found.new_tokens == len(engine.answer)
    assert found.logprobs == tuple(-0.5 - i for i in range(len(engine.answer) - 1))
    assert [place[0] for place in found.top] == [(3, -0.1)] * (len(engine.answer) - 1)
    assert found.prompt_tokens == len(prompts[0]["prompt_token_ids"])


@pytest.mark.parametrize(("reason", "stopped"), [(("length", None), False), (("stop", "\n"), True)])
def test_an_answer_that_was_cut_or_met_a_stop_keeps_its_tokens(package: type[LLM], tokenizer: ChatTokenizer,
                                                              reason: Any, stopped: bool) -> None:
    model = Vllm(Path("base"), tokenizer)
    package.made[0].answer, package.made[0].reason = [7, 8], reason
    *_, found = model.stream(ask("a"), Sampling())
    assert isinstance(found, Completion)
    assert (found.text, found.token_ids, found.stopped, found.top) == ("TEXT", (7, 8), stopped, ())


def test_constraints_in_its_own_words(package: type[LLM], tokenizer: ChatTokenizer) -> None:
    model = Vllm(Path("base"), tokenizer)
    model.generate([ask("a")] * 2, [Sampling(constraint=Constraint(json_schema="{}")),
                                    Sampling(constraint=Constraint(regex="a+"))])
    assert [one.structured_outputs for one in package.made[0].asked[0][1]] == [{"json": "{}"}, {"regex": "a+"}]


def test_scores_are_sums_over_the_answer(package: type[LLM], tokenizer: ChatTokenizer) -> None:
    model = Vllm(Path("base"), tokenizer)
    [found] = model.score([ask("a")], ["yes"])
    [text] = model.score_texts(["yes no"])
    prompt = len(tokenizer.encode([tokenizer.prompt_text(ask("a").messages)])[0])
    answer = len(tokenizer.encode(["yes" + tokenizer.end_of_turn])[0])
    assert found.tokens == answer
    assert found.total == -sum(range(prompt, prompt + answer)) / 4
    assert found.without_end == -sum(range(prompt, prompt + answer - 1)) / 4
    whole = len(tokenizer.encode(["yes no"])[0])
    assert (text.total, text.tokens) == (-sum(range(1, whole)) / 4, whole - 1)


def test_adapters_beside_the_base(package: type[LLM], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    first, second = adapter(tmp_path / "a", 8), adapter(tmp_path / "b", 20)
    model = Vllm(Path("base"), tokenizer, name="tuned", adapter=first, adapters=[second])
    [engine] = package.made
    assert engine.options == {"max_model_len": 512, "enable_lora": True, "max_lora_rank": 32, "max_loras": 2}
    for backend in (model, model.beside("other", second), model.beside("base", None)):
        backend.generate([ask("a")], Sampling())
    assert [asked[2] for asked in engine.asked] == [
        {"lora_name": "tuned", "lora_int_id": 1, "lora_path": str(first)},
        {"lora_name": "other", "lora_int_id": 2, "lora_path": str(second)}, None]
    with pytest.raises(UserError, match="not told of the adapter"):
        model.beside("third", tmp_path / "c")
    with pytest.raises(UserError, match="rank 600 is too large"):
        Vllm(Path("base"), tokenizer, adapter=adapter(tmp_path / "d", 600))


def test_a_prompt_that_is_too_long(package: type[LLM], tokenizer: ChatTokenizer) -> None:
    with pytest.raises(UserError, match="leaves no room for an answer"):
        Vllm(Path("base"), tokenizer).generate([ask("word " * 600)], Sampling())


def test_without_the_package_the_extra_is_named(tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"tuneloop\[vllm\]"):
        Vllm(Path("base"), tokenizer)
