"""A model behind any server that speaks the OpenAI API: hosted, or vLLM, llama.cpp, Ollama or this tool's own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tuneloop.data.formats.messages import asked
from tuneloop.errors import UserError
from tuneloop.inference.wire import LISTED_MODELS, Refused, Wire
from tuneloop.types import Completion, Constraint, Request, Sampling, Scored, ToolCall

if TYPE_CHECKING:
    from tuneloop.inference.backend import Progress

CONCURRENCY = 8
STOPPED = frozenset({"stop", "tool_calls", "function_call", "content_filter"})
CANNOT_SCORE = frozenset({400, 403, 404, 405, 422, 501})
Item = TypeVar("Item")
Made = TypeVar("Made")


class NoLogprobsError(UserError):
    """The server does not say how likely a given answer is; answers can still be generated."""


@dataclass(frozen=True)
class Template:
    """What a server makes of a request before it answers, for scoring: it takes plain text there."""

    prompt: Callable[[Request], str]
    end_of_turn: str


class Remote:
    """Implements `Backend`. At most `concurrency` requests are under way at once, and each is retried while the server
    is busy. The key is read from the environment variable `key_env`, if one is named.

    `template` is the chat template of the model, without which answers cannot be scored. Log-probs of generated tokens
    are asked for where `Sampling.top_logprobs` is set; servers name no token ids, so `token_ids` and `top` stay empty.
    """

    def __init__(self, url: str, model: str = "", key_env: str = "", *, template: Template | None = None,
                 concurrency: int = CONCURRENCY, wire: Wire | None = None) -> None:
        """Without a `model` the server is asked which one it has. Raises a UserError where it has several."""
        self._wire = wire or Wire(url, key_env, connections=concurrency)
        self.model = model or self._only_model()
        self.name = self.model
        self._template, self._concurrency = template, concurrency
        self._limit_name = "max_tokens"     # OpenAI's newer models want max_completion_tokens, older servers this

    @property
    def url(self) -> str:
        return self._wire.url

    @property
    def identity(self) -> str:
        return f"remote:{self.url}#{self.model}"

    def check(self) -> None:
        """Raise a UserError where the server cannot be reached, refuses the key, or lists other models alone."""
        found = self._wire.models()
        if found and self.model not in found:
            raise self._unknown_model(found)

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        samplings = [sampling] * len(requests) if isinstance(sampling, Sampling) else sampling
        return self._each(lambda pair, stopping: self._generate(*pair, stopping),
                          list(zip(requests, samplings, strict=True)), progress)

    def stream(self, request: Request, sampling: Sampling) -> Iterator[str | Completion]:
        if sampling.constraint is not None and sampling.constraint.choices:     # wrapped in JSON on the wire
            [completion] = self.generate([request], sampling)
            yield completion.text
            yield completion
            return
        body = self._body(request, sampling) | {"stream": True, "stream_options": {"include_usage": True}}
        gathered, began = _Gathered(), time.perf_counter()
        with self._refusals_explained(), self._wire.stream("/chat/completions", body) as events:
            for data in events:
                if data.strip() == "[DONE]":
                    break
                if piece := gathered.add(self._event(data)):
                    yield piece
        if not gathered.reason:
            raise self._wire.cut_off()
        yield gathered.completion(time.perf_counter() - began)

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        template = self._template
        if template is None:
            raise NoLogprobsError(f"{self.name} at {self.url} cannot score given answers: servers score plain text, "
                                  "and the model's chat template is not known.",
                                  fix="name a base with the same template as `tokenizer`, if the server echoes")
        texts = [(template.prompt(request), answer, template.end_of_turn)
                 for request, answer in zip(requests, answers, strict=True)]
        return self._each(lambda text, stopping: self._score(text, stopping, add_special_tokens=False), texts, progress)

    def score_texts(self, texts: Sequence[str], *, progress: Progress | None = None) -> list[Scored]:
        return self._each(lambda text, stopping: self._score(("", text, ""), stopping), list(texts), progress)

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _each(self, ask: Callable[[Item, Event], Made], items: Sequence[Item],
              progress: Progress | None) -> list[Made]:
        """`ask` for every item, several at once, in order. The first error ends it; what is under way is let go."""
        stopping = Event()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="tuneloop-remote")
        try:
            futures = [pool.submit(ask, item, stopping) for item in items]
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if progress is not None:
                    progress(len(done))
            return [future.result() for future in futures]
        finally:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _generate(self, request: Request, sampling: Sampling, stopping: Event) -> Completion:
        began = time.perf_counter()
        with self._refusals_explained():
            said = self._post_chat(request, sampling, stopping)
        try:
            [choice] = said["choices"]
            text = _text_of(choice["message"])
            reason = choice.get("finish_reason") or "stop"
            logprobs = tuple(float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or ())
            usage = said.get("usage") or {}
            prompt_tokens, new_tokens = (int(usage.get(key) or 0) for key in ("prompt_tokens", "completion_tokens"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._wire.not_json(json.dumps(said)[:200]) from error
        if sampling.constraint is not None and sampling.constraint.choices:
            text = _chosen(text)
        return Completion(text.strip(), (), reason in STOPPED, logprobs=logprobs, prompt_tokens=prompt_tokens,
                          new_tokens=new_tokens, seconds=time.perf_counter() - began)

    def _post_chat(self, request: Request, sampling: Sampling, stopping: Event) -> dict[str, Any]:
        try:
            return self._wire.post("/chat/completions", self._body(request, sampling), stopping)
        except Refused as error:
            if error.status != 400 or "max_completion_tokens" not in error.said:
                raise
        self._limit_name = "max_completion_tokens"
        return self._wire.post("/chat/completions", self._body(request, sampling), stopping)

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": asked(request.messages, _no_media),
                                "temperature": sampling.temperature, self._limit_name: sampling.max_new_tokens}
        for media in (media for message in request.messages for media in message.media):
            if not media.where.startswith(("http://", "https://", "data:")):
                _no_media(f"the file {media.where}")
        if sampling.temperature > 0:
            body |= {"top_p": sampling.top_p, "seed": sampling.seed}
            # not of OpenAI's own API, but most other servers take them
            body |= {key: value for key, value in (("top_k", sampling.top_k), ("min_p", sampling.min_p)) if value}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        if request.tools:
            body["tools"] = [_tool(json.loads(tool)) for tool in request.tools]
        if sampling.constraint is not None:
            body["response_format"] = _response_format(sampling.constraint)
        return body

    def _event(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise self._wire.not_json(f"an event that is no JSON: {data[:200]!r}") from error
        if not isinstance(event, dict) or event.get("error"):
            raise UserError(f"{self.url} broke its answer off: {data[:200]}")
        return event

    def _score(self, text: tuple[str, str, str], stopping: Event, **options: Any) -> Scored:
        prompt, answer, end = text
        whole = prompt + answer + end
        body = {"model": self.model, "prompt": whole, "echo": True, "logprobs": 1, "max_tokens": 1,
                "temperature": 0, **options}
        try:
            said = self._wire.post("/completions", body, stopping)
            [choice] = said["choices"]
            found, starts = choice["logprobs"]["token_logprobs"], choice["logprobs"]["text_offset"]
            echoed = str(choice["text"]).startswith(whole)
        except Refused as error:
            if error.status not in CANNOT_SCORE:
                raise
            self._no_scores(error.said)
        except (KeyError, TypeError, ValueError) as error:
            raise NoLogprobsError(self._cannot("it returns no log-probs")) from error
        if not echoed or len(found) != len(starts):
            self._no_scores("it does not echo the prompt")
        return _sums(found, starts, len(prompt), len(prompt) + len(answer), len(whole))

    # ── what went wrong ──────────────────────────────────────────────────────────────────────────────────────────────

    def _only_model(self) -> str:
        found = self._wire.models()
        if len(found) == 1:
            return found[0]
        listed = ", ".join(found[:LISTED_MODELS]) + (", …" if len(found) > LISTED_MODELS else "")
        raise UserError(f"{self.url} has {len(found) or 'no listed'} models, and none is named.",
                        wanted=f"one of {listed}" if found else "the name of a model",
                        fix=f"name it behind the URL: {self.url}#MODEL")

    @contextmanager
    def _refusals_explained(self) -> Iterator[None]:
        """A 404 means that the model is not there, where the server lists others."""
        try:
            yield
        except Refused as error:
            if error.status == 404 and (found := self._wire.models()) and self.model not in found:
                raise self._unknown_model(found) from error
            raise

    def _unknown_model(self, found: Sequence[str]) -> UserError:
        listed = ", ".join(found[:LISTED_MODELS]) + (", …" if len(found) > LISTED_MODELS else "")
        return UserError(f"{self.url} has no model {self.model}.", wanted=f"one of {listed}")

    def _cannot(self, why: str) -> str:
        return f"{self.name} at {self.url} cannot score given answers: {why.rstrip('.')}."

    def _no_scores(self, why: str) -> NoReturn:
        raise NoLogprobsError(self._cannot(why), fix="generate answers instead, or use a server that echoes "
                                                     "(vLLM does)")


@dataclass
class _Gathered:
    """The events of a stream, put together."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    logprobs: list[float] = field(default_factory=list)
    reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)

    def add(self, event: dict[str, Any]) -> str:
        """The text that an event brings."""
        self.usage = event.get("usage") or self.usage
        if not event.get("choices"):
            return ""
        choice = event["choices"][0]
        delta = choice.get("delta") or {}
        self.reason = choice.get("finish_reason") or self.reason
        self.logprobs += [float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or ()]
        for part in delta.get("tool_calls") or ():
            call = self.calls.setdefault(int(part.get("index", 0)), {"name": "", "arguments": ""})
            for key in call:
                call[key] += (part.get("function") or {}).get(key) or ""
        piece = delta.get("content") or ""
        self.texts.append(piece)
        return str(piece)

    def completion(self, seconds: float) -> Completion:
        calls = [{"function": call} for _, call in sorted(self.calls.items())]
        text = _text_of({"content": "".join(self.texts), "tool_calls": calls})
        return Completion(text.strip(), (), self.reason in STOPPED, logprobs=tuple(self.logprobs), seconds=seconds,
                          prompt_tokens=int(self.usage.get("prompt_tokens") or 0),
                          new_tokens=int(self.usage.get("completion_tokens") or 0))


