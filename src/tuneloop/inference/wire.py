"""HTTP to a server behind the OpenAI API: the key, retries with growing waits, and errors that say what to mend.

The key comes from an environment variable alone. It is sent to that one server, never follows a redirect, and is cut
out of everything that the server says.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

import httpx2 as httpx

from tuneloop.errors import UserError

TRIES = 6
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
CONNECT_SECONDS, READ_SECONDS = 10.0, 300.0
PASSING = frozenset({408, 409, 425, 429})       # and everything from 500 on: worth another try
SHOWN_CHARACTERS = 300
LISTED_MODELS = 8


class Refused(UserError):
    """The server understood and said no; `status` is its HTTP status, `said` its own words."""

    def __init__(self, found: str, status: int, said: str, *, wanted: str = "", fix: str = "") -> None:
        super().__init__(found, wanted=wanted, fix=fix)
        self.status, self.said = status, said


class Wire:
    """One server. Safe to use from several threads."""

    def __init__(self, url: str, key_env: str = "", *, connections: int = 8,
                 first_wait_seconds: float = FIRST_WAIT_SECONDS, read_seconds: float = READ_SECONDS) -> None:
        self.url = _checked(url)
        self.key_env, self._key = key_env, _key(key_env)
        self._first_wait, self._reached = first_wait_seconds, False
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(
            headers=headers, timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections + 1, max_keepalive_connections=connections))

    def post(self, path: str, body: dict[str, Any], stopping: Event | None = None) -> dict[str, Any]:
        """The JSON object that the server answers. Raises Refused for a no, UserError for all other trouble.

        Once `stopping` is set, nothing is tried again.
        """
        return self._json(self._answered("POST", path, body, stopping or Event()))

    @contextmanager
    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[str]]:
        """The data of the server's events, one after the other; retried until the first byte, and not after it."""
        response = self._answered("POST", path, body, Event(), whole=False)
        try:
            yield self._events(response)
        except httpx.TransportError as error:
            raise self.cut_off() from error
        finally:
            response.close()

    def models(self) -> list[str]:
        """Names of the models that the server offers; empty where it does not list them."""
        try:
            said = self._json(self._answered("GET", "/models", None, Event()))
        except Refused as error:
            if error.status in (401, 403):
                raise
            return []
        listed = said.get("data")
        return [str(model["id"]) for model in listed if isinstance(model, dict) and "id" in model] \
            if isinstance(listed, list) else []

    def not_json(self, what: str) -> UserError:
        """The error for an answer that is not what the API promises."""
        return UserError(f"{self.url} does not answer as the OpenAI API does: {self._clean(what)}",
                         fix="look at the URL: it usually ends in /v1")

    def cut_off(self) -> UserError:
        """The error for a stream that ended early."""
        return UserError(f"{self.url} cut its answer off.", fix="ask again; what was finished before is kept")

    def _answered(self, method: str, path: str, body: dict[str, Any] | None, stopping: Event, *,
                  whole: bool = True) -> httpx.Response:
        """A response with status 200; with its body, if `whole`."""
        for attempt in range(TRIES):
            request = self._client.build_request(method, self.url + path, json=body)
            headers: Any = {}
            try:
                response = self._client.send(request, stream=not whole)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
                raise UserError(f"{self.url} cannot be asked: {self._clean(str(error))}") from error
            except httpx.TransportError as error:
                # A server that never answered is a wrong URL, not a server that is busy.
                final = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached
                trouble: UserError = self._unreachable(error)
            else:
                self._reached = True
                if response.status_code == 200:
                    return response
                refusal = self._refusal(response)
                trouble, headers = refusal, response.headers
                passing = response.status_code in PASSING or response.status_code >= 500
                final = not passing or _is_final(response, refusal)
            wait = self._wait(attempt, headers)
            if final or attempt == TRIES - 1 or wait > LONGEST_WAIT_SECONDS or stopping.wait(wait):
                raise trouble
        raise AssertionError("the last try returns or raises")

    def _wait(self, attempt: int, headers: Any) -> float:
        """Seconds: what the server asks for, else twice as long each time, by chance up to half of it shorter."""
        asked = _asked_wait(headers)
        if asked is not None:
            return asked
        return float(min(LONGEST_WAIT_SECONDS, self._first_wait * 2**attempt) * random.uniform(0.5, 1))

    def _refusal(self, response: httpx.Response) -> Refused:
        """What a status other than 200 means for the user."""
        try:
            response.read()
        except httpx.TransportError:
            said = ""
        else:
            said = self._clean(_said(response))
        response.close()
        status, key = response.status_code, self.key_env
        if status in (401, 403):
            return Refused(f"{self.url} refuses the key: {status} {said}".rstrip(), status, said,
                           fix=f"put a key that is allowed to into the environment variable {key}" if key else
                           "name the environment variable that holds the key with key_env (--key-env)")
        if 300 <= status < 400:
            return Refused(f"{self.url} sends on to another address ({status}), where the key must not go.", status,
                           said, fix="name the address itself")
        if status == 429:
            return Refused(f"{self.url} takes no more requests now: {said}", status, said,
                           fix="wait, or mend the account's limits; what was finished before is kept")
        return Refused(f"{self.url} answers {status}: {said}", status, said,
                       fix="look at the URL: it usually ends in /v1" if status == 404 else "")

    def _unreachable(self, error: Exception) -> UserError:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return UserError(f"{self.url} did not answer in time.", fix="ask again later, or ask for shorter answers; "
                             "what was finished before is kept")
        return UserError(f"{self.url} cannot be reached: {self._clean(str(error)) or type(error).__name__}.",
                         fix="is the server running, and the URL right?")

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            said = response.json()
        except ValueError as error:
            kind = response.headers.get("content-type", "no content type")
            raise self.not_json(f"no JSON ({kind}): {_short(response.text)!r}") from error
        if not isinstance(said, dict):
            raise self.not_json(f"{_short(response.text)!r}")
        return said

    def _events(self, response: httpx.Response) -> Iterator[str]:
        try:
            for event in httpx.EventSource(response):
                yield event.data
        except httpx.SSEError as error:
            response.read()
            raise self.not_json(f"no stream of events: {_short(response.text)!r}") from error

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"{url} is no URL: {error}.", wanted="such as https://host/v1") from error
    if parsed.userinfo or parsed.query:
        raise UserError("The URL of a remote model holds a password or a query, which would be written into records.",
                        fix="put the key into an environment variable and name that with key_env (--key-env)")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"{url} is no URL of a server.", wanted="such as https://host/v1")
    return str(parsed.copy_with(fragment=None)).rstrip("/")


def _key(name: str) -> str:
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"The environment variable {name}, which should hold the key, is not set.",
                        fix=f"export {name}=…")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"What the environment variable {name} holds is no key: it has line breaks or odd letters.")
    return key


def _asked_wait(headers: Any) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds, or a date) ask for."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None


def _is_final(response: httpx.Response, refusal: Refused) -> bool:
    """Whether another try would be refused too: the server says so, or the account is empty."""
    return response.headers.get("x-should-retry") == "false" or "insufficient_quota" in refusal.said


def _said(response: httpx.Response) -> str:
    """The message of an error, with its code; of anything else the beginning."""
    try:
        error = response.json()["error"]
        if isinstance(error, str):
            return _short(error)
        code = error.get("code")
        return _short(str(error["message"])) + (f" ({code})" if code else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _short(response.text)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS - 1] + "…"
