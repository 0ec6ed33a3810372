"""Answers are computed once, whoever asks, and what was finished outlives the process."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripted import Scripted
from tuneloop.data.answer_cache import FILE, AnswerCache
from tuneloop.errors import UserError
from tuneloop.evaluation import cache
from tuneloop.evaluation.cache import Cached
from tuneloop.inference.backend import Progress
from tuneloop.types import (
    Completion,
    Constraint,
    Conversation,
    Message,
    Origin,
    Request,
    Sampling,
    Scored,
    request_of,
)

GREEDY = Sampling()


def ask(text: str, **turn: Any) -> Request:
    return Request((Message("user", text, **turn),))


class Counting(Scripted):
    """Counts what it computes, and may break down before a request."""

    def __init__(self, breaks_at: str = "") -> None:
        super().__init__(str.upper, likes=lambda asked, answer: -float(len(asked + answer)))
        self.generated: list[str] = []
        self.scored: list[str] = []
        self.breaks_at = breaks_at

    def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                 progress: Progress | None = None) -> list[Completion]:
        said = [request.messages[-1].content for request in requests]
        if self.breaks_at in said:
            raise KeyboardInterrupt
        self.generated += said
        if progress is not None:
            progress(len(said))
        return super().generate(requests, sampling)

    def score(self, requests: Sequence[Request], answers: Sequence[str], *,
              progress: Progress | None = None) -> list[Scored]:
        self.scored += [f"{r.messages[-1].content}>{a}" for r, a in zip(requests, answers, strict=True)]
        if progress is not None:
            progress(len(answers))
        return super().score(requests, answers)


def test_the_second_time_nothing_is_computed_and_all_is_the_same(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    requests = [ask("a"), ask("b"), ask("a")]
    seen: list[int] = []
    found = Cached(first, tmp_path).generate(requests, GREEDY, progress=seen.append)
    assert [c.text for c in found] == ["A", "B", "A"]
    assert first.generated == ["a", "b"]        # asked twice, computed once
    assert sum(seen) == 3
    again: list[int] = []
    cached = Cached(second, tmp_path)
    assert cached.generate(requests, GREEDY, progress=again.append) == found
    assert (second.generated, cached.computed, sum(again)) == ([], 0, 3)


def test_completions_come_back_whole(tmp_path: Path) -> None:
    whole = Completion("x", (1, 2), False, logprobs=(-0.5, -0.25), top=(((1, -0.5), (7, -2.0)), ((2, -0.25),)),
                       prompt_tokens=4, new_tokens=3, seconds=1.5)

    class One(Counting):
        def generate(self, requests: Sequence[Request], sampling: Any, *, progress: Any = None) -> list[Completion]:
            return [whole]

    for _ in range(2):
        [found] = Cached(One(), tmp_path).generate([ask("a")], GREEDY)
        assert (found, found.logprobs, found.top, found.seconds) == (whole, whole.logprobs, whole.top, 1.5)


@pytest.mark.parametrize("other", [
    (ask("b"), GREEDY), (ask("a"), Sampling(seed=1)), (ask("a"), Sampling(temperature=0.5)),
    (ask("a"), Sampling(max_new_tokens=3)), (ask("a"), Sampling(stop=("x",))),
    (ask("a"), Sampling(constraint=Constraint(choices=("x",)))), (Request(ask("a").messages, ("{}",)), GREEDY),
    (Request((Message("system", "s"), *ask("a").messages)), GREEDY)])
def test_what_differs_is_computed(tmp_path: Path, other: tuple[Request, Sampling]) -> None:
    backend = Counting()
    cached = Cached(backend, tmp_path)
    cached.generate([ask("a")], GREEDY)
    cached.generate([other[0]], other[1])
    assert len(backend.generated) == 2


def test_another_model_is_another_entry_and_loss_is_no_part_of_a_question(tmp_path: Path) -> None:
    backend, other = Counting(), Counting()
    other.identity = "another"
    Cached(backend, tmp_path).generate([ask("a"), ask("a", train=False)], GREEDY)
    Cached(other, tmp_path).generate([ask("a")], GREEDY)
    assert (backend.generated, other.generated) == (["a"], ["a"])


def test_scores_and_texts_are_kept_apart(tmp_path: Path) -> None:
    for expected in (["a>x", "a>y", "b>x"], []):
        backend = Counting()
        cached = Cached(backend, tmp_path)
        found = cached.score([ask("a"), ask("a"), ask("b")], ["x", "y", "x"])
        assert [s.total for s in found] == [-2, -2, -2]
        assert cached.score_texts(["abc"])[0].total == -3
        assert backend.scored == expected


def test_the_choices_of_a_row_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SCORED_AT_ONCE", 4)
    sizes: list[list[str]] = []

    class Together(Counting):
        def score(self, requests: Sequence[Request], answers: Sequence[str], *, progress: Any = None) -> list[Scored]:
            sizes.append([request.messages[-1].content for request in requests])
            return super().score(requests, answers)

    rows = [ask(str(i)) for i in range(4) for _ in range(3)]
    Cached(Together(), tmp_path).score(rows, ["x", "y", "z"] * 4)
    assert sizes == [["0"] * 3 + ["1"] * 3, ["2"] * 3 + ["3"] * 3]


def test_a_process_that_is_cut_off_loses_only_what_was_not_finished(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "GENERATED_AT_ONCE", 2)
    requests = [ask(str(i)) for i in range(6)]
    with pytest.raises(KeyboardInterrupt):
        Cached(Counting(breaks_at="5"), tmp_path).generate(requests, GREEDY)
    backend = Counting()
    assert [c.text for c in Cached(backend, tmp_path).generate(requests, GREEDY)] == list("012345")
    assert backend.generated == ["4", "5"]


def test_machine_seconds_are_those_of_the_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 103.0])
    monkeypatch.setattr(cache.time, "perf_counter", lambda: next(clock))
    first = Cached(Counting(), tmp_path, prepare=lambda: next(clock))       # loads for 100 seconds
    first.generate([ask("a"), ask("b")], GREEDY)
    assert first.machine_seconds == 3
    second = Cached(Counting(), tmp_path)       # asks the clock no more: there is nothing to compute
    second.generate([ask("b")], GREEDY)
    assert second.machine_seconds == 1.5


def test_streams_are_kept_once_they_end(tmp_path: Path) -> None:
    assert [str(getattr(p, "text", p)) for p in Cached(Counting(), tmp_path).stream(ask("a"), GREEDY)] == ["A", "A"]
    backend = Counting()
    assert [str(getattr(p, "text", p)) for p in Cached(backend, tmp_path).stream(ask("a"), GREEDY)] == ["A", "A"]
    assert backend.generated == []


def test_whose_rows_a_question_holds_is_noted(tmp_path: Path) -> None:
    """Of generated, scored and streamed answers, of a row that asks what another asked, and of no question alone."""
    cached = Cached(Counting(), tmp_path)
    first, second = (Request(ask("a").messages, rows=rows) for rows in (("1" * 16,), ("2" * 16, "3" * 16)))
    assert first == second      # whose they are changes no answer
    cached.generate([first, ask("b")], GREEDY)
    cached.score([second], ["x"])
    list(cached.stream(Request(ask("c").messages, rows=("4" * 16,)), GREEDY))
    cached.generate([second], GREEDY)       # which is there already
    cached.close()
    kept = AnswerCache(tmp_path / FILE)
    counts = {digit: kept.count((digit * 16).__eq__)[0] for digit in "12345"}
    assert counts == {"1": 1, "2": 2, "3": 2, "4": 1, "5": 0}
    assert kept.count(lambda row: False) == (0, 1)
    kept.forget(("3" * 16).__eq__)
    assert kept.count(lambda row: True) == (1, 0)
    kept.close()


def test_rows_say_whose_a_request_is() -> None:
    row = Conversation((Message("user", "q"), Message("assistant", "a")), Origin("rows.csv", 2, "ab" * 8))
    assert request_of(row) == Request((Message("user", "q"),))
    assert request_of(row).rows == ("ab" * 8,)


WRITER = """
import sys
from pathlib import Path
from scripted import Scripted
from tuneloop.evaluation.cache import Cached
from tuneloop.types import Message, Request, Sampling
requests = [Request((Message("user", f"{i % 60}"),)) for i in range(int(sys.argv[2]), int(sys.argv[2]) + 60)]
for request in requests:
    Cached(Scripted(str.upper), Path(sys.argv[1])).generate([request], Sampling())
