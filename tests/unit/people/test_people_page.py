"""The judging page in a real browser: keys, phones, two people at once, and a server that is killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from judging import rows

from browser import BROWSER, needs_browser
from toy import write_jsonl
from tuneloop.people.store import SUFFIX, Judgements, Said
from tuneloop.record import RunFolder

pytest.importorskip("nicegui")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, needs_browser]

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PAUSE = 350         # ms: the page takes no verdict sooner than anybody reads
LONG = "Donaudampfschifffahrtsgesellschaft" * 6


class Server:
    """`tuneloop rank` in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words = folder, words
        self.port = 0
        self.start()

    def start(self) -> None:
        """On a free port; again on the same one."""
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tuneloop", "rank", *self.words, "--port", str(self.port)], cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "200"})
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\S*", line)
        assert found, line + self.process.stdout.read()
        self.url, self.port = found[0], int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*words: str) -> Server:
        started.append(Server(tmp_path, *words))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def open_page() -> Iterator[Callable[..., Any]]:
    """A page in a browser of its own; errors of the page and requests to elsewhere fail the test."""
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        elsewhere: list[str] = []
        errors: list[str] = []

        def new(url: str, size: dict[str, int] = DESKTOP, **options: Any) -> Any:
            page = browser.new_context(viewport=size, **options).new_page()
            page.on("request", lambda request: elsewhere.append(request.url))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(url)
            return page

        yield new
        browser.close()
        assert not [url for url in elsewhere if not re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:", url)]
        assert not errors


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.wait_for_timeout(PAUSE)
        page.keyboard.press(key)


def judge(page: Any, *keys: str) -> None:
    """Press keys that judge, and see after each that it counted."""
    for key in keys:
        before = page.get_by_label("progress").inner_text()
        press(page, key)
        page.wait_for_function("was => document.querySelector('[aria-label=progress]').innerText != was", arg=before)


def shows(page: Any, text: str) -> None:
    page.get_by_text(text, exact=True).first.wait_for(timeout=15_000)


def said(folder: Path, name: str = "collected.jsonl") -> list[Said]:
    kept = Judgements(folder / (name + SUFFIX))
    kept.look()
    found = kept.standing()
    kept.close()
    return found


def test_judging_by_keys(tmp_path: Path, serve: Callable[..., Server], open_page: Callable[..., Any]) -> None:
    texts = ["<b>bold</b> & <script>alert(1)</script>", "plain"]
    models = [{"model": "old-one"}, {"model": "new-one"}]
    write_jsonl(tmp_path / "collected.jsonl", [
        {"prompt": f"Question {i}?", "completions": texts, "sampled": models} for i in range(12)])
    page = open_page(serve("collected.jsonl", "--checks", "0").url)
    heard: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda data: heard.append(str(data))))
    page.get_by_label("Your name").fill("Ann Ö.")
    page.keyboard.press("Enter")
    shows(page, "0 of 12")
    assert page.get_by_text(texts[0]).count() == 1          # as text, and not as HTML
    assert page.locator("article b, article script").count() == 0
    judge(page, "1", "ArrowRight", "t", "b")
    shows(page, "4 of 12")
    judge(page, "u")
    shows(page, "3 of 12")
    press(page, "c")
    page.wait_for_timeout(PAUSE)
    page.keyboard.type("both 1 and 2 are bad")              # keys in a comment judge nothing
    page.keyboard.press("Enter")
    judge(page, "b")
    shows(page, "4 of 12")
    press(page, "s", "?")
    shows(page, "skip: it comes again at the end")
    press(page, "Escape", "e")
    box = page.get_by_label("ideal answer")
    box.wait_for()
    box.fill("As it should be.")
    page.get_by_role("button", name="Save").click()
    shows(page, "edited")
    judge(page, *"1" * 8)
    shows(page, "Everything is judged")
    assert any("Question 7?" in frame for frame in heard)
    assert not any(name in text for name in ("old-one", "new-one") for text in (*heard, page.content()))
    verdicts = [one for one in said(tmp_path) if one.kind == "verdict"]
    assert Counter(one.annotator for one in verdicts) == {"Ann Ö.": 12}
    assert Counter(one.verdict.place(one.shown) for one in verdicts) == {"0": 9, "1": 1, "tie": 1, "bad": 1}
    assert [one.comment for one in verdicts if one.comment] == ["both 1 and 2 are bad"]
    assert [one.value["text"] for one in said(tmp_path) if one.kind == "edit"] == ["As it should be."]
    assert all(one.seconds is not None and one.seconds < 60 for one in verdicts)


