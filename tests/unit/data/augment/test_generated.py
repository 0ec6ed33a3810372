"""Paraphrases and new tasks by a model: what is asked, what is kept, and why the rest is refused."""

from __future__ import annotations

import json

import pytest
from augment_rows import Model

from tuneloop.data.augment import parse
from tuneloop.data.augment.paraphrase import paraphrases
from tuneloop.data.augment.self_instruct import Task, self_instruct
from tuneloop.errors import UserError

QUESTION = "How long does it take until order 4711 is refunded to my card?"


@pytest.mark.parametrize(("candidate", "why"), [
    ("When will the refund of order 4711 be on my card, and how long does it take?", ""),
    (QUESTION, "a copy of the original or of another question"),
    (QUESTION.upper() + "!!", "a copy of the original or of another question"),
    ("Refund?", "much shorter or longer than the original"),
    ("How long does it take " * 10, "much shorter or longer than the original"),
    ("Potatoes, carrots, onions, leeks and celery make a good soup", "hardly a word in common with the original"),
    ("How long does it take until my order is refunded to the card?",
     "a label, number, name or placeholder is lost, such as '4711'"),
    ("Wie lange dauert es, bis order 4711 is refunded to my card, also auf meine Karte zurückgezahlt wird, bitte?",
     "in another language"),
])
def test_which_paraphrases_are_kept(candidate: str, why: str) -> None:
    model = Model(json.dumps([candidate]))
    found, refused = paraphrases([QUESTION], model, 1)
    assert (found, list(refused.why)) == (([[candidate]], []) if not why else ([[]], [why]))
    assert f"---\n{QUESTION}\n---" in model.asked[0]


def test_labels_in_a_question_stay() -> None:
    text = "Is this review Positive or negative: a film to forget"
    replies = {"a": "Would you call this review good or negative: a film to forget",
               "b": "Say whether this review is positive or rather negative: a film to forget"}
    found, refused = paraphrases([text], Model(json.dumps(list(replies.values()))), 2, ["positive", "negative"])
    assert found == [[replies["b"]]]
    assert refused.lines() == ["1 kept", "1 refused: a label, number, name or placeholder is lost, such as 'Positive' "
                               f"({replies['a']})"]


def test_no_paraphrase_is_another_question_of_the_set() -> None:
    texts = ["How can I change my password today?", "How do I change the password today?"]
    found, refused = paraphrases(texts, Model(json.dumps(["How do I change the password today?"])), 1)
    assert found == [[], []]
    assert refused.why["a copy of the original or of another question"] == 2


@pytest.mark.parametrize(("reply", "found"), [
    ('Sure! ["one", "two"] Enjoy.', ["one", "two"]), ("1. one\n2) two\n- three", ["one", "two", "three"]),
    ("[1, 2] [\"a\"]", ["a"]), ("nothing of use", []), ("[[[", []),
])
def test_texts_in_a_reply(reply: str, found: list[str]) -> None:
    assert parse.texts(reply) == found


@pytest.mark.parametrize(("reply", "found"), [
    ('```json\n[{"q": " a ", "x": 1}, {"q": "b"}]\n```', ["a", "b"]), ('{"pairs": [{"q": "a"}]}', ["a"]),
    ('{"q": "a"}\n{"q": "b"}\n{"q": "cut', ["a", "b"]), ('{"q": 7} {"Q": "a"}', []), ('{"q"' * 2_000, []),
])
def test_objects_in_a_reply(reply: str, found: list[str]) -> None:
    assert [value["q"] for value in parse.objects(reply, "q")] == found


SEEDS = [Task(instruction, "yes") for instruction in (
    "Translate the greeting into French, please.", "Name three rivers of Europe for a quiz.",
    "Sort these animals by their weight.", "Write a polite reply to a late customer.",
    "Explain gravity to a child of six.", "Count the vowels of a given word.",
    "Give a synonym for the word quick.", "Summarise the report in one sentence.")]


def test_new_tasks_are_kept_and_others_refused() -> None:
    replies = [
        ("Suggest a name for a small bakery by the sea.", "Salt and Crust", ""),
        ("Name three rivers of Europe for the quiz.", "Rhine", "nearly the same as a known instruction"),
        ("Suggest a name for a small bakery by the sea!", "Crumbs", "nearly the same as a known instruction"),
        ("Describe what the attached image shows.", "A dog",
         "about images, files or places, which a model of text has not got"),
        ("Be brief", "Yes", "an instruction of fewer than 4 or more than 150 words"),
        ("Repeat after me this very sentence", "repeat after me this very sentence!",
         "no answer, or one that repeats the instruction"),
        ("- Convert a temperature from Celsius to Kelvin", "Add 273.15", "begins with a sign and not with a word"),
    ]
    text = "\n".join(parse.line(instruction=instruction, output=output) for instruction, output, _ in replies)
    model = Model(lambda _: text)
    made, refused = self_instruct(SEEDS, model, 50)
    assert made == [Task("Suggest a name for a small bakery by the sea.", "Salt and Crust", like=6)]
    assert set(refused.why) == {why for *_, why in replies if why}
    assert refused.kept == 1


def test_eight_tasks_are_shown_and_two_of_them_are_its_own() -> None:
    numbers = iter(range(10_000))

    def reply(_: str) -> str:
        n = next(numbers)
        return parse.line(instruction=" ".join(f"w{n}x{i}" for i in range(5)), output="yes")

    model = Model(reply)
    made, _ = self_instruct(SEEDS, model, 20, seed=3)
    assert len(made) == 20
    shown = [text.count('{"instruction"') for text in model.asked]
    own = [sum(seed.instruction in text for seed in SEEDS) for text in model.asked]
    assert shown == [8] * len(shown)
    assert own[0] == 8
    assert own[-1] == 6


def test_it_stops_when_nothing_new_comes_and_is_the_same_every_time() -> None:
    models = [Model("I cannot."), Model("I cannot.")]
    for model in models:
        assert self_instruct(SEEDS, model, 10, seed=5)[0] == []
    assert len(models[0].asked) == 9                # three requests for ten tasks, three times
    assert models[0].asked == models[1].asked


def test_only_labels_are_answers_where_there_are_labels() -> None:
    text = parse.line(instruction="My parcel came with a broken cup inside", output="complaint") + \
        parse.line(instruction="Whom do I call about insurance papers", output="insurance")
    made, refused = self_instruct(SEEDS, Model(text), 2, labels=["complaint", "yes"])
    assert [task.output for task in made] == ["complaint"]
    assert refused.why["the answer is none of the labels"] >= 1


def test_too_few_examples() -> None:
    with pytest.raises(UserError, match="There are 7 rows to show as examples"):
        self_instruct(SEEDS[:7], Model(""), 1)
