"""Clusters of rows that are worded alike, and the words that set them apart."""

from __future__ import annotations

import numpy as np
import pytest
from data_rows import chat

from tuneloop.data.near import wording
from tuneloop.data.near.wording import clusters, wordings, words_of
from tuneloop.errors import UserError
from tuneloop.types import Origin, Text

TOPICS = [[f"my card payment of {n} euros was charged twice by the bank" for n in range(12)],
          [f"the parcel number {n} has not been delivered to the address" for n in range(12)],
          [f"how to reset a forgotten password of account {n}" for n in range(12)]]
TEXTS = [text for topic in TOPICS for text in topic]


def parts_topics(found: np.ndarray) -> bool:
    return [len(set(found[at:at + 12])) for at in (0, 12, 24)] == [1, 1, 1] and len(set(found)) == 3


@pytest.mark.parametrize("seed", range(5))
def test_clusters_find_topics_in_any_order(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(TEXTS))
    found = np.empty(len(TEXTS), dtype=int)
    found[order] = clusters([TEXTS[at] for at in order], 3, seed)
    assert parts_topics(found)


def test_every_cluster_has_a_text_and_equal_texts_share_one() -> None:
    texts = ["a", "b", "c", "d", "a", "", "Some longer text", "some  longer TEXT"]
    found = clusters(texts, 6, 0)
    assert set(found) == set(range(6))
    assert found[0] == found[4]
    assert found[6] == found[7]
    assert (clusters(texts, 6, 0) == found).all()
    assert set(clusters(texts, 1, 0)) == {0}


@pytest.mark.parametrize(("texts", "k"), [(["a", "a"], 2), ([], 1), (["a"], 0)])
def test_more_clusters_than_texts_are_refused(texts: list[str], k: int) -> None:
    with pytest.raises(UserError, match="different texts"):
        clusters(texts, k, 0)


def test_fewer_clusters_do_where_there_are_fewer_texts() -> None:
    assert clusters(["a", "b", "A"], 5, 0, fewer=True).tolist() in ([0, 1, 0], [1, 0, 1])


def test_of_many_texts_a_sample_finds_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "FITTED", 18)
    monkeypatch.setattr(wording, "_CHUNK", 7)
    assert parts_topics(clusters(TEXTS, 3, 1))


def test_any_text_can_be_clustered() -> None:
    texts = ["\ud800 half a pair", "x" * 10_000, "", "各位早上好", "😀"]
    assert set(clusters(texts, 5, 0)) == set(range(5))


def test_what_is_said_without_the_prompt_around_it() -> None:
    rows = [chat(f"Is this  good or bad?\n\n{text} Answer with one word.", "good") for text in
            ("A fine film.", "A dull play.", "Nothing")]
    assert wordings(rows) == ["A fine film.", "A dull play.", "Nothing"]
    assert wordings(rows[:1] * 2) == ["Is this good or bad? A fine film. Answer with one word."] * 2
    assert wordings([Text("Once upon a time", Origin("a.txt", 1)), rows[0]])[0] == "Once upon a time"


def test_only_whole_words_are_left_out() -> None:
    assert wordings([chat(text, "") for text in ("preview one", "previous two")]) == ["preview one", "previous two"]
    assert wordings([chat(text, "") for text in ("a b", "a c b", "a d b")]) == ["b", "c b", "d b"]


def test_words_that_set_clusters_apart() -> None:
    """By hand: "order" is in all four texts of cluster 0 and in half of cluster 1; "late" in three and in none; "the"
    in all. "unique" is in one text alone, and would tell of it.
    """
    texts = ["the order late", "the order late", "the late order 17", "the order unique", "the order song", "the song",
             "the song order", "the song"]
    own = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert words_of(texts, own, 2) == [["late", "order"], ["song"]]
    assert words_of(texts, own, 3)[2] == []


def test_scripts_without_spaces_are_told_by_two_characters() -> None:
    [first, second] = words_of(["我的包裹在哪里"] * 3 + ["写秋天的诗"] * 3, np.array([0, 0, 0, 1, 1, 1]), 2)
    assert "包裹" in first
    assert "秋天" in second
