"""`tuneloop data`: a file becomes a version, fixes make another of it, and nothing is changed in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.data import commands
from tuneloop.data.commands import add, describe, fix
from tuneloop.data.fix import parse_words
from tuneloop.data.fixes.base import Again, Tools
from tuneloop.data.read import open_source
from tuneloop.data.versions.store import Store
from tuneloop.errors import UserError
from tuneloop.types import Sample, Text


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "store"))
    return Store()


def chat(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]}


def write(path: Path, *rows: dict[str, Any]) -> bytes:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.read_bytes()


LONG = chat("first question", "first answer", "second question", "second answer")


def test_a_file_is_fixed_in_a_new_version(store: Store, tmp_path: Path) -> None:
    content = write(tmp_path / "chats.jsonl", chat("q", "a"), LONG)
    done = fix("chats.jsonl", parse_words(["split_long", "max_characters=40"]), tmp_path, store, name="short")
    assert (tmp_path / "chats.jsonl").read_bytes() == content
    assert (done.before.rows, done.after.rows) == (2, 3)
    assert [r.origin.line for r in store.rows(done.after)] == [1, 2, 2]
    assert done.lines() == [
        "split_long max_characters=40: 2 rows → 3",
        "  1 row cut into 2: chats.jsonl line 2 (longer than 40 characters)",
        f"data:short has 3 rows; the 2 rows before are data:{done.before.short}.",
        "`tuneloop data export data:short FILE.jsonl` writes it; a recipe may name it: train: data:short"]
    assert done.to_json()["steps"][0]["rows_after"] == 3
    assert list(store.rows(done.before))[1].values == LONG


def test_a_version_tells_what_it_was_made_from(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", chat(*(turn["content"] for turn in LONG["messages"]), "q", "a"))
    fix("chats.jsonl", parse_words(["split_long", "max_characters=58"]), tmp_path, store, name="short")
    again = fix("data:short", parse_words(["split_long", "max_characters=35"]), tmp_path, store, name="shorter")
    assert (again.before.rows, again.after.rows) == (2, 3)
    told = "\n".join(describe(store, "shorter"))
    assert again.before == store.find("short")
    assert [m.names for m in store.ancestors(again.after)] == [("short",), ()]
    assert told.count("split_long max_characters=") == 2
    assert "from     chats.jsonl (" in told


def test_a_fix_without_effect_makes_no_version(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", chat("q", "a"))
    done = fix("chats.jsonl", parse_words(["split_long", "max_characters=40"]), tmp_path, store)
    assert done.after.id == done.before.id
    assert len(store.versions()) == 1
    assert store.find(done.after.id).parents == ()
    assert done.lines()[-1] == f"Nothing had to be changed: it stays data:{done.before.short}."


def test_rows_that_cannot_be_read_are_refused_or_dropped(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", chat("q", "a"), chat("q", ""), chat("q2", "a2"))
    with pytest.raises(UserError, match=r"line 2: the answer is empty(.|\n)*leave them out with drop checks=rows"):
        fix("chats.jsonl", parse_words(["split_long", "max_characters=40"]), tmp_path, store)
    assert store.versions() == []
    done = fix("chats.jsonl", parse_words(["drop", "checks=rows"]), tmp_path, store)
    assert (done.before.rows, done.after.rows) == (3, 2)
    assert done.lines()[0] == "1 row left out: chats.jsonl line 2"
    assert [step["rows_after"] for step in done.after.steps] == [2, 2]


def test_templates_say_how_plain_columns_are_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("film,verdict\nlong and dull,bad\nshort,good\n")
    done = fix("t.csv", parse_words(["drop", "checks=rows"]), tmp_path, store, prompt="{film}?", answer="{verdict}")
    assert done.after.rows == 2
    assert '"film"' in done.after.format


def test_a_fix_may_use_what_it_is_given(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", {"text": "aa bb cc"})

    def words(sample: Sample) -> int:
        assert isinstance(sample, Text)
        return len(sample.text.split())

    def tools(again: Again) -> Tools:
        return Tools(again, tokens=words)

    done = fix("t.jsonl", parse_words(["split_long", "max_tokens=2"]), tmp_path, store, tools=tools)
    assert [r.values for r in store.rows(done.after)] == [{"text": "aa bb"}, {"text": "cc"}]


def test_a_file_as_a_version(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "chats.jsonl", chat("q", "a"))
    one = add("chats.jsonl", tmp_path, store, name="mine")
    assert (one.names, one.rows, one.files[0].shown, one.source) == (("mine",), 1, "chats.jsonl", "chats.jsonl")
    assert add("data:mine", tmp_path, store, name="yours").id == one.id
    assert store.find("yours") == store.find("mine")


def test_a_large_file_is_kept_by_reference(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LARGE_BYTES", 10)
    write(tmp_path / "chats.jsonl", chat("q", "a"), LONG)
    done = fix("chats.jsonl", parse_words(["split_long", "max_characters=40"]), tmp_path, store)
    assert (done.before.chunks, done.before.reference is not None) == ((), True)
    assert (done.after.rows, done.after.reference) == (3, None)
    assert [r.values for r in open_source(f"data:{done.before.short}", tmp_path).rows()] == [chat("q", "a"), LONG]