def with_calls(text: str, calls: Sequence[ToolCall]) -> str:
    """A text and calls as most chat templates write them, so that one grader reads every model's."""
    return "\n".join(filter(None, [text, *map(_written, calls)]))


def _written(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments      # for the grader to refuse
    said = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{said}\n</tool_call>"


def _text_of(message: dict[str, Any]) -> str:
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return with_calls(str(message.get("content") or ""),
                      [ToolCall(function["name"], function["arguments"]) for function in functions])


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if "function" in tool else {"type": "function", "function": tool}


def _response_format(constraint: Constraint) -> dict[str, Any]:
    """Structured output as the API has it; choices are the values of an object's only key (`_chosen` takes it out)."""
    if constraint.regex:
        raise UserError("A server behind the OpenAI API takes no regular expression as a constraint.",
                        wanted="a JSON schema, or choices")
    schema = json.loads(constraint.json_schema) if constraint.json_schema else {
        "type": "object", "properties": {"answer": {"type": "string", "enum": list(constraint.choices)}},
        "required": ["answer"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _chosen(text: str) -> str:
    try:
        return str(json.loads(text)["answer"])
    except (ValueError, KeyError, TypeError):
        return text         # a server that ignores the constraint


def _no_media(what: str) -> NoReturn:
    raise UserError(f"A remote model cannot be shown {what}.", wanted="texts, and images by URL")


def _sums(found: Sequence[float | None], starts: Sequence[int], prompt: int, end: int, whole: int) -> Scored:
    """Sums over the tokens that reach beyond the prompt (characters `prompt`), and over those that begin before `end`.

    The very first token of a text has no log-prob; the token that the server had to generate begins at `whole`.
    """
    ends = [*starts[1:], whole]
    counted = [(start, value) for start, stop, value in zip(starts, ends, found, strict=True)
               if value is not None and stop > prompt and start < whole]
    return Scored(sum(value for _, value in counted), sum(value for start, value in counted if start < end),
                  len(counted))