@pytest.mark.parametrize("ask", ["compare", "order", "thumbs", "stars"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_fits_and_all_buttons_can_be_reached(tmp_path: Path, serve: Callable[..., Server], ask: str,
                                                open_page: Callable[..., Any], size: dict[str, int]) -> None:
    write_jsonl(tmp_path / "collected.jsonl", [
        {"prompt": f"{LONG} {i}", "completions": [f"{LONG} {'word ' * 300}", "x\n" * 80, "short"]} for i in range(3)])
    is_phone = size is PHONE
    page = open_page(serve("collected.jsonl", "--ask", ask, "--annotator", "Ann").url, size, is_mobile=is_phone,
                     has_touch=is_phone)
    page.locator("footer .verdicts button").first.wait_for()
    for path in ("", "overview", "judge"):
        if path:
            page.goto(re.sub(r"judge.*", path, page.url))
            page.wait_for_timeout(PAUSE)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for button in page.locator("footer .verdicts button").all():
            box = button.bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= size["width"]
            assert 0 <= box["y"] <= box["y"] + box["height"] <= size["height"]
            assert box["height"] >= 40 or not is_phone      # a thumb's breadth


def test_an_order_by_keys_and_by_hand(tmp_path: Path, serve: Callable[..., Server],
                                      open_page: Callable[..., Any]) -> None:
    write_jsonl(tmp_path / "collected.jsonl", rows(3))
    page = open_page(serve("collected.jsonl", "--ask", "order", "--annotator", "Ann").url, PHONE, has_touch=True)
    shows(page, "0 of 3")
    press(page, "3", "1", "Enter")
    shows(page, "1 of 3")
    page.get_by_text("next best").nth(1).tap()
    shows(page, "place 1")
    press(page, "Enter")
    shows(page, "Give every answer a place first: press their numbers, the best one first.")
    page.get_by_text("next best").first.tap()
    page.wait_for_timeout(PAUSE)
    page.get_by_text("Save the order").tap()
    shows(page, "2 of 3")
    first, second = said(tmp_path)
    assert [first.shown.index(answer) for [answer] in first.verdict.groups] == [2, 0, 1]
    assert [second.shown.index(answer) for [answer] in second.verdict.groups] == [1, 0, 2]


def test_ten_thousand_pairs_two_people_and_a_killed_server(tmp_path: Path, serve: Callable[..., Server],
                                                           open_page: Callable[..., Any]) -> None:
    write_jsonl(tmp_path / "collected.jsonl", rows(10_000, ("poor", "good")))
    server = serve("collected.jsonl", "--checks", "0")
    pages = [open_page(f"http://127.0.0.1:{server.port}/judge?by={name}") for name in ("ann", "bob")]
    for page in pages:
        shows(page, "0 of 10,000")
    for _ in range(10):
        for page in pages:
            judge(page, "1")
    for page in pages:
        shows(page, "10 of 10,000")
    server.kill()
    assert Counter(one.annotator for one in said(tmp_path)) == {"ann": 10, "bob": 10}
    with pages[0].expect_event("load", timeout=60_000):         # an open page comes back by itself
        server.start()
    pages[1].goto(f"http://127.0.0.1:{server.port}/judge?by=bob")
    for page in pages:
        shows(page, "10 of 10,000")
        judge(page, "1", "1", "u")
        shows(page, "11 of 10,000")
    kept = said(tmp_path)
    assert Counter(one.annotator for one in kept) == {"ann": 11, "bob": 11}
    assert len({(one.annotator, one.item) for one in kept}) == 22
    pages[0].goto(f"http://127.0.0.1:{server.port}/overview")
    pages[0].get_by_text(re.compile("2 people judged 11 pairs of answers in common")).wait_for()


def test_a_run_is_judged_blind_on_the_same_page(tmp_path: Path, serve: Callable[..., Server],
                                                open_page: Callable[..., Any]) -> None:
    folder = RunFolder.create_at(tmp_path / "runs" / "mine")
    folder.file("recipe.yaml").write_text("base: b\n")
    folder.file("evaluation").mkdir()
    folder.write_lines([{"row": i, "prompt": f"Question {i}?", "answers": {"base": f"old {i}", "tuned": f"new {i}"}}
                        for i in range(5)], "evaluation", "predictions.jsonl")
    server = serve("mine", "--annotator", "Ann", "--checks", "0")
    page = open_page(server.url)
    shows(page, "0 of 5")
    judge(page, *"12tb1")
    shows(page, "Everything is judged")
    lines = [json.loads(line) for line in folder.file("blind", "judgements.jsonl").read_text().splitlines()]
    assert sorted(line["pair"] for line in lines) == [f"p{i}" for i in range(1, 6)]
    assert Counter(line["verdict"] for line in lines)["tie"] == 1
    assert {line["annotator"] for line in lines} == {"Ann"}
    server.process.send_signal(signal.SIGINT)
    told, _ = server.process.communicate(timeout=30)
    assert "Ann: 5 of 5" in told
    assert "Next: tuneloop certify" in told
    assert "Traceback" not in told


def test_only_this_machine_is_answered(tmp_path: Path, serve: Callable[..., Server]) -> None:
    write_jsonl(tmp_path / "collected.jsonl", rows(2))
    server = serve("collected.jsonl")
    for host, status in ((f"127.0.0.1:{server.port}", 200), ("evil.example", 400)):
        asked = http.client.HTTPConnection("127.0.0.1", server.port)
        asked.request("GET", "/", headers={"Host": host})
        assert asked.getresponse().status == status
        asked.close()
    second = subprocess.run([sys.executable, "-m", "tuneloop", "rank", "collected.jsonl", "--port", str(server.port)],
                            cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"Port {server.port} of 127.0.0.1 cannot be used" in second.stderr
    assert not list(tmp_path.glob(".nicegui"))
