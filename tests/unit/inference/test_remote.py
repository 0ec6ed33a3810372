"""A model behind a server, over real HTTP: what is sent, what comes back, and every way in which it may go wrong."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from fake_api import Handler, chunks, completion, echo, serving
from tuneloop.errors import UserError
from tuneloop.inference.remote import NoLogprobsError, Remote, Template
from tuneloop.inference.wire import Wire
from tuneloop.types import Completion, Constraint, Message, Request, Sampling, ToolCall

GREEDY = Sampling(max_new_tokens=20)


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def remote(url: str, model: str = "small", key_env: str = "", **options: Any) -> Remote:
    return Remote(url, model, wire=Wire(url, key_env, first_wait_seconds=0.01, read_seconds=2), **options)


# --- what goes well --------------------------------------------------------------------------------------------------


def test_answers_come_in_order_with_their_tokens_and_time() -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        time.sleep(0.05 if text == "row 0" else 0)      # the first is answered last
        return f" {text} done "

    finished: list[int] = []
    with serving(answer) as api:
        found = remote(api.url).generate([ask(f"row {i}") for i in range(9)], GREEDY, progress=finished.append)
    assert [c.text for c in found] == [f"row {i} done" for i in range(9)]
    assert {(c.prompt_tokens, c.new_tokens, c.stopped, c.token_ids) for c in found} == {(7, 3, True, ())}
    assert found[0].seconds >= 0.05
    assert sum(finished) == 9


def test_several_requests_are_under_way_at_once_but_no_more_than_allowed() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def answer(body: dict[str, Any]) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1
        return "x"

    with serving(answer) as api:
        remote(api.url, concurrency=3).generate([ask(str(i)) for i in range(12)], GREEDY)
    assert most[0] == 3


def test_the_body_says_what_was_asked() -> None:
    turns = (Message("system", "Be brief."), Message("user", "hi", train=False),
             Message("assistant", "", calls=(ToolCall("add", '{"a": 1}'),), train=False), Message("tool", "2"))
    tool = json.dumps({"name": "add", "parameters": {}})
    sampling = Sampling(9, 0.5, 0.9, 3, top_k=4, min_p=0.1, stop=("\n",), top_logprobs=2,
                        constraint=Constraint(json_schema='{"type": "object"}'))
    with serving(lambda body: "ok") as api:
        model = remote(api.url)
        model.generate([Request(turns, (tool,)), ask("hi")], [sampling, GREEDY])
        bodies = {len(body["messages"]): body for _, _, body in api.seen}
    assert bodies[4] == {
        "model": "small", "temperature": 0.5, "top_p": 0.9, "seed": 3, "top_k": 4, "min_p": 0.1, "max_tokens": 9,
        "stop": ["\n"], "logprobs": True, "top_logprobs": 2,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},
                     {"role": "assistant", "content": None, "tool_calls": [
                         {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
                     {"role": "tool", "content": "2", "tool_call_id": "call_1"}],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"},
                                                                   "strict": True}}}
    # a greedy request holds nothing that a strict server might refuse
    assert bodies[1] == {"model": "small", "temperature": 0, "max_tokens": 20,
                         "messages": [{"role": "user", "content": "hi"}]}


def test_choices_are_sent_as_a_schema_and_taken_out_of_it() -> None:
    with serving(lambda body: '{"answer": "yes"}') as api:
        sampling = Sampling(constraint=Constraint(choices=("yes", "no")))
        model = remote(api.url)
        [found] = model.generate([ask("?")], sampling)
        assert next(iter(model.stream(ask("?"), sampling))) == "yes"
        schema = api.seen[0][2]["response_format"]["json_schema"]["schema"]
    assert found.text == "yes"
    assert schema["properties"]["answer"]["enum"] == ["yes", "no"]
    with serving() as api, pytest.raises(UserError, match="no regular expression"):
        remote(api.url).generate([ask("?")], Sampling(constraint=Constraint(regex="a+")))


def test_calls_logprobs_and_answers_that_were_cut() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        if body["messages"][0]["content"] == "call":
            call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
            said = completion("", "tool_calls", content=None, tool_calls=[call])
        else:
            said = completion("one two", "length")
            said["choices"][0]["logprobs"] = {"content": [{"token": "one", "logprob": -0.5},
                                                          {"token": " two", "logprob": -1.5}]}
        handler.say(said)
        return True

    with serving(misbehave=misbehave) as api:
        called, cut = remote(api.url).generate([ask("call"), ask("cut")], Sampling(top_logprobs=1))
    assert called.text == '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert called.stopped
    assert (cut.text, cut.stopped, cut.logprobs) == ("one two", False, (-0.5, -1.5))


def test_a_stream_comes_in_pieces_and_ends_with_the_whole() -> None:
    with serving(lambda body: "over the hills") as api:
        *pieces, last = remote(api.url).stream(ask("?"), GREEDY)
        body = api.seen[0][2]
    assert pieces == ["ove", "r t", "he ", "hil", "ls"]
    assert isinstance(last, Completion)
    assert (last.text, last.stopped, last.prompt_tokens, last.new_tokens) == ("over the hills", True, 7, 3)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_scores_are_the_sums_over_the_answer_and_its_end() -> None:
    template = Template(lambda request: f"{request.messages[-1].content}>", "#.")
    with serving() as api:
        model = remote(api.url, template=template)
        [found] = model.score([ask("ab")], ["cd"])      # a b > c d # . ; the letters from 3 on are counted
        [text] = model.score_texts(["abc"])
        bodies = [body for _, _, body in api.seen]
    assert (found.total, found.without_end, found.tokens) == (-(3 + 4 + 5 + 6) / 8, -(3 + 4) / 8, 4)
    assert (text.total, text.tokens) == (-(1 + 2) / 8, 2)
    assert [body["prompt"] for body in bodies] == ["ab>cd#.", "abc"]
    assert bodies[0]["add_special_tokens"] is False     # the template holds them
    assert "add_special_tokens" not in bodies[1]


def test_a_token_that_reaches_from_the_prompt_into_the_answer_counts_for_the_answer() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        said = echo(body["prompt"])
        said["choices"][0]["logprobs"] = {"token_logprobs": [None, -1.0, -2.0, -9.0], "text_offset": [0, 2, 4, 5]}
        handler.say(said)
        return True

    with serving(misbehave=misbehave) as api:
        [found] = remote(api.url, template=Template(lambda request: "abc", "")).score([ask("")], ["de"])
    assert (found.total, found.tokens) == (-3.0, 2)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def failing(times: int, status: int, value: Any = "busy", **headers: str) -> Any:
    """Answers with `status` so many times for each request."""
    left = {}

    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        key = json.dumps(body["messages"])
        left[key] = left.get(key, times) - 1
        if left[key] < 0:
            return False
        handler.say(value, status, **headers)
        return True

    return misbehave


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(misbehave=failing(2, status)) as api:
        found = remote(api.url).generate([ask("a"), ask("b")], GREEDY)
        assert len(api.seen) == 6
    assert [c.text for c in found] == ["a", "b"]


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    with serving(misbehave=failing(1, 429, retry_after="0.3")) as api:
        began = time.perf_counter()
        remote(api.url).generate([ask("a")], GREEDY)
        assert time.perf_counter() - began >= 0.3


@pytest.mark.parametrize("refusal", [
    {"retry_after": "3600"}, {"x_should_retry": "false"},
    {"value": {"error": {"message": "pay first", "code": "insufficient_quota"}}}])
def test_waiting_in_vain_is_not_tried(refusal: dict[str, Any]) -> None:
    with serving(misbehave=failing(9, 429, **refusal)) as api:
        with pytest.raises(UserError, match="takes no more requests now"):
            remote(api.url).generate([ask("a")], GREEDY)
        assert len(api.seen) == 1


def test_it_is_not_tried_for_ever() -> None:
    with serving(misbehave=failing(99, 500, {"error": {"message": "out of order"}})) as api:
        with pytest.raises(UserError, match="500: out of order"):
            remote(api.url).generate([ask("a")], GREEDY)
        assert len(api.seen) == 6


def test_an_answer_that_breaks_off_is_asked_for_again() -> None:
    tried: list[int] = []

    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        tried.append(1)
        if len(tried) > 1:
            return False
        handler.send_response(200)
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')
        handler.close_connection = True
        return True

    with serving(misbehave=misbehave) as api:
        assert remote(api.url).generate([ask("a")], GREEDY)[0].text == "a"
    assert len(tried) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_that_is_cut_says_so_after_what_came(whole: bool) -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        handler.events(chunks("over the hills")[:3], whole=whole)       # with or without [DONE], no finish_reason
        return True

    with serving(misbehave=misbehave) as api:
        pieces = remote(api.url).stream(ask("?"), GREEDY)
        assert [next(pieces), next(pieces)] == ["ove", "r t"]
        with pytest.raises(UserError, match="cut its answer off"):
            next(pieces)
        assert len(api.seen) == 1


def test_an_error_in_a_stream() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        handler.events([{"error": {"message": "out of memory"}}])
        return True

    with serving(misbehave=misbehave) as api, pytest.raises(UserError, match="out of memory"):
        list(remote(api.url).stream(ask("?"), GREEDY))


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_instead_of_an_answer(stream: bool) -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        handler.say("<html>Welcome</html>", kind="text/html")
        return True

    with serving(misbehave=misbehave) as api, pytest.raises(UserError, match=r"<html>Welcome</html>[^$]*ends in /v1"):
        list(remote(api.url).stream(ask("?"), GREEDY)) if stream else remote(api.url).generate([ask("?")], GREEDY)


@pytest.mark.parametrize("said", [[1], {"choices": []}, {"choices": [{"message": None}]}, {}])
def test_json_that_is_no_answer(said: Any) -> None:
    with serving(misbehave=failing(9, 200, said)) as api, pytest.raises(UserError, match="does not answer as the Open"):
        remote(api.url).generate([ask("?")], GREEDY)


def test_the_key_is_sent_and_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    refusal = {"error": {"message": "Incorrect API key provided: sk-secret", "code": "invalid_api_key"}}
    with serving(misbehave=failing(1, 401, refusal)) as api:
        model = remote(api.url, key_env="MY_KEY")
        with pytest.raises(UserError) as error:
            model.generate([ask("?")], GREEDY)
        assert api.seen[0][1]["authorization"] == "Bearer sk-secret"
        assert len(api.seen) == 1
    assert "provided: ***" in error.value.text
    assert "MY_KEY" in error.value.text
    assert "sk-secret" not in error.value.text + model.identity + model.name


def test_a_key_that_is_not_there_or_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match="MY_KEY, which should hold the key, is not set"):
        Remote("http://127.0.0.1:9/v1", "small", "MY_KEY")
    monkeypatch.setenv("MY_KEY", "a\nb")
    with pytest.raises(UserError, match="no key") as error:
        Remote("http://127.0.0.1:9/v1", "small", "MY_KEY")
    assert "a\nb" not in error.value.text


def test_the_key_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serving() as other, serving(misbehave=failing(9, 307, "", location=other.url + "/chat/completions")) as api:
        with pytest.raises(UserError, match="where the key must not go"):
            remote(api.url, key_env="MY_KEY").generate([ask("?")], GREEDY)
        assert other.seen == []


def test_a_model_that_is_not_there() -> None:
    with serving(models=("small", "large")) as api:
        model = remote(api.url, "huge")
        for attempt in (model.check, lambda: model.generate([ask("?")], GREEDY)):
            with pytest.raises(UserError, match=r"has no model huge\.\n  wanted: one of small, large"):
                attempt()
        remote(api.url, "large").check()


def test_a_path_that_is_not_there() -> None:
    with serving(misbehave=failing(9, 404)) as api, pytest.raises(UserError, match=r"404: busy\n.*ends in /v1"):
        remote(api.url).generate([ask("?")], GREEDY)


def test_without_a_name_the_only_model_is_meant() -> None:
    with serving() as api:
        assert Remote(api.url).identity == f"remote:{api.url}#small"
    with serving(models=("a", "b")) as api, pytest.raises(UserError, match="one of a, b"):
        Remote(api.url)


def test_nobody_listens() -> None:
    with serving() as api:
        url = api.url
    began = time.perf_counter()
    with pytest.raises(UserError, match="cannot be reached"):
        remote(url).check()
    assert time.perf_counter() - began < 2      # a wrong URL is said at once


def test_a_server_that_is_too_slow() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        time.sleep(0.4)
        return False

    with serving(misbehave=misbehave) as api:
        model = Remote(api.url, "small", wire=Wire(api.url, first_wait_seconds=0.01, read_seconds=0.05))
        with pytest.raises(UserError, match="did not answer in time"):
            model.generate([ask("?")], GREEDY)


def test_the_first_error_ends_the_rest() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        if body["messages"][0]["content"] == "0":
            handler.say({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400)
            return True
        time.sleep(0.02)
        return False

    with serving(misbehave=misbehave) as api:
        with pytest.raises(UserError, match=r"400: too long \(context_length_exceeded\)"):
            remote(api.url, concurrency=2).generate([ask(str(i)) for i in range(100)], GREEDY)
        assert len(api.seen) < 10


def test_newer_models_name_the_limit_differently() -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        if "max_tokens" in body:
            handler.say({"error": {"message": "Use 'max_completion_tokens' instead."}}, 400)
        return "max_tokens" in body

    with serving(misbehave=misbehave) as api:
        model = remote(api.url)
        assert [c.text for _ in range(2) for c in model.generate([ask("a")], GREEDY)] == ["a", "a"]
        assert [body.get("max_completion_tokens") for _, _, body in api.seen] == [None, 20, 20]


@pytest.mark.parametrize("said", ["no template", "404", "no echo", "no log-probs"])
def test_servers_that_do_not_score(said: str) -> None:
    def misbehave(handler: Handler, body: dict[str, Any]) -> bool:
        answer = echo(body["prompt"])
        if said == "404":
            handler.say({"error": {"message": "no such path"}}, 404)
            return True
        if said == "no echo":
            answer["choices"][0]["text"] = "!"
        else:
            answer["choices"][0]["logprobs"] = None
        handler.say(answer)
        return True

    template = None if said == "no template" else Template(lambda request: "ab>", "#")
    with serving(misbehave=misbehave) as api, pytest.raises(NoLogprobsError, match="cannot score given answers"):
        remote(api.url, template=template).score([ask("ab")], ["c"])


@pytest.mark.parametrize(("url", "why"), [
    ("ftp://host/v1", "no URL of a server"), ("http://", "no URL"), ("https://me:pw@host/v1", "holds a password"),
    ("https://host/v1?key=abc", "holds a password or a query")])
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as error:
        Remote(url, "small")
    assert "pw@" not in error.value.text
    assert "abc" not in error.value.text
