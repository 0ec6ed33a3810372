"""Who clicks at random is named, and who reads is not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from judging import answer, clicks, desk, in_memory, judge_all, knows, prefers, questions, word, work

from tuneloop.people.attention import ODDS, Attention, attention
from tuneloop.people.desk import KEYS, Showing
from tuneloop.people.items import AGAIN, NONSENSE, NONSENSE_ANSWER, Verdict, better, equal


def test_evidence_by_hand(tmp_path: Path) -> None:
    """Ten items of which the left one won six, the right one four: shares 7/14 and 5/14, of ties and both bad 1/14.
    One is said again, with the right answer on the left: 0.75 against 7/14. Nonsense on the left was not taken: 0.85
    against 5/14.
    """
    asked = questions(tmp_path, 10)
    real = [word(q, prefers(q, "good", "poor")) for q in asked[:6]]
    for q in asked[6:]:
        names = (answer(q, "poor"), answer(q, "good"))
        real.append(word(q, better(names, 1), shown=names))
    again = word(asked[9], prefers(asked[9], "good", "poor"), item=real[9].item + AGAIN)
    both = (NONSENSE_ANSWER, answer(asked[0], "fair"))
    other = word(asked[0], better(both, 1), item="x" + NONSENSE, shown=both)
    found = attention("ann", [*real, again, other])
    assert (found.judged, found.first, found.decided, found.again, found.same, found.nonsense, found.told) == (
        10, 6, 10, 1, 1, 1, 1)
    assert found.same_by_chance == pytest.approx(7 / 14)
    assert found.evidence == pytest.approx(math.log(0.75 / (7 / 14)) + math.log(0.85 / (5 / 14)))
    assert found.state == "not known yet"


def test_what_was_undone_or_never_said_is_no_evidence(tmp_path: Path) -> None:
    [q] = questions(tmp_path, 1)
    alone = word(q, prefers(q, "good", "poor"), item="gone" + AGAIN)
    assert attention("ann", [alone]).evidence == 0
    assert attention("ann", []).median_seconds is None


def always(key: int) -> Callable[[Showing], Verdict]:
    return lambda showing: KEYS[showing.item.ask][key].verdict(showing.answers)


def careless(seed: int, share: float) -> Callable[[Showing], Verdict]:
    """Reads, but presses any key in a share of items."""
    numbers = random.Random(seed)
    return lambda showing: clicks(numbers)(showing) if numbers.random() < share else knows(showing)


def state(folder: Path, say: Callable[[Showing], Verdict], ask: str = "compare", items: int = 240) -> Attention:
    of = work(folder, items // (1 if ask == "order" else 3), ask)     # type: ignore[arg-type]
    kept = in_memory()
    judge_all(desk(of, kept), say)
    return attention("ann", kept.standing("ann"))


@pytest.mark.parametrize("ask", ["compare", "order", "thumbs", "stars"])
def test_random_clicks_are_named_whatever_is_asked(tmp_path: Path, ask: str) -> None:
    assert state(tmp_path / "a", clicks(random.Random(3)), ask).state == "at random"
    assert state(tmp_path / "b", knows, ask).state == "reads"


@pytest.mark.parametrize("key", range(4))
def test_one_key_for_everything_is_no_reading(tmp_path: Path, key: int) -> None:
    assert state(tmp_path, always(key)).state == "at random"


def test_a_few_slips_are_forgiven(tmp_path: Path) -> None:
    states = [state(tmp_path / str(seed), careless(seed, 0.15)).state for seed in range(5)]
    assert "at random" not in states
    assert states.count("reads") >= 3


def test_the_sentence_says_why(tmp_path: Path) -> None:
    found = state(tmp_path, always(0))
    assert "ann: seems to click at random: 0 of 12 items shown again got the same verdict (" in found.sentence()
    assert "nonsense was told from an answer in" in found.sentence()
    assert found.to_json()["state"] == "at random"


@pytest.mark.slow
def test_a_careful_person_is_rarely_named_and_a_random_one_soon(tmp_path: Path) -> None:
    """By simulation of what tests of attention see: 3,000 careful people and 3,000 random ones, looked at after every
    test. Careful ones who are ever named: at most 1 of ODDS. Half of the random ones are named within 7 tests.
    """
    [q] = questions(tmp_path, 1)
    names = (answer(q, "good"), answer(q, "poor"))
    numbers = random.Random(0)
    habit = [word(q, better(names, i % 2), item=f"habit {i}", shown=names) for i in range(60)]
    habit += [word(q, equal(names), item=f"tie {i}", shown=names) for i in range(10)]

    def first_named(is_careful: bool, tests: int) -> int | None:
        said = list(habit)
        for i in range(tests):
            if i % 2:
                first = said[numbers.randrange(len(habit))]
                same = numbers.random() < (0.75 if is_careful else 0)
                place = first.verdict.place(first.shown)
                verdict = first.verdict if same else equal(names) if place != "tie" else better(names, 0)
                if not is_careful:
                    verdict = habit[numbers.randrange(len(habit))].verdict
                said.append(word(q, verdict, item=first.item + AGAIN, shown=names[::-1]))
            else:
                both = (names[0], NONSENSE_ANSWER)
                luck = numbers.random()
                options = [better(both, 0), equal(both), better(both, 1)]
                limits = (0.85, 0.98) if is_careful else (31 / 74, 43 / 74)
                verdict = options[(luck > limits[0]) + (luck > limits[1])]
                said.append(word(q, verdict, item=f"{i}{NONSENSE}", shown=both))
            if attention("ann", said).state == "at random":
                return i + 1
        return None

    careful = [first_named(True, 12) for _ in range(1000)]
    assert sum(named is not None for named in careful) <= 1000 / ODDS + 3 * math.sqrt(1000 / ODDS)
    at_random = sorted(first_named(False, 24) or 99 for _ in range(300))
    assert at_random[150] <= 9
    assert at_random[270] <= 24