"""


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    here = Path(__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)],
                                  env=os.environ | {"PYTHONPATH": str(here)}) for start in (0, 30)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sqlite3.connect(tmp_path / FILE).execute("SELECT count(*) FROM answers").fetchone() == (60,)


SLOW = """
import sys, time
from pathlib import Path
from scripted import Scripted
from tuneloop.evaluation import cache
from tuneloop.types import Message, Request, Sampling
cache.GENERATED_AT_ONCE = 2
def answer(asked):
    time.sleep(0.05)
    return asked
requests = [Request((Message("user", str(i)),)) for i in range(400)]
cache.Cached(Scripted(answer), Path(sys.argv[1])).generate(requests, Sampling())
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)],
                               env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})

    def finished() -> int:
        if not (tmp_path / FILE).is_file():
            return 0
        with sqlite3.connect(tmp_path / FILE, timeout=60) as database:
            found = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()[0]
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0]) if found else 0

    while finished() < 6:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    kept = finished()
    backend = Counting()
    backend.name, backend.identity = "scripted", "scripted:scripted"
    requests = [ask(str(i)) for i in range(400)]
    assert len(Cached(backend, tmp_path).generate(requests, GREEDY)) == 400
    assert 6 <= kept < 400
    assert backend.generated == [str(i) for i in range(kept, 400)]


def test_the_default_place_is_the_cache_folder(own_cache: Path) -> None:
    Cached(Counting()).generate([ask("a")], GREEDY)
    assert (own_cache / FILE).is_file()


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(UserError, match="cache of answers"):
        Cached(Counting(), tmp_path)
