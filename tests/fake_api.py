"""A server that speaks the OpenAI API on this machine, and misbehaves as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str]
Misbehave = Callable[["Handler", dict[str, Any]], bool]


class Handler(BaseHTTPRequestHandler):
    """One request; what there is to know of the server is in `self.server.api`."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.say({"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.api.models]})

    def do_POST(self) -> None:
        api: FakeApi = self.server.api
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with api.lock:
            api.seen.append((self.path, dict(self.headers), body))
        if api.misbehave(self, body):
            return
        if body.get("model") not in api.models:
            self.say({"error": {"message": "no such model", "type": "invalid_request_error", "param": None,
                                "code": "model_not_found"}}, 404)
        elif self.path.endswith("/chat/completions") and body.get("stream"):
            self.events(chunks(api.answer(body)))
        elif self.path.endswith("/chat/completions"):
            self.say(completion(api.answer(body)))
        elif self.path.endswith("/completions"):
            self.say(echo(body["prompt"]))
        else:
            self.say({"error": {"message": "no such path"}}, 404)

    def say(self, value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        raw = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": kind, "content-length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):       # whoever asked has gone
            self.wfile.write(raw)

    def events(self, values: list[Any], *, whole: bool = True) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for value in values:
            self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
            self.wfile.flush()
        if whole:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *words: Any) -> None: ...


class FakeApi:
    """What the server answers, and what it was asked: (path, headers, body)."""

    def __init__(self, answer: Answer, models: tuple[str, ...], misbehave: Misbehave) -> None:
        self.answer, self.models, self.misbehave = answer, models, misbehave
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.url = ""


def last_turn(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


@contextmanager
def serving(answer: Answer = last_turn, models: tuple[str, ...] = ("small",),
            misbehave: Misbehave = lambda handler, body: False) -> Iterator[FakeApi]:
    """A server in a thread; `misbehave` may answer itself, and then returns True."""
    api = FakeApi(answer, models, misbehave)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.api = api        # type: ignore[attr-defined]
    api.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def completion(text: str, reason: str = "stop", **message: Any) -> dict[str, Any]:
    """As the reference has it, with a token for every word."""
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text, "refusal": None} | message,
         "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 7 + len(text.split())}}


def chunks(text: str) -> list[dict[str, Any]]:
    """The same as a stream, three letters at a time, and the usage at the end."""
    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "small", "usage": None,
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]}

    pieces = [chunk({"content": text[i:i + 3]}) for i in range(0, len(text), 3)]
    usage = {"prompt_tokens": 7, "completion_tokens": len(text.split())}
    return [chunk({"role": "assistant", "content": ""}), *pieces, chunk({}, "stop"),
            {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "small", "choices": [],
             "usage": usage}]


def echo(prompt: str) -> dict[str, Any]:
    """Every letter is a token; the log-prob of the i-th is -i / 8, and one more token is generated."""
    values = [None, *(-i / 8 for i in range(1, len(prompt) + 1))]
    return {"object": "text_completion", "choices": [{"text": prompt + "!", "index": 0, "finish_reason": "length",
            "logprobs": {"tokens": [*prompt, "!"], "token_logprobs": values,
                         "text_offset": list(range(len(prompt) + 1)), "top_logprobs": None}}]}
