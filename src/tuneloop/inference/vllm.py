"""A model run by vLLM in this process, on a GPU: needs the extra `vllm`. Written for vLLM 0.12 and later (structured
outputs by `StructuredOutputsParams`), and not yet run there: the tests use a stand-in for the package.

Prompts are rendered and tokenised here, as for the engine of our own, so that both see the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError, missing_extra
from tuneloop.record import read_json
from tuneloop.types import Completion, Constraint, Request, Sampling, Scored

if TYPE_CHECKING:
    from tuneloop.inference.backend import Progress
    from tuneloop.models.tokenizer import ChatTokenizer

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)     # that vLLM lays room out for
AT_ONCE = 256       # requests handed over together, so that progress is seen; vLLM batches them as memory allows


class Vllm:
    """Implements `Backend` with vLLM's `LLM`. `adapter` is a folder of a LoRA adapter in PEFT's layout.

    `beside` gives another adapter, or the bare base, of the same weights in memory.
    """

    def __init__(self, folder: Path, tokenizer: ChatTokenizer, *, name: str = "base", identity: str = "",
                 adapter: Path | None = None, adapters: Sequence[Path] = (), **options: Any) -> None:
        """`identity` is what the answers depend on, for caches. `adapters` are all that will be asked for beside this
        one; `options` go to vLLM's engine (gpu_memory_utilization, tensor_parallel_size, ...).
        """
        self._vllm = _package()
        every = [*([adapter] if adapter else []), *adapters]
        lora = {"enable_lora": True, "max_lora_rank": _room_for(every), "max_loras": len(every)} if every else {}
        # its own seed is fixed, and every request brings one; `logprobs` are those before temperature by default
        self._llm = self._vllm.LLM(model=str(folder), max_model_len=tokenizer.max_length, **lora | options)
        self._tokenizer, self._numbers = tokenizer, {path: i for i, path in enumerate(every, 1)}
        self.name, self.identity, self._adapter = name, identity or name, adapter

    def beside(self, name: str, adapter: Path | None, identity: str = "") -> Vllm:
        """Another adapter that was announced, or the bare base, by the same engine."""
        if adapter is not None and adapter not in self._numbers:
            raise UserError(f"vLLM was not told of the adapter {adapter} when it started.")
        other = object.__new__(Vllm)
        other.__dict__ |= self.__dict__ | {"name": name, "identity": identity or name, "_adapter": adapter}
        return other

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        samplings = [sampling] * len(requests) if isinstance(sampling, Sampling) else list(sampling)
        prompts = self._prompts(requests)
        found: list[Completion] = []
        for low in range(0, len(prompts), AT_ONCE):
            chosen, began = samplings[low:low + AT_ONCE], time.perf_counter()
            outputs = self._ask(prompts[low:low + AT_ONCE], [self._params(one) for one in chosen])
            took = time.perf_counter() - began      # vLLM tells when each one ended only where its statistics are on
            found += [self._completion(output, one, took) for output, one in zip(outputs, chosen, strict=True)]
            if progress is not None:
                progress(len(outputs))
        return found

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        """The whole answer as one piece: vLLM's class for use in a process gives none before the end."""
        [completion] = self.generate([request], sampling)
        yield completion.text
        yield completion

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        prompts = self._prompts(requests)
        endings = self._tokenizer.encode([answer + self._tokenizer.end_of_turn for answer in answers])
        marks = [len(prompt) for prompt in prompts]
        sums = self._scored([p + e for p, e in zip(prompts, endings, strict=True)], marks, progress)
        return [Scored(sum(values), sum(values[:-1]), len(values)) for values in sums]

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        ids = self._tokenizer.encode(list(texts))
        return [Scored(sum(values), sum(values), len(values))
                for values in self._scored(ids, [1] * len(ids), progress)]

    def _prompts(self, requests: Sequence[Request]) -> list[list[int]]:
        return self._tokenizer.encode([self._tokenizer.prompt_text(r.messages, r.tools) for r in requests])

    def _scored(self, ids: Sequence[list[int]], marks: Sequence[int], progress: Progress | None) -> list[list[float]]:
        """Log-probs of the tokens of each text from its mark on."""
        # one token must be generated; 0 asks for the log-prob of each prompt token itself and no others
        params = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        found: list[list[float]] = []
        for low in range(0, len(ids), AT_ONCE):
            chosen = ids[low:low + AT_ONCE]
            outputs = self._ask(chosen, [params] * len(chosen))
            for text, mark, output in zip(chosen, marks[low:], outputs, strict=False):
                found.append([float(output.prompt_logprobs[i][text[i]].logprob) for i in range(mark, len(text))])
            if progress is not None:
                progress(len(outputs))
        return found

    def _ask(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
        limit = self._tokenizer.max_length
        if (longest := max(map(len, prompts), default=0)) >= limit:
            raise UserError(f"A prompt of {longest:,} tokens leaves no room for an answer.",
                            wanted=f"fewer than {limit:,} tokens")
        request = None
        if self._adapter is not None:
            request = _package("vllm.lora.request").LoRARequest(
                lora_name=self.name, lora_int_id=self._numbers[self._adapter], lora_path=str(self._adapter))
        return list(self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], list(params), use_tqdm=False,
                                       lora_request=request))

    def _params(self, sampling: Sampling) -> Any:
        constraint = sampling.constraint
        return self._vllm.SamplingParams(
            max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
            top_k=sampling.top_k, min_p=sampling.min_p, seed=sampling.seed, stop=list(sampling.stop),
            stop_token_ids=[self._tokenizer.end_of_turn_id], logprobs=sampling.top_logprobs,
            structured_outputs=None if constraint is None else _structured(constraint))

    def _completion(self, output: Any, sampling: Sampling, seconds: float) -> Completion:
        [found] = output.outputs
        ids, stopped = list(found.token_ids), found.finish_reason == "stop"
        ended = stopped and ids and not isinstance(found.stop_reason, str)      # a stop string keeps its tokens
        kept = ids[:-1] if ended else ids
        places = list(found.logprobs or ())[:len(kept)]
        likeliest = [sorted(((token, float(one.logprob)) for token, one in place.items()), key=lambda pair: -pair[1])
                     for place in places]
        return Completion(
            self._tokenizer.decode(kept, special=False).strip() if ended else found.text.strip(), tuple(kept), stopped,
            logprobs=tuple(float(place[token].logprob) for place, token in zip(places, kept, strict=True)),
            top=tuple(tuple(place[:sampling.top_logprobs]) for place in likeliest) if sampling.top_logprobs else (),
            prompt_tokens=len(output.prompt_token_ids), new_tokens=len(ids), seconds=seconds)


def _package(name: str = "vllm") -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra("vllm", "vllm", "This backend") from error


def _room_for(adapters: Sequence[Path]) -> int:
    largest = max(int(read_json(path / "adapter_config.json").get("r", 0)) for path in adapters)
    room = next((rank for rank in RANKS if rank >= largest), None)
    if room is None:
        raise UserError(f"An adapter of rank {largest} is too large for vLLM.", wanted=f"a rank of {RANKS[-1]} or less")
    return room


def _structured(constraint: Constraint) -> Any:
    make = _package("vllm.sampling_params").StructuredOutputsParams
    if constraint.json_schema:
        return make(json=constraint.json_schema)
    return make(regex=constraint.regex) if constraint.regex else make(choice=list(constraint.choices))
