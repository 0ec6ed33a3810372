"""Rows are rendered once, and never taken from the cache where anything that their tokens follow from has changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from data_rows import CharacterTokenizer

from tuneloop.data import token_cache
from tuneloop.data.groups import group_all
from tuneloop.data.render import RenderProblem
from tuneloop.data.token_cache import TokenCache, render_cached
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Group, Message, Origin, Preference, Rollout

ASKED = (Message("user", "q"),)


class Counting(CharacterTokenizer):
    """A tokenizer that says what it is, and counts the texts that it encodes."""

    def __init__(self, vocabulary: str = "characters", template: str = "plain") -> None:
        self.inner = SimpleNamespace(backend_tokenizer=SimpleNamespace(to_str=lambda: vocabulary),
                                     chat_template=template)
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.encoded += len(texts)
        return super().encode(texts)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[TokenCache]:
    kept = TokenCache(tmp_path / "caches" / "tokens.db")
    yield kept
    kept.close()


def chat(answer: str, line: int = 1, row: str = "ab") -> Conversation:
    return Conversation((*ASKED, Message("assistant", answer)), Origin("rows.csv", line, row))


def flat(groups: Sequence[Group | RenderProblem]) -> list[Any]:
    return [g if isinstance(g, RenderProblem) else
            [(b.ids.tolist(), b.weights.tolist(), b.origin, dict(b.named)) for b in g.branches] for g in groups]


def rendered(samples: Sequence[Any], cache: TokenCache, tokenizer: Any = None) -> int:
    """How many texts had to be encoded."""
    tokenizer = tokenizer or Counting()
    found = render_cached(samples, tokenizer, cache)
    assert flat(found) == flat(group_all(samples, Counting()))
    return int(tokenizer.encoded)


SAMPLES = [
    chat("one"), Preference(ASKED, "better", "worse", Origin("rows.csv", 2, "cd"), 0.1),
    Rollout(ASKED, ("x", "yy", "z"), (1.0, -0.5, 1 / 3), Origin("rows.csv", 3, "ef")),
]


def test_a_second_look_renders_nothing(cache: TokenCache) -> None:
    assert rendered(SAMPLES, cache) == 12           # a prompt and an answer for each of 1 + 2 + 3 branches
    assert rendered(SAMPLES, cache) == 0
    assert rendered([*SAMPLES, chat("new", 4, "01")], cache) == 2


def test_kept_arrays_are_of_the_same_types_and_may_be_changed(cache: TokenCache) -> None:
    render_cached(SAMPLES, Counting(), cache)
    [_, pair, _] = render_cached(SAMPLES, Counting(), cache)
    assert isinstance(pair, Group)
    branch = pair.branches[0]
    assert (branch.ids.dtype, branch.weights.dtype) == (np.int64, np.float32)
    assert branch.named["margin"] == np.float32(0.1)
    branch.ids[0] = 7


def test_a_row_that_moved_keeps_its_tokens_and_tells_its_new_place(cache: TokenCache) -> None:
    rendered([chat("one", line=1)], cache)
    assert rendered([chat("one", line=9)], cache) == 0      # `rendered` compares the origins too


@pytest.mark.parametrize("changed", [
    chat("two"), chat("one", row="ff"), replace(chat("one"), tools=("{}",)),
    replace(chat("one"), messages=(Message("system", "s"), *chat("one").messages)),
    replace(chat("one"), messages=(*chat("one").messages, *ASKED, Message("assistant", "x", train=False))),
])
def test_whatever_is_different_in_the_row_is_rendered(cache: TokenCache, changed: Conversation,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    rendered([chat("one")], cache)
    asked: list[Any] = []
    monkeypatch.setattr(token_cache, "group_all", lambda samples, tokenizer: asked.extend(samples) or
                        [RenderProblem(sample.origin, "") for sample in samples])
    render_cached([chat("one"), changed], Counting(), cache)
    assert asked == [changed]


def test_another_tokenizer_template_end_of_turn_or_special_token_is_another_entry() -> None:
    other_end, other_specials = Counting(), Counting()
    other_end.end_of_turn = "<end>\n"
    other_specials.specials = frozenset({"<end>", "<s>"})
    makers = [Counting(), Counting(vocabulary="words"), Counting(template="fancy"), other_end, other_specials]
    assert len({token_cache.identity(maker) for maker in makers}) == 5
    assert token_cache.identity(Counting()) == token_cache.identity(Counting())


def test_another_version_of_what_renders_is_another_entry(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(SAMPLES, cache)
    monkeypatch.setattr(token_cache, "_code", lambda: ["newer"])
    assert rendered(SAMPLES, cache) == 12


def test_rows_that_cannot_be_rendered_are_told_every_time(cache: TokenCache) -> None:
    bad = chat("an answer with <end> in it")
    for _ in range(2):
        [problem] = render_cached([bad], Counting(), cache)
        assert isinstance(problem, RenderProblem)


def test_rows_without_a_hash_are_not_kept(cache: TokenCache) -> None:
    for _ in range(2):
        assert rendered([chat("one", row="")], cache) == 2


def test_a_tokenizer_that_does_not_tell_what_it_is_renders(cache: TokenCache) -> None:
    plain = CharacterTokenizer()
    assert flat(render_cached(SAMPLES, plain, cache)) == flat(group_all(SAMPLES, plain))
    assert cache.count(["ab"]) == 0


def test_a_row_is_forgotten(cache: TokenCache) -> None:
    rendered(SAMPLES, cache)
    assert cache.count(["ab", "cd", "unknown"]) == 2
    cache.forget(["ab", "unknown"])
    assert cache.count(["ab", "cd"]) == 1
    assert rendered(SAMPLES, cache) == 2


def test_more_rows_than_are_asked_for_at_once(cache: TokenCache) -> None:
    many = [chat(f"answer {n}", n, f"{n:04x}") for n in range(1200)]
    assert rendered(many, cache) == 2400
    assert rendered(many, cache) == 0


def test_two_processes_may_use_it(cache: TokenCache) -> None:
    other = TokenCache(cache.path)
    rendered(SAMPLES[:2], cache)
    assert rendered(SAMPLES, other) == 6
    assert rendered(SAMPLES, cache) == 0
    other.close()


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokens.db").write_text("no database " * 100)
    with pytest.raises(UserError, match="cannot be used"):
        TokenCache(tmp_path / "tokens.db")


def test_a_file_that_is_locked_for_long_is_told(cache: TokenCache) -> None:
    cache._database.execute("PRAGMA busy_timeout = 1")
    with sqlite3.connect(cache.path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked"):
            render_cached(SAMPLES, Counting(), cache)


@pytest.mark.real
def test_a_real_tokenizer(cache: TokenCache, real_base: Path) -> None:
    tokenizer = ChatTokenizer(real_base)
    fresh = group_all(SAMPLES, tokenizer)
    assert flat(render_cached(SAMPLES, tokenizer, cache)) == flat(fresh)
    assert cache.count(["ab", "cd", "ef"]) == 3
    assert flat(render_cached(SAMPLES, tokenizer, cache)) == flat(fresh)


def test_a_cache_that_has_grown_large_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = TokenCache(tmp_path / "tokens.db")
    kept.put([(b"key", "row", b"value")])
    kept.close()
    assert TokenCache(tmp_path / "tokens.db").get([b"key"]) == {b"key": b"value"}
    monkeypatch.setattr(token_cache, "MOST_BYTES", 100)
    assert TokenCache(tmp_path / "tokens.db").get([b"key"]) == {}
