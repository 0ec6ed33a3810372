"""Data sets of the hub, against a server on this machine that answers with the hub's routes and headers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from source_files import as_csv, as_jsonl, as_parquet, refused, table, values

from tuneloop.data.sources._hub_layout import find, parts_of

COMMIT, CONVERTED = "a" * 40, "c" * 40
FIRST, SECOND, HELD = [{"text": "one"}], [{"text": "two"}], [{"text": "held"}]


class FakeHub(ThreadingHTTPServer):
    """`repos[id][commit][path]` are files, `refs[id][name]` commits, `cards[id]` what the card says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.gated: set[str] = set()
        self.sent: list[str] = []

    def add(self, repo: str, files: dict[str, bytes], card: dict[str, Any] | None = None, ref: str = "main",
            commit: str = COMMIT) -> None:
        self.repos.setdefault(repo, {})[commit] = files
        self.refs.setdefault(repo, {})[ref] = commit
        self.cards[repo] = card or {}


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/datasets/"):
            repo, _, revision = path.removeprefix("/api/datasets/").partition("/revision/")
            self._info(repo, unquote(revision) or "main")
        else:
            repo, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._file(repo, unquote(revision), unquote(file), body)

    def _commit(self, repo: str, revision: str) -> str | None:
        if repo not in self.server.repos:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.server.refs[repo].get(revision, revision)
        if commit not in self.server.repos[repo]:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _info(self, repo: str, revision: str) -> None:
        if commit := self._commit(repo, revision):
            files = [{"rfilename": name, "size": len(data)} for name, data in self.server.repos[repo][commit].items()]
            self._send(200, json.dumps({"id": repo, "sha": commit, "siblings": files, "private": False, "tags": [],
                                        "cardData": self.server.cards[repo]}).encode())

    def _file(self, repo: str, revision: str, file: str, body: bool) -> None:
        if repo in self.server.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif commit := self._commit(repo, revision):
            data = self.server.repos[repo][commit][file]
            self.server.sent += [file] if body else []
            self._send(200, data, {"X-Repo-Commit": commit, "ETag": f'"{sha256(data).hexdigest()}"'}, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def test_the_split_that_is_named_is_downloaded_and_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("anna/reviews", {"README.md": b"#", "data/train-0.parquet": as_parquet(FIRST),
                             "data/train-1.parquet": as_parquet(SECOND), "data/test-0.parquet": as_parquet(HELD)})
    found = table(tmp_path, "hub:anna/reviews#train")
    assert [(row.file, row.line, row.values) for row in found.rows] == [
        ("hub:anna/reviews/data/train-0.parquet", 1, {"text": "one"}),
        ("hub:anna/reviews/data/train-1.parquet", 1, {"text": "two"})]
    assert sorted(hub.sent) == ["data/train-0.parquet", "data/train-1.parquet"]
    assert found.notes[0].startswith("default/train at revision aaaaaaaaaaaa: 2 files")


def test_parts_are_listed_where_the_name_leaves_it_open(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("anna/reviews", {"train.csv": as_csv(FIRST), "test.csv": as_csv(HELD)})
    assert "has 2 parts, and which one is not said" in refused(tmp_path, "hub:anna/reviews")
    said = refused(tmp_path, "hub:anna/reviews#dev")
    assert "one of: default/test, default/train" in said
    assert "write hub:anna/reviews#default/test" in said


def test_the_card_decides_and_a_revision_is_kept_to(hub: FakeHub, tmp_path: Path) -> None:
    card = {"configs": [{"config_name": "en", "data_files": [{"split": "train", "path": "en/*.jsonl"}]},
                        {"config_name": "de", "data_files": "de.jsonl"}]}
    old = {"en/b.jsonl": as_jsonl(SECOND), "en/a.jsonl": as_jsonl(FIRST), "de.jsonl": as_jsonl(HELD)}
    hub.add("anna/two", {"en/a.jsonl": as_jsonl(HELD), "de.jsonl": as_jsonl(HELD)}, card, commit="b" * 40)
    hub.add("anna/two", old, card, ref="v1")
    assert values(table(tmp_path, "hub:anna/two@v1#en").rows) == FIRST + SECOND
    assert values(table(tmp_path, "hub:anna/two#en").rows) == HELD


def test_what_the_hub_has_converted_is_read_where_a_script_makes_the_rows(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("anna/scripted", {"scripted.py": b"import os"})
    assert "no file of rows" in refused(tmp_path, "hub:anna/scripted")
    hub.add("anna/scripted", {"default/train/0000.parquet": as_parquet(FIRST)}, ref="refs/convert/parquet",
            commit=CONVERTED)
    assert values(table(tmp_path, "hub:anna/scripted").rows) == FIRST


def test_what_cannot_be_had_is_said(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("anna/gated", {"train.csv": as_csv(FIRST)})
    hub.gated.add("anna/gated")
    assert "is gated: its owner wants its terms accepted" in refused(tmp_path, "hub:anna/gated")
    assert "The hub has no data set anna/none" in refused(tmp_path, "hub:anna/none")
    assert "has no such revision" in refused(tmp_path, "hub:anna/gated@v9")
    assert "names no data set of the hub" in refused(tmp_path, "hub:")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "switched off by HF_HUB_OFFLINE" in refused(tmp_path, "hub:anna/gated")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.server_close()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "the hub did not answer as it should" in refused(tmp_path, "hub:anna/gated")


@pytest.mark.parametrize(("configs", "files", "parts"), [
    (None, ["a.csv", "b.csv", "notes.txt"], {"default/train": ["a.csv", "b.csv"]}),
    (None, ["train.csv", "valid.csv", "extra.csv"],
     {"default/train": ["train.csv"], "default/validation": ["valid.csv"]}),
    (None, ["train.csv", "train.parquet", "test.parquet"],
     {"default/train": ["train.parquet"], "default/test": ["test.parquet"]}),
    ([{"config_name": "x", "data_dir": "x"}], ["x/test/1.csv", "y/train.csv"], {"x/test": ["x/test/1.csv"]}),
    ([{"config_name": "x", "data_files": [{"split": "dev", "path": ["**/a-*.csv"]}]}],
     ["q/r/a-1.csv", "q/b-1.csv"], {"x/dev": ["q/r/a-1.csv"]}),
])
def test_files_belong_to_parts_as_the_hub_documents_it(configs: Any, files: list[str], parts: Any) -> None:
    assert parts_of(configs, files) == parts


def test_a_part_is_found_by_config_or_split_where_that_is_plain() -> None:
    parts = {"default/train": ["a"], "default/test": ["b"], "de/train": ["c"]}
    assert find(parts, "train") == "default/train"
    assert (find(parts, "de"), find(parts, "test"), find(parts, "de/train")) == ("de/train", "default/test", "de/train")
    assert (find(parts, ""), find(parts, "default"), find(parts, "fr")) == (None, None, None)
    assert find({"only/train": ["a"]}, "") == "only/train"
