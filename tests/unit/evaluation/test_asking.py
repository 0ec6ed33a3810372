"""Asking one model everything: labels by likelihood or read from texts, pairs, and open answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripted import Scripted
from tuneloop.errors import UserError
from tuneloop.evaluation.asking import NotFiniteError, ask, ask_pairs, label_in
from tuneloop.evaluation.cache import Cached
from tuneloop.inference.remote import NoLogprobsError
from tuneloop.types import Completion, Message, Request, Sampling, Scored

LABELS = ["good", "bad"]


def questions(*texts: str) -> list[Request]:
    return [Request((Message("user", text),)) for text in texts]


class Mute(Scripted):
    """Does not say how likely answers are, as most hosted servers."""

    def score(self, requests: Sequence[Request], answers: Sequence[str], *, progress: Any = None) -> list[Scored]:
        raise NoLogprobsError("it does not say")


def test_the_likeliest_label_is_chosen() -> None:
    likes = {("a", "good"): -1.0, ("a", "bad"): -2.0, ("b", "good"): -5.0, ("b", "bad"): -0.5}
    backend = Scripted(likes=lambda asked, answer: likes[asked, answer])
    done: list[int] = []
    found = ask(backend, questions("a", "b"), ["good", "good"], LABELS, progress=done.append)
    assert found.how == "chosen"
    assert found.answers.texts == ["good", "bad"]
    assert found.answers.nll == [1.0, 5.0]          # of the right label, chosen or not
    assert found.answers.confidence == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-4.5))])
    assert found.answers.stopped is None
    assert found.notes == []


def test_a_model_without_probabilities_has_no_answers() -> None:
    """The first of equally senseless labels would be right for half of the rows, and nobody would know."""
    class Broken(Scripted):
        def generate(self, requests: Sequence[Request], sampling: Any, *, progress: Any = None) -> list[Completion]:
            return [Completion("!!!", (1,), False, logprobs=(math.nan,)) for _ in requests]

    backend = Broken(likes=lambda asked, answer: math.nan)
    with pytest.raises(NotFiniteError, match="scripted gives no finite probabilities"):
        ask(backend, questions("a", "b"), LABELS, LABELS)
    with pytest.raises(NotFiniteError):
        ask(backend, questions("a"), ["x"])
    with pytest.raises(NotFiniteError):
        ask_pairs(backend, questions("a"), ["x"], ["y"])
    likes = {"good": -1.0, "bad": -math.inf}        # a label that cannot be is no trouble
    assert ask(Scripted(likes=lambda asked, answer: likes[answer]), questions("a"), ["good"], LABELS).answers.texts == [
        "good"]


def test_the_end_of_the_turn_counts_only_where_labels_begin_alike() -> None:
    class Ends(Scripted):
        def score(self, requests: Sequence[Request], answers: Sequence[str], *, progress: Any = None) -> list[Scored]:
            return [Scored({"card": -9.0, "card lost": -2.0, "bill": -3.0}[a],
                           {"card": -0.5, "card lost": -1.9, "bill": -2.9}[a], 2) for a in answers]

    assert ask(Ends(), questions("?"), ["card"], ["card", "card lost"]).answers.texts == ["card lost"]
    assert ask(Ends(), questions("?"), ["card"], ["card", "bill"]).answers.texts == ["card"]


def test_a_server_without_log_probs_is_told_the_labels_and_read() -> None:
    backend = Mute({"a": "Good.", "b": "It is bad!", "c": "good or bad", "d": "dunno"}.__getitem__)
    backend._answer = lambda text, answers=backend._answer: answers(text.split("\n\n")[0])      # type: ignore[misc]
    found = ask(backend, questions("a", "b", "c", "d"), ["good"] * 4, LABELS)
    assert (found.how, found.answers.texts, found.unread) == ("parsed", ["good", "bad", "", ""], 2)
    assert backend.requests[0].messages[-1].content.endswith(
        "\n\nAnswer with exactly one of these labels and nothing else: good, bad.")
    assert found.answers.nll is None
    assert any("read from what it wrote" in note for note in found.notes)
    assert any("2 of the 4 answers" in note for note in found.notes)
    assert found.spent.new_tokens == [2, 4, 4, 2]


def test_an_answer_outside_the_labels_is_refused() -> None:
    with pytest.raises(UserError, match="not among the labels: 'ugly'"):
        ask(Scripted(), questions("a", "b"), ["good", "ugly"], LABELS)


def test_open_answers_with_the_likelihood_of_the_references() -> None:
    backend = Scripted(str.upper, likes=lambda asked, answer: -2.0 * len(answer))
    found = ask(backend, questions("a", "b"), ["x", "yy"], sampling=Sampling(max_new_tokens=5), name="base")
    assert (found.how, found.answers.name, found.answers.texts) == ("written", "base", ["A", "B"])
    assert (found.answers.nll, found.answers.stopped) == ([2.0, 4.0], [True, True])
    assert list(found.spent.seconds) == [0.01, 0.01]
    assert ask(Mute(str.upper), questions("a"), ["x"]).answers.nll is None
    assert ask(backend, questions("a"), [""]).answers.nll is None       # nothing to be likely


def test_of_a_pair_the_likelier_answer_per_token_is_preferred() -> None:
    likes = {"short": -2.0, "a longer one": -3.0, "x": -1.0, "y": -1.0}
    backend = Scripted(likes=lambda asked, answer: likes[answer])
    found = ask_pairs(backend, questions("?", "?"), ["a longer one", "x"], ["short", "y"])
    assert found.answers.texts == ["a longer one", "y"]         # -1 per word against -2; a tie is wrong
    assert found.answers.nll == [3.0, 1.0]


def test_machine_time_is_that_of_the_answers_not_of_reading_them_from_the_cache(tmp_path: Path) -> None:
    first = ask(Cached(Scripted(str.upper), tmp_path), questions("a"), ["x"])
    second = ask(Cached(Scripted(str.upper), tmp_path), questions("a"), ["x"])
    assert first.spent.machine_seconds == second.spent.machine_seconds > 0


@pytest.mark.parametrize(("text", "label"), [
    ("card", "card"), (" Card. ", "card"), ("card arrival", "card arrival"), ("**card arrival**", "card arrival"),
    ("The label is card arrival", "card arrival"), ("card, not card arrival", ""), ("discard", ""), ("", ""),
    ("It is about the CARD", "card"), ("card or card", "card"), ("c++", "c++"), ("I say c++!", "c++")])
def test_labels_in_texts(text: str, label: str) -> None:
    assert label_in(text, ["card", "card arrival", "c++"]) == label


def test_case_counts_where_labels_differ_in_it_alone() -> None:
    assert label_in("us", ["US", "us"]) == "us"
    assert label_in("Us", ["US", "us"]) == ""
