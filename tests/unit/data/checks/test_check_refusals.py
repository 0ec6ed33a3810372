"""Refusals and boilerplate in several languages, and how well refusals are told on labelled completions."""

from __future__ import annotations

import json

import pytest
from checked_rows import SHARED, answers, at, found, lines

from tuneloop.data.checks._refusing import _BOILERPLATE, _REFUSES, OPENING, boilerplate, refuses
from tuneloop.data.checks.refusals import Check
from tuneloop.types import Message, Preference, Rated

REFUSALS = [
    "I'm sorry, but I can't assist with that.", "Sorry, but I cannot help you.",
    "I cannot provide instructions on that.",
    "I am unable to do so.", "I won't write that.", "I apologize, but I will not answer this.",
    "I don't think it's appropriate to say that.", "It is not ethical to spread this.", "I must decline.",
    "Es tut mir leid, aber das kann ich nicht.", "Dabei kann ich leider nicht helfen.",
    "Je suis désolé, mais c'est non.",
    "Lo siento, pero no puedo ayudar.", "Mi dispiace, ma non posso.", "Desculpe, mas não posso.",
    "Извините, но я не могу помочь.", "抱歉，我无法回答您的问题。",
    "对不起，我不能这样做。", "申し訳ありませんが、できません。"]
ANSWERS = [
    "You can kill a process with `kill`.", "I can help with that.", "He said he was sorry to be late.", "Nein.",
    "It is not far from here.", "I can see why. You cannot park there, though.", "The cat can't swim.",
    "Sure! Here it is."]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers(answer: str) -> None:
    assert not refuses(answer)


@pytest.mark.parametrize("answer", [
    "As an AI language model, I see.", "as of my last knowledge update in 2023", "I am a large language model.",
    "I was trained by OpenAI.", "I don't have personal opinions.", "Als KI-Sprachmodell weiß ich", "En tant qu'IA, je",
    "Como modelo de lenguaje, no", "Come modello linguistico", "Как языковая модель, я",
    "作为一个人工智能，我", "AIとして"])
def test_boilerplate(answer: str) -> None:
    assert boilerplate(answer)


@pytest.mark.parametrize("answer", ["He works as an aid worker.", "An update of my phone.", "As an airline, we fly."])
def test_no_boilerplate(answer: str) -> None:
    assert not boilerplate(answer)


def test_rows_are_named_by_kind() -> None:
    seen = found(Check(), answers("Fine.", "I'm sorry, but as an AI I can't.",
                                  "Boil it. It's important to note that water is hot."))
    assert {kind: lines(finding) for kind, finding in seen.items()} == {"refusal": [2], "boilerplate": [2], "tail": [3]}


def test_only_what_is_to_be_learnt_counts() -> None:
    no, asked = "I can't help with that.", (Message("user", "Q"),)
    rows = [Preference(asked, "Yes.", no, at(1)), Preference(asked, no, "Yes.", at(2)), Rated(asked, no, False, at(3)),
            Rated(asked, no, True, at(4))]
    check = Check()
    assert lines(found(check, rows)["refusal"]) == [2, 4]
    assert check.facts() == {"refusals": {"rows": 2, "share": 0.5}}


@pytest.mark.skipif(not SHARED.exists(), reason="needs the public data sets")
@pytest.mark.parametrize("odd", [True, False])     # patterns were mended by a look at rows with odd numbers
def test_labelled_completions(odd: bool) -> None:
    told: dict[tuple[bool, bool], int] = {}
    for name in ("gpt4", "llama2orig"):
        for line in (SHARED / "xstest" / f"completions_{name}_gpteval.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if int(row["id"].rpartition("-")[2]) % 2 == odd:
                key = refuses(row["completion"]), row["final_label"] != "1_full_compliance"
                told[key] = told.get(key, 0) + 1
                opening = row["completion"][:OPENING]
                assert bool(_REFUSES.search(opening)) == refuses(row["completion"])      # signs lose nothing
                assert bool(_BOILERPLATE.search(row["completion"])) == bool(boilerplate(row["completion"]))
    precision = told[True, True] / (told[True, True] + told[True, False])
    recall = told[True, True] / (told[True, True] + told[False, True])
    print(f"{'odd' if odd else 'even'} rows: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.95
    assert recall >= 0.95
