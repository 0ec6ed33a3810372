"""Near-duplicates: every pair that brute force finds, nothing else, and no quadratic time."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
import pytest
from data_rows import chat

from tuneloop.data.near import sketches
from tuneloop.data.near.frames import Frames
from tuneloop.data.near.links import components
from tuneloop.data.near.pairs import Near, first_equals, near
from tuneloop.data.near.rows import alike, frames_of, pieces, subject, written
from tuneloop.data.near.shingles import hashed, jaccard, plain, shingles
from tuneloop.data.near.sketches import PLACES, band_width
from tuneloop.data.near.texts import Some, Texts, writing
from tuneloop.errors import UserError
from tuneloop.types import Message, Origin, Preference, Text


def sentences(count: int, seed: int, words: int = 20) -> list[str]:
    """Texts of random words, each about 120 characters."""
    drawn = random.Random(seed)
    vocabulary = ["".join(drawn.choices("etaoinshrdlucm", k=drawn.randint(2, 9))) for _ in range(2000)]
    return [" ".join(drawn.choices(vocabulary, k=words)) for _ in range(count)]


def edited(text: str, edits: int, drawn: random.Random) -> str:
    words = text.split()
    for _ in range(edits):
        words[drawn.randrange(len(words))] = "".join(drawn.choices("xyz", k=4))
    return " ".join(words)


def with_copies(count: int, seed: int = 0) -> list[str]:
    """As many texts, and two edited copies of each third."""
    drawn = random.Random(seed)
    texts = sentences(count, seed, words=40)
    texts += [edited(text, edits, drawn) for text in texts[::3] for edits in (1, 3)]
    drawn.shuffle(texts)
    return texts


def pairs(found: Near) -> set[tuple[int, int]]:
    return set(zip(found.left.tolist(), found.right.tolist(), strict=True))


def by_brute_force(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    sets = [{text[i:i + 5] for i in range(len(text) - 4)} for text in texts]
    scores = {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in combinations(range(len(texts)), 2)}
    return {pair: score for pair, score in scores.items() if score >= threshold}


def test_shingles_by_hand() -> None:
    assert plain("  Straße \n und\tPlatz ") == "strasse und platz"
    assert shingles("abcdef") == {"abcde", "bcdef"}
    assert shingles("abc") == {"abc\0\0"}
    assert jaccard(shingles("abcdefg"), shingles("abcdefh")) == 2 / 4      # abcde, bcdef; cdefg, cdefh
    assert jaccard(shingles("ok"), shingles("ok")) == 1
    assert jaccard(shingles("ok"), shingles("no")) == 0


def test_hashes_are_those_of_the_shingles() -> None:
    texts = ["abcdefabcdef", "ab", "", "bcdef", "größe 😀!"]
    words, starts = hashed(texts)
    assert starts.tolist() == [0, 8, 9, 10, 11, 15]
    told = {}
    for text, start, end in zip(texts, starts.tolist(), starts[1:].tolist(), strict=False):
        padded = text.ljust(5, "\0")
        told.update(zip([padded[i:i + 5] for i in range(len(padded) - 4)], words[start:end].tolist(), strict=True))
    everything = set().union(*map(shingles, texts))
    assert set(told) == everything
    assert len(set(words.tolist())) == len(everything)


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_pairs_are_those_of_brute_force(threshold: float) -> None:
    texts = with_copies(150)
    true = by_brute_force(texts, threshold)
    found = near(texts, threshold)
    assert len(true) > 30
    assert pairs(found) == set(true)
    assert [true[pair] for pair in zip(found.left.tolist(), found.right.tolist(), strict=True)] == pytest.approx(
        found.alike.tolist())


def test_bands_find_pairs_that_are_just_alike_enough() -> None:
    """By the formula of banding: 21 bands of 6 places find a pair with index 0.8 in 99.8 of 100 cases."""
    assert band_width(0.8) == 6
    assert math.isclose(1 - (1 - 0.8 ** 6) ** (PLACES // 6), 0.9983, abs_tol=1e-4)
    assert band_width(1.0) == 32


def test_equal_texts_count_once_and_are_clustered() -> None:
    text, other = "the quick brown fox jumps over the lazy dog", "something else entirely, and long enough"
    found = near([other, text, text, text + "s", other, text])
    assert found.first.tolist() == [0, 1, 1, 3, 0, 1]
    assert pairs(found) == {(1, 3)}
    assert found.clusters().tolist() == [0, 1, 1, 1, 0, 1]


def test_between_sides_only_pairs_across_count() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    sides = np.array([0, 0, 1, 1, 0])
    found = near([text, text, text, text + "s", "something else entirely, and long enough"], sides=sides)
    assert found.first.tolist() == [0, 0, 2, 3, 4]
    assert pairs(found) == {(0, 2), (0, 3)}
    assert found.alike.tolist() == pytest.approx([1, 39 / 40])


def test_nothing_and_short_texts() -> None:
    assert len(near([]).first) == 0
    found = near(["", "a", "ab", "a", "", "abcd", "abce", "abcdefghij", "abcdefghijk"])
    assert found.first.tolist() == [0, 1, 2, 1, 0, 5, 6, 7, 8]
    assert pairs(found) == {(7, 8)}            # 6 shingles of 7


def test_pieces_must_each_be_alike() -> None:
    asked = "how many apples does tom have if he buys five, eats two of them before lunch, and sells the other three"
    rows = [f"{asked}\npositive", f"{asked} now\nnegative", f"{asked}?\npositive"]
    assert pairs(near(rows)) == {(0, 1), (0, 2), (1, 2)}
    assert pairs(near(rows, pieces=pieces)) == {(0, 2)}


def test_a_large_family_is_one_cluster_without_all_its_pairs() -> None:
    drawn = random.Random(1)
    text = sentences(1, seed=5, words=40)[0]
    texts = sentences(500, seed=6) + [f"{edited(text, 1, drawn)} {i}" for i in range(1500)]
    found = near(texts)
    assert set(found.clusters()[500:].tolist()) == {500}
    assert found.clusters()[:500].tolist() == list(range(500))
    assert len(found.left) < 1500 * 16


def test_boilerplate_in_the_middle_is_compared_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("tuneloop.data.near.pairs.jaccard", lambda a, b: compared.append(1) or jaccard(a, b))
    boilerplate = sentences(1, seed=7, words=30)[0]
    texts = [f"{text[:20]} {boilerplate} {text[20:]}" for text in sentences(2000, seed=8, words=8)]
    texts += [text + "!" for text in texts[:100]]
    found = near(texts)
    assert {(i, 2000 + i) for i in range(100)} <= pairs(found)
    assert len(compared) < 2100 * 20           # of two million pairs


def test_components_by_hand() -> None:
    assert components(7, np.array([3, 5, 1]), np.array([4, 6, 3])).tolist() == [0, 1, 2, 1, 1, 5, 5]


def test_first_equals_by_hand() -> None:
    keys = np.array([7, 9, 7, 9, 1], np.uint64)
    assert first_equals(keys).tolist() == [0, 1, 0, 1, 4]
    assert first_equals(keys, np.array([0, 0, 1, 0, 1])).tolist() == [0, 1, 2, 1, 4]


def test_texts_on_disk_read_as_in_memory() -> None:
    small, large = Texts(memory_bytes=10), Texts()
    for texts in (small, large):
        texts.extend(["ab", "größe 😀"])
        assert texts[1] == "größe 😀"
        texts.extend(["", "\ud800 half"])
        assert [texts[i] for i in range(len(texts))] == ["ab", "größe 😀", "", "\ud800 half"]
    assert (small.disk_bytes, large.disk_bytes) == (22, 0)
    some = Some(small, np.array([2, 0]), str.upper)
    assert (len(some), some[0], some[1]) == (2, "", "AB")
    small.close()
    large.close()


def test_a_full_disk_is_told() -> None:
    with pytest.raises(UserError, match="Temporary files cannot be written"), writing():
        raise OSError(28, "No space left on device")


def test_keys_on_disk_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = with_copies(100)
    found = near(texts)
    monkeypatch.setattr(sketches, "KEYS_BYTES", 50)
    again = near(texts)
    assert pairs(again) == pairs(found)
    assert (found.disk_bytes, again.disk_bytes) == (0, 21 * 4 * len(texts))


# --- rows ------------------------------------------------------------------------------------------------------------

INSTRUCTION = plain("""
    You are a careful assistant of a shop for films on the internet. Below you see what a customer wrote after watching
    one of them at home. Read it twice, do not mind spelling, and judge only what the customer thinks about it as a
    whole, never the shop, its prices or how fast the parcel came. Where praise and blame are mixed, weigh the last
    sentence most. Say whether this review is positive or negative:""")


def test_frames_are_what_prompts_share() -> None:
    texts = sentences(40, seed=2, words=5)
    frames = Frames.of([f"{INSTRUCTION} {text} answer in one word." for text in texts])
    assert frames.beginnings == [f"{INSTRUCTION} "]
    assert frames.endings == [" answer in one word."]
    assert frames.without(f"{INSTRUCTION} good answer in one word.") == "good"
    assert frames.without("another good thing") == "another good thing"
    assert Frames.of(texts) == Frames([], [])


def test_frames_of_several_tasks_are_found_beside_each_other() -> None:
    texts = sentences(60, seed=3, words=6)
    other = "translate what follows into french, and say nothing else: "
    prompts = [f"{(INSTRUCTION + ' ', other, '')[i % 3]}{text}" for i, text in enumerate(texts)]
    frames = Frames.of(prompts)
    assert frames.beginnings == [f"{INSTRUCTION} ", other]
    assert [frames.without(prompt) for prompt in prompts] == texts


def test_duplicates_are_no_frames() -> None:
    text = sentences(1, seed=4)[0]
    copies = [f"{text} {word}" for word in ("one", "two", "three", "four")]
    assert Frames.of([*[text] * 30, *copies, *sentences(100, seed=5)]) == Frames([], [])


def test_a_prompt_that_nearly_all_rows_have_is_a_frame() -> None:
    frames = Frames.of(["write a review of a product"] * 12 + ["what is two and two?"])
    assert frames.without("write a review of a product") == ""
    assert frames.without("what is two and two?") == "what is two and two?"


def test_rows_as_texts() -> None:
    frames = Frames.of([f"{INSTRUCTION} {text}" for text in sentences(20, seed=6)])
    row = written(chat(f"{INSTRUCTION}  GOOD film", "Positive"), frames)
    assert (pieces(row), subject(row)) == (["good film", "positive", ""], "good film\n")
    pair = Preference((Message("user", "Hi"),), "A", "B", Origin("p", 1))
    assert written(pair, frames) == "hi\na b\n"
    assert subject(written(Text("All\nof it", Origin("t", 1)), frames)) == "all of it\n"


def test_it_does_not_matter_where_in_a_file_rows_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.data.near.rows.SAMPLED", 40)
    texts = sentences(100, seed=12, words=4)
    rows = [chat(f"{INSTRUCTION if i < 50 else 'translate into french, and say nothing else: '} {text}", text, i)
            for i, text in enumerate(texts)]
    assert len(frames_of(rows).beginnings) == 2
    assert frames_of(rows) == frames_of(rows[::-1])


def test_rows_made_from_one_are_alike_and_what_is_alike_to_either() -> None:
    long, other, alone = (text for text in sentences(3, seed=13, words=12))
    rows = [chat(long, "a", 1), chat(other, "b", 1), chat(f"{other} again", "c", 2), chat(alone, "d", 3)]
    found = alike(rows)
    assert {origin.line for origin in found} == {1, 2}
    assert len(set(found.values())) == 1


def test_a_long_instruction_makes_no_rows_alike() -> None:
    texts = [*sentences(60, seed=9, words=4), "a fine film with a fine cast and a story that lasts for days",
             "a fine film with a fine cast and a story that lasts for ages"]
    rows = [chat(f"{INSTRUCTION}\n{text}\nIn one word?", "positive", line) for line, text in enumerate(texts, 1)]
    assert set(near([row.messages[0].content for row in rows]).clusters()[:60].tolist()) == {0}
    assert {origin.line for origin in alike(rows)} == {61, 62}


@pytest.mark.parametrize("instruction", ["", "Which word: ", INSTRUCTION])
def test_short_rows_are_not_alike_for_their_labels(instruction: str) -> None:
    words = ["cat", "car", "dog", "day", "sun", "sea", "sky", "red", "bad", "ice", "ink", "map"]
    rows = [chat(instruction + word, "the sentiment of this one is neutral", line)
            for line, word in enumerate(words, 1)]
    frames = frames_of(rows)
    found = near([written(row, frames) for row in rows], pieces=pieces)
    assert pairs(found) == set()
    assert alike(rows) == {}
