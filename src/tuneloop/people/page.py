"""The judging page, on this machine alone: one person at a time in a browser tab, several people in several tabs.

NiceGUI draws it (see docs/people.md for why), mounted on a FastAPI application, with all of its files from the package:
nothing comes from outside. What happens is decided in `people.desk`; here it is shown. Texts are shown as texts, never
as HTML. Names of models never reach the browser.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tuneloop.errors import UserError, missing_extra
from tuneloop.people.desk import Desk, Work
from tuneloop.people.standing import Standing, standing_of
from tuneloop.people.store import Judgements

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
STALE_SECONDS = 3           # how old agreement may be that is shown while people judge
REST = 20                   # times as long as it took to count, before it is counted again
TITLE = "tuneloop rank"


@dataclass
class Room:
    """What all pages share: the work, the store, and who sits down."""

    work: Work
    store: Judgements
    title: str                                      # the name of the file or run
    saved: Callable[[], object] = lambda: None      # called whenever something was kept
    hints: list[str] = field(default_factory=list)  # commands for when everything is judged
    _standing: Standing | None = None
    _stale: float = 0.0

    def desk(self, annotator: str) -> Desk:
        return Desk(self.work, self.store, annotator, saved=self.saved)

    def standing(self) -> Standing:
        """Agreement and attention, a few seconds old; older where there is so much that it takes long."""
        began = time.monotonic()
        if self._standing is None or began > self._stale:
            self._standing = standing_of(len(self.work.items), self.store)
            now = time.monotonic()
            self._stale = now + max(STALE_SECONDS, REST * (now - began))
        return self._standing


def check_installed() -> None:
    """Raise a UserError where the page's library is missing."""
    try:
        import nicegui  # noqa: F401
    except ImportError:
        raise missing_extra("nicegui", "people", "The judging page") from None


def listen(port: int) -> socket.socket:
    """A socket of this machine's own; port 0 takes a free one. Raises a UserError where the port is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name != "nt":         # there it would let a second server take the port of the first
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen()          # who opens the address at once waits, and is not refused
    except OSError as error:
        found.close()
        raise UserError(f"Port {port} of {HOST} cannot be used: {error.strerror}.",
                        fix="choose another with --port, or --port 0 for a free one") from error
    return found


def address(sock: socket.socket, annotator: str | None) -> str:
    """Where the page is."""
    url = f"http://{HOST}:{sock.getsockname()[1]}/"
    return f"{url}judge?by={quote(annotator)}" if annotator else url


def serve(room: Room, sock: socket.socket, annotator: str | None = None) -> None:
    """Show the page until Ctrl-C."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app_of(room, annotator), log_level="warning", access_log=False))
    try:
        server.run(sockets=[sock])
    except KeyboardInterrupt:
        pass
    finally:
        sock.close()


def app_of(room: Room, annotator: str | None = None) -> FastAPI:
    """The pages on an application of their own, which answers this machine alone: a page of the web that is open in the
    same browser must not reach it under another name.
    """
    from fastapi import FastAPI
    from nicegui import ui
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from tuneloop.people.page_judge import JudgePage
    from tuneloop.people.page_overview import show_overview

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @ui.page("/", title=TITLE)
    def start() -> None:
        dress()
        if annotator:
            ui.navigate.to(f"/judge?by={quote(annotator)}")
            return
        show_names(room)

    @ui.page("/judge", title=TITLE)
    def judge(by: str = "") -> None:
        dress()
        try:
            desk = room.desk(by)
        except UserError as error:
            show_names(room, error.found if by else "")
            return
        JudgePage(room, desk).build()

    @ui.page("/overview", title=f"{TITLE}: overview")
    def overview() -> None:
        dress()
        show_overview(room)

    ui.run_with(app, title=TITLE, dark=None, favicon=ICON, show_welcome_message=False, tailwind=False,
                language="en-US")
    return app


ICON = ('<svg viewBox="0 0 100 100" xmlns="http://www.w3.org/2000/svg">'
        '<rect x="8" y="22" width="38" height="56" rx="8" fill="#2b5fd9"/>'
        '<rect x="56" y="24" width="36" height="52" rx="7" fill="none" stroke="#2b5fd9" stroke-width="6"/></svg>')


def dress() -> None:
    """What all pages wear."""
    from nicegui import ui

    ui.add_css((files("tuneloop.templates") / "people.css").read_text(encoding="utf-8"))
    ui.colors(primary="#2b5fd9")


def said(text: str) -> Any:
    """A text as it is, in the direction of its script."""
    from nicegui import ui

    return ui.label(text).classes("said").props('dir="auto"')


def heading(text: str, *, top: bool = False) -> None:
    from nicegui import ui

    with ui.element("h1" if top else "h2").classes("title"):
        ui.label(text).style("display: inline")


def show_names(room: Room, problem: str = "") -> None:
    """Who judges?"""
    from nicegui import ui

    def begin() -> None:
        if (name.value or "").strip():
            ui.navigate.to(f"/judge?by={quote(name.value.strip())}")

    room.store.look()
    with ui.element("main").classes("work narrow"):
        heading("Who judges?", top=True)
        ui.label(f"{room.title}: {len(room.work.items):,} to judge. You will not see whose answer is whose. Everything "
                 "is kept at once, so stop whenever you like.").classes("quiet")
        if problem:
            ui.label(problem).style("color: var(--bad)")
        with ui.element("div").style("display: flex; gap: .5rem; align-items: center; margin: 1rem 0"):
            name = ui.input("Your name").props("outlined dense autofocus").style("flex: 1").on("keydown.enter", begin)
            ui.button("Start", on_click=begin).props("unelevated no-caps")
        known = room.store.annotators("person")
        if known:
            ui.label("Or go on as").classes("label")
            with ui.element("div").style("display: flex; gap: .5rem; flex-wrap: wrap"):
                for one in known:
                    ui.button(one, on_click=lambda one=one: ui.navigate.to(f"/judge?by={quote(one)}")).props(
                        "outline no-caps dense padding='xs md'")
        ui.link("Overview", "/overview").style("display: inline-block; margin-top: 1.5rem")
