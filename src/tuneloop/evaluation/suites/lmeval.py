"""Any task of EleutherAI's lm-evaluation-harness as a suite, or a YAML file of its format (extra `bench`, lm-eval 0.4).

A task is asked through the model's chat template, examples as turns, as lm-eval does with `apply_chat_template`: its
numbers are for before and after, and not those of a leaderboard that asks plain text. Tasks that begin the answer
themselves (`gen_prefix`) are refused, since a chat cannot be asked so everywhere. The first token of a text for
perplexity is not predicted.
"""

from __future__ import annotations

import importlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.errors import UserError, missing_extra
from tuneloop.evaluation.suites.base import Graded
from tuneloop.inference.backend import Backend, Progress
from tuneloop.types import Message, Request, Sampling

PREFERRED = ("acc_norm", "acc", "exact_match")
"""What a question is graded by, the first that its task measures; else by the task's first metric in [0, 1] of which
more is better."""
PER_BYTE = ("bits_per_byte", "byte_perplexity")
"""Texts for perplexity are graded as in the suite `fluency`, by the probability per byte."""

_CHAT = "tuneloop chat "        # begins what stands for turns where lm-eval wants a text
_LONGEST = 256                  # tokens of an answer, where a task sets no bound; as in lm-eval


class Bench:
    """A task or group of tasks by its name, or the path of a YAML file. The parts are the tasks of a group."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.name, self.title = f"lm-eval:{task}", f"{task} of lm-eval"

    def run(self, backend: Backend, *, limit: int | None = None, progress: Progress | None = None) -> list[Graded]:
        """The questions of each task, its first ones where a limit is given. Raises a UserError without lm-eval, or if
        it cannot load the task or its data.
        """
        tasks = _load(self.task)
        each = None if limit is None else max(1, limit // len(tasks))
        found = _library("lm_eval.evaluator").simple_evaluate(
            model=language_model(backend, progress), tasks=tasks[:limit], limit=each, log_samples=True,
            apply_chat_template=True, fewshot_as_multiturn=True, bootstrap_iters=0)
        return [graded for task, samples in found["samples"].items()
                for graded in _graded(task, samples, found["higher_is_better"][task])]


def language_model(backend: Backend, progress: Progress | None = None) -> Any:
    """A backend as an `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate` with `apply_chat_template=True`."""
    base = _library("lm_eval.api.model").LM
    # the class that it must be of is known only here, since lm-eval need not be installed
    return type("TuneloopModel", (_Answering, base), {})(backend, progress)


class _Answering:
    """The methods that lm-eval asks a model by. A request of lm-eval has `args`, `task_name` and `doc_id`."""

    def __init__(self, backend: Backend, progress: Progress | None) -> None:
        super().__init__()
        self._backend, self._progress = backend, progress

    @property
    def tokenizer_name(self) -> str:
        return self._backend.identity

    def chat_template(self, chat_template: bool | str = False) -> str:
        return "that of the model"

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns as a text that `_request` reads back: the template is the backend's matter."""
        if chat_history and chat_history[-1]["role"] == "assistant":
            raise UserError("This task of lm-eval begins the answer itself (gen_prefix), which is not supported.",
                            fix="choose another task")
        return _CHAT + json.dumps([[turn["role"], turn["content"]] for turn in chat_history])

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Log-prob in nats of each continuation without the end of the turn, and whether it is what greedy generation
        says. The latter is found out only for questions with a single continuation: only their metrics ask for it.
        """
        asked = [(_request(request.args[0]), request.args[1].lstrip()) for request in requests]
        scored = self._backend.score([prompt for prompt, _ in asked], [text for _, text in asked],
                                     progress=self._progress)
        times = Counter((request.task_name, request.doc_id) for request in requests)
        alone = [at for at, request in enumerate(requests) if times[request.task_name, request.doc_id] == 1]
        lengths = [Sampling(max_new_tokens=max(1, scored[at].tokens)) for at in alone]
        said = self._backend.generate([asked[at][0] for at in alone], lengths) if alone else []
        greedy = {at for at, completion in zip(alone, said, strict=True) if completion.text.startswith(asked[at][1])}
        return [(one.without_end, at in greedy) for at, one in enumerate(scored)]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Log-prob in nats of each text."""
        scored = self._backend.score_texts([request.args[0] for request in requests], progress=self._progress)
        return [one.without_end for one in scored]

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """The answer to each prompt, as its task wants it generated."""
        completions = self._backend.generate([_request(request.args[0]) for request in requests],
                                             [_sampling(request.args[1]) for request in requests],
                                             progress=self._progress)
        return [completion.text for completion in completions]


def _request(context: str) -> Request:
    if context.startswith(_CHAT):
        return Request(tuple(Message(role, content) for role, content in json.loads(context.removeprefix(_CHAT))))
    return Request((Message("user", context),))


def _sampling(wanted: Mapping[str, Any]) -> Sampling:
    """What generation arguments of a task mean here. Greedy unless the task says `do_sample`."""
    until = wanted.get("until") or []
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    longest = wanted.get("max_gen_toks", wanted.get("max_new_tokens", _LONGEST))
    if not wanted.get("do_sample"):
        return Sampling(max_new_tokens=int(longest), stop=stop)
    return Sampling(max_new_tokens=int(longest), stop=stop, temperature=float(wanted.get("temperature", 1.0)),
                    top_p=float(wanted.get("top_p", 1.0)), top_k=int(wanted.get("top_k", 0)))


def _graded(task: str, samples: Sequence[Mapping[str, Any]], rising: Mapping[str, bool]) -> list[Graded]:
    """One item for each document; of several filters of the answer the first counts."""
    graded: dict[str, Graded] = {}
    for sample in samples:
        own = f"{task}/{sample['doc_id']}"
        if own not in graded:
            metric, score = _score(sample, rising)
            graded[own] = Graded(own, task, score, str(sample["filtered_resps"]), metric or "no metric in [0, 1]")
    return list(graded.values())


def _score(sample: Mapping[str, Any], rising: Mapping[str, bool]) -> tuple[str, float]:
    """The metric that counts and its value; `rising` says of which metrics more is better."""
    for name in (*PREFERRED, *sample["metrics"]):
        value = sample.get(name)
        if name in PER_BYTE and value is not None:
            log_prob, count = value
            return name, math.exp(min(0.0, log_prob / count))
        if isinstance(value, int | float) and 0 <= value <= 1 and rising.get(name, False):
            return name, float(value)
    return "", math.nan


def _load(task: str) -> list[Any]:
    manager = _library("lm_eval.tasks").TaskManager()
    try:
        return list(manager.load(task)["tasks"].values())
    except Exception as error:      # of many kinds: no such task, no network for its data, a mistake in the YAML file
        raise UserError(f"lm-eval cannot load the task {task}: {error or type(error).__name__}",
                        wanted="the name of one of its tasks, or the path of a YAML file of its format",
                        fix="lm-eval ls tasks") from error


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise missing_extra("lm-eval", "bench", "A task of lm-eval") from None
