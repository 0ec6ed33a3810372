"""Whoever has seen a row is named, and what can be removed is gone from disk, byte for byte."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from version_rows import many, row, rows, texts

from tuneloop.data.answer_cache import AnswerCache
from tuneloop.data.token_cache import TokenCache
from tuneloop.data.versions import purge as purging
from tuneloop.data.versions.file_state import FileState
from tuneloop.data.versions.manifest import Manifest
from tuneloop.data.versions.purge import Places, Purge, purge
from tuneloop.data.versions.rows import VersionRow, row_hash
from tuneloop.data.versions.seen import UNUSED, read_seen, write_seen
from tuneloop.data.versions.store import Provenance, Store
from tuneloop.data.versions.target import family, find_row
from tuneloop.errors import UserError
from tuneloop.types import Origin

SECRET = "call Ada at 030 1234"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "store"))
    return Store()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, tmp_path / "runs", tmp_path / "caches")


def digest(text: str) -> str:
    return row_hash({"text": text}).hex()[:16]


def step(example: str) -> dict[str, Any]:
    return {"what": "redact", "fix": {"kind": "redact"}, "rows_before": 3, "rows_after": 3, "log": [
        {"what": "1 row changed", "why": "private", "rows": 1, "places": [], "examples": [example]}]}


def lineage(store: Store) -> tuple[Manifest, Manifest, Manifest]:
    """A version with the secret, one in which a fix changed that row, and one that descends and has it no more."""
    first = store.add(rows("a", SECRET, "b"), Provenance(name="raw"))
    second = store.add([*rows("a"), row("call Ada at [PHONE]", 2), row("c", 3)],
                       Provenance(name="clean", parents=[first.id], steps=[step(SECRET)]))
    third = store.add(rows("a"), Provenance(parents=[second.id], steps=[step("Ada")]))
    return first, second, third


def kinds(found: Purge) -> list[tuple[str, bool]]:
    return [(trace.kind, trace.removable) for trace in found.traces]


def nothing(folder: Path) -> None:
    raise AssertionError(f"{folder} was to be rewritten")


def bytes_hold(folder: Path, text: str) -> list[Path]:
    """Files that hold a text; Arrow files are unpacked."""
    import pyarrow as pa

    found = []
    for path in filter(Path.is_file, folder.rglob("*")):
        content = path.read_bytes()
        if path.suffix == ".arrow":
            content = str(pa.ipc.open_file(pa.BufferReader(content)).read_all().to_pydict()).encode()
        if text.encode() in content:
            found.append(path)
    return found


# --- which row is meant ----------------------------------------------------------------------------------------------


def test_a_row_by_file_and_line_by_version_and_number_and_by_hash(store: Store, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\na\nb\n")
    first, *_ = lineage(store)
    assert find_row("new.csv:3", store, tmp_path).values == {"text": "b"}
    assert find_row("rows.jsonl:1", store, tmp_path).values == {"text": "a"}
    for named in ("raw:2", "data:raw:2", f"data:{first.short}:2", f"{first.id[:6]}:2", digest(SECRET)[:8]):
        assert find_row(named, store, tmp_path).values == {"text": SECRET}


@pytest.mark.parametrize(("asked", "said"), [
    ("raw:4", "raw has no row 4"), ("raw:0", "raw has no row 0"), ("data:roh:1", "no version 'roh'"),
    ("new.csv:9", "No row of new.csv begins on line 9"), ("old.csv:1", "No version has the row old.csv:1"),
    ("rows.jsonl:2", r"means 2 different rows"), ("0" * 16, "No version has the row 0000"), ("raw", "names no row"),
])
def test_a_row_that_cannot_be_told(store: Store, tmp_path: Path, asked: str, said: str) -> None:
    (tmp_path / "new.csv").write_text("text\na\n")
    lineage(store)
    with pytest.raises(UserError, match=said):
        find_row(asked, store, tmp_path)


def test_a_row_is_followed_through_its_fixes_and_no_further(store: Store) -> None:
    first, second, _ = lineage(store)
    other = store.add([row("someone else's", 2)])       # the same line of another file of that name
    found = family(store, row(SECRET, 2))
    assert found.digests == {digest(SECRET), digest("call Ada at [PHONE]")}
    assert found.holders == [first, second]
    assert other not in found.holders
    assert family(store, row("never seen")).holders == []


def test_what_a_fix_made_is_found_in_versions_that_know_nothing_of_it(store: Store) -> None:
    *_, third = lineage(store)
    copied = store.add(rows("call Ada at [PHONE]", "z", file="copy.jsonl"))
    assert copied in family(store, row(SECRET, 2)).holders
    assert third not in family(store, row(SECRET, 2)).holders


# --- the store -------------------------------------------------------------------------------------------------------


def test_nothing_is_removed_without_being_asked_to(store: Store, places: Places) -> None:
    lineage(store)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    found = purge("raw:2", store, places, nothing)
    assert kinds(found) == [("version", True)] * 2
    assert found.lines() == [
        'raw:2 is {"text": "call Ada at 030 1234"}', "fixes have made 1 more of it",
        "  can go   data:raw: a version without the row takes its place",
        "  can go   data:clean: a version without the row takes its place",
        "Nothing has been removed yet; --yes does it, for good."]
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


def test_the_row_is_gone_from_every_version_and_from_disk(store: Store, places: Places) -> None:
    first, second, third = lineage(store)
    assert bytes_hold(store.root, SECRET)
    found = purge("raw:2", store, places, nothing, yes=True)
    assert [line.split()[0] for line in found.lines()[2:]] == ["removed", "removed"]
    assert bytes_hold(store.root, "Ada") == []
    assert texts(store.rows(store.find("raw"))) == ["a", "b"]
    assert texts(store.rows(store.find("clean"))) == ["a", "c"]
    assert store.verify() == []
    assert store.find(third.id).parents == (store.find("clean").id,)
    with pytest.raises(UserError, match=r"was purged(.|\n)*data:" + store.find("raw").short):
        list(store.rows(store.find(first.id)))
    assert store.find(second.id).lines()[-1] == "    1 row changed (private)"       # the log stays, without excerpts
    assert kinds(purge(f"data:{third.short}:1", store, places, nothing)) == [("version", True)] * 3


def test_versions_that_differed_in_the_row_alone_become_one(store: Store, places: Places) -> None:
    store.add(rows("a", SECRET), Provenance(name="one"))
    store.add(rows("a", SECRET, SECRET), Provenance(name="other"))
    purge("one:2", store, places, nothing, yes=True)
    assert texts(store.rows(store.find("one"))) == ["a"]
    assert store.find("one") == store.find("other")


def test_versions_that_shared_the_row_still_share_the_rest(store: Store, places: Places) -> None:
    given = many(20_000)
    store.add(given, Provenance(name="one"))
    store.add(given[:-1], Provenance(name="other"))
    purge("one:10000", store, places, nothing, yes=True)
    one, other = store.find("one"), store.find("other")
    assert (one.rows, other.rows) == (19_999, 19_998)
    assert len(set(one.chunks) & set(other.chunks)) >= len(one.chunks) - 2
    assert {p.stem for p in store.rows_folder.rglob("*.arrow")} == {c.sha256 for c in (*one.chunks, *other.chunks)}


def test_a_purge_that_was_cut_off_is_finished_by_the_next(store: Store, places: Places,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    lineage(store)
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".arrow":
            raise OSError("cut off")
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(UserError, match="cut off"):
            purge("raw:2", store, places, nothing, yes=True)
    assert bytes_hold(store.rows_folder, SECRET)
    purge("raw:1", store, places, nothing, yes=True)
    assert bytes_hold(store.root, "Ada") == []


def test_rows_left_by_an_add_that_was_cut_off_go_too(store: Store, places: Places) -> None:
    def broken() -> Any:
        yield from [*many(5_000), row(SECRET), *many(9_000, seed=1)]
        raise UserError("cut off")

    store.add(rows("a"), Provenance(name="raw"))
    with pytest.raises(UserError, match="cut off"):
        store.add(broken())
    assert bytes_hold(store.rows_folder, SECRET)
    purge("raw:1", store, places, nothing, yes=True)
    assert bytes_hold(store.rows_folder, SECRET) == []


def test_a_users_own_file_is_named_and_stays(store: Store, places: Places) -> None:
    path = places.root / "big.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a", SECRET)))
    store.add_reference(FileState.of(path, "big.jsonl"), [r.hash for r in rows("a", SECRET)])
    found = purge("big.jsonl:2", store, places, nothing, yes=True)
    assert kinds(found) == [("version", False), ("file", False)]
    assert "  stays    big.jsonl: holds it on line 2; remove it there" in found.lines()
    assert SECRET in path.read_text()


def test_a_version_whose_file_has_changed_cannot_be_looked_at(store: Store, places: Places) -> None:
    path = places.root / "big.jsonl"
    path.write_text(json.dumps({"text": SECRET}) + "\n")
    store.add_reference(FileState.of(path, "big.jsonl"), [r.hash for r in rows(SECRET)])
    path.write_text(json.dumps({"text": "something else"}) + "\n")
    lineage(store)
    last = next(t for t in purge("raw:2", store, places, nothing).traces if not t.removable)
    assert last.kind == "version"
    assert "not everything could be looked at" in last.what
    assert "big.jsonl has changed" in last.what


def test_a_file_that_cannot_be_read_any_more_is_named(store: Store, places: Places) -> None:
    path = places.root / "rows.jsonl"
    path.write_text(json.dumps({"text": SECRET}) + "\n")
    store.add(rows(SECRET), Provenance(name="raw", files=[FileState.of(path, "rows.jsonl")]))
    path.write_text("{broken\n")
    [trace] = [t for t in purge("raw:1", store, places, nothing).traces if t.kind == "file"]
    assert trace.what.startswith("cannot be looked at: rows.jsonl line 1")
    path.unlink()
    assert [t.kind for t in purge("raw:1", store, places, nothing).traces] == ["version"]


# --- runs ------------------------------------------------------------------------------------------------------------


def run(places: Places, name: str, parts: dict[str, Sequence[VersionRow]] | None = None, **record: Any) -> Path:
    folder = places.runs / name
    (folder / "evaluation").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "adapter").mkdir()
    (folder / "recipe.yaml").write_text("base: x\n")
    (folder / "record.json").write_text(json.dumps({"data": record}))
    if parts is not None:
        write_seen(folder, {part: [Origin(r.origin.file, r.origin.line, r.hash.hex()[:16]) for r in given]
                            for part, given in parts.items()})
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, *given: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in given))


def origin(text: str, line: int) -> dict[str, Any]:
    return {"file": "rows.jsonl", "line": line, "row": digest(text)}


def test_a_run_notes_its_rows(tmp_path: Path) -> None:
    given = [Origin("a.csv", 1, "00ff" * 4), Origin("b.csv", 2, "0" * 16)]
    write_seen(tmp_path, {"train": given, UNUSED: given[:1], "test": []})
    found = read_seen(tmp_path)
    assert found == [("train", given[0]), ("train", given[1]), (UNUSED, given[0])]
    assert [o.row for _, o in found] == ["00ff" * 4, "0" * 16, "00ff" * 4]
    assert read_seen(tmp_path / "nowhere") is None


def test_an_adapter_is_named_where_the_row_was_trained_on(store: Store, places: Places) -> None:
    run(places, "trained", {"train": rows("a", SECRET)})
    run(places, "tested", {"train": rows("a"), "test": rows(SECRET)})
    run(places, "left-out", {"train": rows("a"), UNUSED: rows(SECRET)})
    run(places, "stranger", {"train": rows("a")})
    lineage(store)
    found = purge("raw:2", store, places, nothing)
    assert {(t.kind, Path(t.where).name, t.what.split(";")[0]) for t in found.traces if t.kind != "version"} == {
        ("run", "trained", "read it for train"), ("adapter", "adapter", "was trained on it"),
        ("run", "tested", "read it for test"), ("run", "left-out", "read it and left it out")}
    assert [Path(t.where).parent.name for t in found.traces if t.kind == "adapter"] == ["trained"]


def test_a_run_that_noted_no_rows_is_known_by_its_version_or_its_file(store: Store, places: Places) -> None:
    first, *_ = lineage(store)
    path = places.root / "rows.jsonl"
    path.write_text(json.dumps({"text": SECRET}) + "\n")
    state = FileState.of(path, "rows.jsonl")
    store.add(rows(SECRET), Provenance(files=[state]))
    run(places, "by-version", versions={"train": first.id})
    run(places, "by-file", files=[vars(state)])
    run(places, "stranger", versions={"train": "f" * 64})
    found = purge("raw:2", store, places, nothing)
    assert {Path(t.where).name for t in found.traces if t.kind == "run"} == {"by-version", "by-file"}
    assert {t.what.split(";")[0] for t in found.traces if t.kind == "adapter"} == {"may have been trained on it"}


def test_its_texts_are_taken_out_of_a_runs_files(store: Store, places: Places) -> None:
    lineage(store)
    folder = run(places, "one", {"test": rows("a", SECRET), "validation": [row("call Ada at [PHONE]")]})
    (folder / "report.html").write_text(SECRET)
    write_lines(folder / "evaluation/predictions.jsonl", *(
        {"row": n, "origin": origin(text, n + 1), "prompt": text, "answers": {"base": f"to {text}"}}
        for n, text in enumerate(("a", SECRET))))
    (folder / "evaluation/base.json").write_text(json.dumps({"name": "base", "texts": ["to a", f"to {SECRET}"],
                                                             "nll": [1.0, 2.0]}))
    write_lines(folder / "samples.jsonl", {"step": 1, "prompt": "call Ada", "origin": origin("call Ada at [PHONE]", 2)},
                {"step": 1, "prompt": "x", "origin": origin("x", 9)})
    finding = {"places": [{"file": "rows.jsonl", "lines": [1, 2]}], "examples": [SECRET], "what": "2 rows"}
    other = {"places": [{"file": "rows.jsonl", "lines": [9]}], "examples": ["kept"], "what": "1 row"}
    (folder / "data/report.json").write_text(json.dumps({"findings": [finding, other]}))
    (folder / "data/report.html").write_text(SECRET)
    rewritten = []

    def rewrite(path: Path) -> None:
        rewritten.append(path)
        (path / "report.html").write_text("anew")

    found = purge("raw:2", store, places, rewrite, yes=True)
    assert [(Path(t.where).name, t.removable) for t in found.traces if t.kind == "log"] == [
        ("predictions.jsonl", True), ("samples.jsonl", True), ("report.json", True), ("report.html", True)]
    assert [line["row"] for line in lines(folder / "evaluation/predictions.jsonl")] == [0]
    assert json.loads((folder / "evaluation/base.json").read_text()) == {
        "name": "base", "texts": ["to a", ""], "nll": [1.0, 2.0]}
    assert [line["prompt"] for line in lines(folder / "samples.jsonl")] == ["x"]
    assert json.loads((folder / "data/report.json").read_text()) == {"findings": [finding | {"examples": []}, other]}
    assert rewritten == [folder]
    assert bytes_hold(folder, "Ada") == []
    again = purge(digest("a"), store, places, nothing)
    assert {Path(t.where).name for t in again.traces if t.kind == "run"} == {"one"}


def test_a_row_that_was_put_together_with_others_is_found(store: Store, places: Places) -> None:
    lineage(store)
    folder = run(places, "one", {})
    together = digest("a") + digest(SECRET)
    write_seen(folder, {"test": [Origin("rows.jsonl", 1, together)],
                        "train": [Origin("rows.jsonl", 9, digest("x") * 2)]})
    write_lines(folder / "evaluation/predictions.jsonl", {"row": 0, "origin": origin("a", 1) | {"row": together}},
                {"row": 1, "origin": origin("x", 9)})
    found = purge("raw:2", store, places, nothing, yes=True)
    assert [t.what for t in found.traces if t.kind == "run"] == ["read it for test"]
    assert [line["row"] for line in lines(folder / "evaluation/predictions.jsonl")] == [1]


def test_a_log_that_does_not_say_whose_rows_it_shows_is_named(store: Store, places: Places) -> None:
    lineage(store)
    folder = run(places, "old", {"validation": rows(SECRET)})
    write_lines(folder / "samples.jsonl", {"step": 1, "prompt": SECRET, "answer": "x"})
    found = purge("raw:2", store, places, nothing, yes=True)
    [trace] = [t for t in found.traces if t.kind == "log"]
    assert (trace.what, trace.removable) == ("does not say whose rows it shows; look yourself", False)
    assert len(lines(folder / "samples.jsonl")) == 1


def test_nothing_is_taken_from_a_run_that_is_going_on(store: Store, places: Places) -> None:
    lineage(store)
    folder = run(places, "busy", {"train": rows(SECRET)})
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="Another tuneloop is running"):
        purge("raw:2", store, places, nothing, yes=True)
    assert texts(store.rows(store.find("raw"))) == ["a", SECRET, "b"]       # so that the row is found the next time


# --- caches ----------------------------------------------------------------------------------------------------------


def test_caches_forget_the_row(store: Store, places: Places) -> None:
    lineage(store)
    tokens = TokenCache(places.caches / "tokens.db")
    tokens.put([(b"1", digest(SECRET), b"its own tokens"), (b"2", digest("call Ada at [PHONE]"), b"also"),
                (b"3", digest("a"), b"others")])
    with sqlite3.connect(places.caches / purging.COLUMNS) as database:
        database.execute("CREATE TABLE columns (key BLOB PRIMARY KEY, value BLOB)")
        database.executemany("INSERT INTO columns VALUES (?, ?)", [(b"k", b"anonymous numbers"), (b"l", b"m")])
    found = purge("raw:2", store, places, nothing, yes=True)
    assert [t.what.split(" of")[0] for t in found.traces if t.kind == "cache"] == ["its tokens, 2 times", "log-probs"]
    assert tokens.get([b"1", b"2", b"3"]) == {b"3": b"others"}
    tokens.close()
    assert bytes_hold(places.caches, "its own tokens") == []
    assert bytes_hold(places.caches, "anonymous numbers") == []
    assert [t.kind for t in purge(digest("a"), store, places, nothing).traces] == ["version"] * 3 + ["cache"]


def test_answers_to_the_row_are_forgotten(store: Store, places: Places) -> None:
    """Whose texts a question holds is known from whoever asked it; an answer that nobody knows of goes too."""
    lineage(store)
    answers = AnswerCache(places.caches / "answers.db")
    answers.put((bytes([i]), {"value": {"text": text}}) for i, text in enumerate((
        "to the row", "to a mended row", "to two rows", "to another", "to rows put together", "to who knows whom")))
    answers.note([(digest(SECRET), b"\0"), (digest("call Ada at [PHONE]"), b"\1"), (digest("a"), b"\2"),
                  (digest(SECRET), b"\2"), (digest("a"), b"\3"), (digest("x") + digest(SECRET), b"\4"), ("", b"\5")])
    named = purge("raw:2", store, places, nothing)
    assert [t.what.partition(";")[0] for t in named.traces if t.kind == "cache"] == [
        "what models answered to its texts, 4 times",
        "1 answers to questions of which nobody can tell whose texts they hold"]
    assert answers.get(b"\0") is not None
    purge("raw:2", store, places, nothing, yes=True)
    assert [answers.get(bytes([i])) for i in range(6)] == [None, None, None, {"value": {"text": "to another"}}, None,
                                                          None]
    answers.close()
    assert bytes_hold(places.caches, "to the row") == bytes_hold(places.caches, "to who knows") == []
    assert [t.kind for t in purge(digest("a"), store, places, nothing).traces].count("cache") == 1


def test_a_row_that_nobody_has_seen(store: Store, places: Places) -> None:
    (places.root / "rows.csv").write_text("text\nnew\n")
    found = purge("rows.csv:2", store, places, nothing, yes=True)
    assert kinds(found) == [("file", False)]
    assert found.to_json()["traces"][0]["where"] == "rows.csv"
