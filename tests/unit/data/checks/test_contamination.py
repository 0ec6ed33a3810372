"""Questions of evaluation sets among training rows: found by words in a row, as a whole, or nearly."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from part_rows import asked, chunks, found_by, lines, rows

from tuneloop.data.checks.base import Chunk
from tuneloop.data.checks.contamination import Check
from tuneloop.data.near import fingerprints
from tuneloop.data.near.fingerprints import EvaluationSet, Finder, load, prints_of, save
from tuneloop.data.near.grams import Runs, words_of
from tuneloop.types import Message, Origin, Prompt, Sample, Text

SHARED = Path(__file__).parents[4].parent / "shared" / "data"
LONG = "A farmer has twelve cows and buys three more each spring; how many cows are there after four springs?"
EIGHT = "Which of these two rivers is the longer?"       # as many words
SHORT = "Who wrote this old song?"


def sentences(count: int, words: int, seed: int = 0) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join("".join(drawn.choices("abcdefgh", k=6)) for _ in range(words)) for _ in range(count)]


def bench(*questions: str, padding: int = 30) -> list[Sample]:
    """A set whose first questions are these."""
    return [Prompt((Message("user", question),), (), Origin("bench.jsonl", line))
            for line, question in enumerate([*questions, *sentences(padding, 15)], 1)]


# --- runs of words ---------------------------------------------------------------------------------------------------


def test_words_are_what_is_left_of_any_setting() -> None:
    assert words_of("  „Straße“\n(don't_panic), 3.5!") == "strasse don t panic 3 5"


def test_runs_are_equal_exactly_where_their_words_are() -> None:
    """Against sets of tuples of words."""
    texts = [*sentences(20, 9), "abc def", "", "one", *sentences(5, 9)]
    runs = Runs(texts)
    for length in (1, 3, 9, 10):
        hashes, numbers = runs.of(length)
        told = [(number, tuple(words[i:i + length])) for number, words in enumerate(text.split() for text in texts)
                for i in range(len(words) - length + 1)]
        assert numbers.tolist() == [number for number, _ in told]
        assert len(set(zip(hashes.tolist(), (run for _, run in told), strict=True))) == len(set(hashes.tolist()))
        assert len(set(hashes.tolist())) == len({run for _, run in told})
    hashes, numbers = runs.whole()
    assert numbers.tolist() == [number for number, text in enumerate(texts) if text]
    assert hashes[:20].tolist() == runs.of(9)[0][:20].tolist() == hashes[-5:].tolist() + hashes[5:20].tolist()


def test_hashes_are_the_same_everywhere() -> None:
    """Fingerprints were written with them."""
    assert Runs(["What is nine and nine?"]).whole()[0].tolist() == [16681041026788387175]


def test_prints_are_spread_and_not_of_boilerplate() -> None:
    twenty, *others = sentences(40, 20)
    both = "the following question belongs to a set of questions that we ask in turn always"
    prints = prints_of([twenty, *(f"{both} {text}" for text in others)], shared_by=1, most=4)
    assert np.bincount(prints.row_of).tolist() == [4] * 40
    assert prints.hashes[:4].tolist() == Runs([twenty]).of(13)[0][[0, 2, 5, 7]].tolist()       # of 8 runs
    assert not set(prints.hashes.tolist()) & set(Runs([both]).of(13)[0].tolist())
    assert len(prints_of([twenty, twenty], shared_by=1).hashes) == 0
    assert len(prints_of([twenty, twenty], shared_by=2).hashes) == 16
    assert len(prints_of(["too short to tell"], shared_by=1).hashes) == 0


def test_saved_prints_are_the_same_when_loaded(tmp_path: Path) -> None:
    sets = [(EvaluationSet("a", "A (test)", 3, "MIT", "someone/a"), prints_of(["", *sentences(2, 16)], shared_by=1)),
            (EvaluationSet("b", "B", 2), prints_of(sentences(2, 6), shared_by=1))]
    save(tmp_path / "prints.npz", sets)
    loaded = load(tmp_path / "prints.npz")
    assert [one for one, _ in loaded] == [one for one, _ in sets]
    for (_, kept), (_, made) in zip(loaded, sets, strict=True):
        assert (kept.hashes.tolist(), kept.row_of.tolist()) == (made.hashes.tolist(), made.row_of.tolist())
    finder = Finder([prints for _, prints in loaded])
    hits = finder.hits(["nothing", f"Look:\n{sentences(2, 6)[1]}\n", f"so {sentences(2, 16)[0]} or not"])
    assert (hits.texts.tolist(), hits.sets.tolist(), hits.rows.tolist()) == ([1, 2], [1, 0], [1, 1])


# --- the check -------------------------------------------------------------------------------------------------------


def test_questions_are_found_whole_cut_or_nearly() -> None:
    train = rows("train.csv", *((text, "yes") for text in sentences(30, 12, seed=1)),
                 (f"Please help.\n{LONG.upper()}\nThanks", "24"),                                           # line 31
                 ("farmer has twelve cows, and buys three more each spring - how many cows?", "24"),        # 13 words
                 ("A farmer has twelve cows and buys three more", "24"),                                   # 9 words
                 ("I ask: which of these two rivers is the longer", "the first"), (SHORT, "nobody"),
                 ("who wrote this old song, and why?", "nobody"), ("Who wrote this old songs?", "nobody"))
    check = Check()
    (finding,) = found_by(check, evaluation=bench(LONG, EIGHT, SHORT), train=train)
    assert (finding.kind, finding.severity, lines(finding)) == ("bench.jsonl", "fix", [31, 32, 34, 35, 37])
    assert finding.what == "5 rows repeat 3 of the 33 rows of bench.jsonl"
    assert finding.examples[0].startswith('train.csv line 31 holds bench.jsonl line 1: "Please help.')
    assert check.facts() == {"contamination": {"bench.jsonl": {"rows": 5, "questions": 3, "of": 33}}}


def test_a_question_that_is_only_nearly_asked() -> None:
    words = sentences(1, 20, seed=5)[0].split()
    train = rows("train.csv", *((text, "yes") for text in sentences(30, 12, seed=1)),
                 (" ".join([*words[:10], "ijklmn", *words[11:]]), "no"),        # 10 of 135 shingles are others
                 (" ".join([*words[:8], "i", "j", "k", *words[11:]]), "no"))
    (finding,) = found_by(Check(), evaluation=bench(" ".join(words)), train=train)
    assert lines(finding) == [31]
    assert finding.examples[0].startswith(f'train.csv line 31 is nearly bench.jsonl line 1 ({125 / 145:.2f} alike): "')


def test_a_template_that_both_have_is_no_question() -> None:
    instruction = ("Below is a message that a customer sent to our bank. Say in one or two words what the customer "
                   "wants, and add nothing else to it, not even a full stop. Message:")
    questions = bench(*(f"{instruction} {text}" for text in sentences(8, 6, seed=2)), padding=0)
    train = [asked(f"{instruction} {text}", "no", line) for line, text in enumerate(sentences(40, 6, seed=3), 1)]
    assert found_by(Check(), evaluation=questions, train=train) == []
    (finding,) = found_by(Check(), evaluation=questions, train=[*train, asked(
        f"{instruction} {sentences(8, 6, seed=2)[4]}", "no", 41)])
    assert lines(finding) == [41]


def test_long_answers_are_looked_for_too() -> None:
    answer = sentences(1, 20, seed=4)[0]
    questions: list[Sample] = [*bench(), Prompt((Message("user", "why?"),), (answer,), Origin("bench.jsonl", 31))]
    train: list[Sample] = [Text(f"Some say: {answer}.", Origin("notes.txt", 7))]
    (finding,) = found_by(Check(), evaluation=questions, train=train)
    assert finding.what == "1 row repeats 1 of the 31 rows of bench.jsonl"


def test_sets_of_plain_text_and_rows_from_live_use() -> None:
    passage = sentences(1, 20, seed=6)[0]
    train = rows("train.csv", (f"Summarise: {passage}", "short"))
    (finding,) = found_by(Check(), evaluation=[Text(passage, Origin("passages.txt", 1))], train=train)
    assert (finding.kind, lines(finding)) == ("passages.txt", [1])
    assert found_by(Check(), evaluation=[Text(passage, Origin("live.txt", 1))], train=train) == []


def test_only_training_rows_count() -> None:
    assert found_by(Check(), evaluation=bench(LONG), test=rows("test.csv", (LONG, "24"))) == []
    check = Check()
    check.see(Chunk("train", [], [], []))
    assert check.findings() == []


def test_sets_come_before_the_rows() -> None:
    check = Check()
    for chunk in chunks("train", rows("train.csv", (LONG, "24"))):
        check.see(chunk)
    with pytest.raises(AssertionError, match="come before"):
        check.see(next(iter(chunks("evaluation", bench(LONG)))))


def test_well_known_sets_are_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prints = prints_of([*sentences(5, 14), LONG], shared_by=1)
    save(tmp_path / "prints.npz", [(EvaluationSet("cows", "COWS (test)", 6), prints)])
    monkeypatch.setattr("tuneloop.data.checks.contamination.load", lambda: load(tmp_path / "prints.npz"))
    (finding,) = found_by(Check(), train=rows("train.csv", ("hello", "hi"), (LONG, "24")))
    assert (finding.kind, finding.severity, lines(finding)) == ("cows", "note", [2])
    assert finding.fix.endswith("tuneloop data fix FILE drop checks=contamination kinds=cows")
    assert finding.examples == [f'train.csv line 2 holds question 6 of COWS (test): "{LONG[:60].strip()}…"']


def test_what_comes_with_us() -> None:
    sets = load()
    names = [one.name for one, _ in sets]
    assert names == ["gsm8k", "mmlu", "arc_easy", "boolq", "humaneval", "mbpp", "ifeval", "svamp", "pubmedqa", "sst2",
                     "banking77", "xstest"]
    assert all(one.licence and one.source for one, _ in sets)
    assert fingerprints.BUILT_IN.stat().st_size < 1e6
    assert {one.name: one.rows for one, _ in sets}["gsm8k"] == 1319
    assert all(np.bincount(prints.row_of).max() <= 4 for _, prints in sets)


def shared(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real rows")
def test_a_real_test_set_in_a_training_file_is_found_and_ordinary_text_is_not() -> None:
    pasted = [(f"Solve step by step.\n\nQuestion: {row['question']}\nAnswer:", row["answer"])
              for row in shared("gsm8k/test.jsonl")[:200]]
    ordinary = [(row["instruction"], row["response"]) for row in shared("bitext_customer_support/train.jsonl")]
    (finding,) = found_by(Check(), train=rows("train.csv", *ordinary, *pasted))
    assert finding.kind == "gsm8k"
    assert lines(finding) == list(range(len(ordinary) + 1, len(ordinary) + 201))
    assert finding.what == "200 rows repeat 200 of the 1,319 rows of GSM8K (test)"
    encyclopedia: list[Sample] = [Text(row["text"], Origin("wiki.txt", line))
                                  for line, row in enumerate(shared("wikitext2/valid.jsonl"), 1)]
    assert found_by(Check(), train=encyclopedia) == []
