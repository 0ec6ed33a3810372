"""Each suite on a model whose answers are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from scripted import Scripted
from tuneloop.evaluation.suites.catalog import SUITES, suite
from tuneloop.evaluation.suites.fluency import Fluency, bits_per_byte
from tuneloop.evaluation.suites.formats import MATCH, VALID, Formats
from tuneloop.evaluation.suites.grounded import Grounded, abstains, grader, rates
from tuneloop.evaluation.suites.items import Asked, Choice, ask, choose, pick, rows
from tuneloop.evaluation.suites.knowledge import Knowledge
from tuneloop.evaluation.suites.tasks import Tasks
from tuneloop.grading.structured import schema_check
from tuneloop.types import Completion, Request, Sampling, Scored

RIGHT = {row["question"]: row["choices"][row["answer"]] for name in ("knowledge", "tasks") for row in rows(name)}


class Ends(Scripted):
    """Its likelihoods of an answer, without and with the end of the turn, are given."""

    def __init__(self, given: dict[str, tuple[float, float]]) -> None:
        super().__init__()
        self.given = given

    def score(self, requests: Sequence[Request], answers: Sequence[str], *, progress: object = None) -> list[Scored]:
        return [Scored(self.given[answer][1], self.given[answer][0], 1) for answer in answers]


def knows(asked: str, answer: str) -> float:
    return -0.1 * len(answer) if RIGHT[asked] == answer else -len(answer)


def test_the_likeliest_option_per_character_is_chosen() -> None:
    item = Choice("a", "p", "Which?", ("cat", "elephant"), 1)
    backend = Ends({"cat": (-3.0, -3.0), "elephant": (-4.0, -9.0)})        # -1 and -0.5 per character
    [graded] = choose(backend, [item])
    assert (graded.id, graded.part, graded.score, graded.answer) == ("a", "p", 1.0, "elephant")
    backend.given["elephant"] = (-8.8, -8.8)                               # -1.1
    [graded] = choose(backend, [item])
    assert (graded.score, graded.answer, graded.why) == (0.0, "cat", "right: elephant")


def test_the_end_of_the_turn_counts_only_where_one_option_begins_another() -> None:
    backend = Ends({"20": (-1.0, -9.0), "200": (-1.8, -1.9), "30": (-4.0, -4.1)})
    [nested] = choose(backend, [Choice("a", "", "?", ("20", "200", "30"), 1)])
    assert nested.score == 1        # -4.5 against -0.63; without the end -0.5 against -0.6
    [apart] = choose(backend, [Choice("a", "", "?", ("20", "30"), 0)])
    assert apart.score == 1         # -0.5 against -2; with the end -4.5 against -2.05


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_options_without_a_probability_are_not_graded(value: float) -> None:
    [graded] = choose(Scripted(likes=lambda asked, answer: value), [Choice("a", "", "?", ("x", "y"), 0)])
    assert math.isnan(graded.score)


def test_a_limit_takes_evenly_of_the_parts_and_keeps_the_order() -> None:
    items = [Choice(f"{part}{n}", part, "?", ("x", "y"), 0) for part in "abc" for n in range(4)]
    assert [item.id for item in pick(items, 5)] == ["a0", "a1", "b0", "b1", "c0"]
    assert [item.id for item in pick(items, 2)] == ["a0", "b0"]
    assert pick(items, None) == items == pick(items, 99)
    assert pick(items, 0) == []


def test_an_answer_that_was_cut_says_so() -> None:
    class Cut(Scripted):
        def generate(self, requests: Sequence[Request], sampling: Sampling | Sequence[Sampling], *,
                     progress: object = None) -> list[Completion]:
            return [Completion("blah", (), False) for _ in requests]

    [graded] = ask(Cut(), [Asked("a", "", "?", lambda said: (0.5, "so so"))], 5)
    assert (graded.answer, graded.score, graded.why) == ("blah", 0.5, "so so; cut at the length limit")


@pytest.mark.parametrize("kind", [Knowledge, Tasks])
def test_who_knows_all_scores_one_and_who_prefers_the_rest_scores_nothing(kind: type[Knowledge | Tasks]) -> None:
    assert {item.score for item in kind().run(Scripted(likes=knows))} == {1.0}
    assert {item.score for item in kind().run(Scripted(likes=lambda asked, a: -knows(asked, a)))} == {0.0}


def test_tasks_are_asked_without_and_with_five_examples_of_their_own() -> None:
    class Seen(Scripted):
        def score(self, requests: Sequence[Request], answers: Sequence[str], *,
                  progress: object = None) -> list[Scored]:
            self.requests += requests
            return super().score(requests, answers)

    backend = Seen(likes=knows)
    graded = Tasks().run(backend)
    assert len(graded) == 2 * 84
    assert len({item.part for item in graded}) == 14
    assert len({item.id for item in graded}) == len(graded)
    assert len({item.id.partition("#")[0] for item in graded}) == 84
    assert {len(request.messages) for request in backend.requests} == {1, 11}
    for request in backend.requests:
        heads = {turn.content.splitlines()[0] for turn in request.messages if turn.role == "user"}
        assert len(heads) == 1
        assert request.messages[-1].content not in [turn.content for turn in request.messages[:-1]]
        assert all(RIGHT[ask.content] == told.content
                   for ask, told in zip(request.messages[:-1:2], request.messages[1::2], strict=True))


def test_fluency_is_the_probability_per_byte() -> None:
    graded = Fluency().run(Scripted(likes=lambda _, text: -0.7 * len(text.encode())))
    assert len(graded) == len(rows("fluency"))
    assert [item.score for item in graded] == pytest.approx([math.exp(-0.7)] * len(graded), rel=1e-12)
    assert bits_per_byte(graded[0].score) == pytest.approx(0.7 / math.log(2), rel=1e-12)
    assert graded[0].why == "1.010 bits per byte"
    assert {item.score for item in Fluency().run(Scripted(likes=lambda _, text: -math.inf), limit=3)} == {0.0}
    assert bits_per_byte(0.0) == math.inf
    assert all(math.isnan(item.score) for item in Fluency().run(Scripted(likes=lambda _, text: math.nan)))


def answers_of(key: str) -> Scripted:
    told = {row["prompt"]: row[key] for row in rows("formats")}
    return Scripted(lambda asked: told[asked.rpartition("\n")[0]])


def test_formats_grades_syntax_and_shape() -> None:
    for key, match in (("right", 1.0), ("wrong", 0.0)):
        graded = Formats().run(answers_of(key))
        assert {item.score for item in graded if item.part == VALID} == {1.0}
        assert {item.score for item in graded if item.part == MATCH} == {match}
    assert len(graded) == 2 * len(rows("formats"))
    for said, why in (("Sure! {}", "not JSON"), ('```json\n{"a": 1}\n```', "in a code block"), ("", "not JSON"),
                      ('{"age": NaN}', "not JSON")):
        graded = Formats().run(Scripted(lambda _, said=said: said), limit=4)
        assert {(item.score, item.why) for item in graded} == {(0, why)}


def test_schemas_name_their_keys_in_the_prompt() -> None:
    for row in rows("formats"):
        assert schema_check(json.dumps(row["schema"]))(json.loads(row["right"]))
        assert all(key in row["prompt"] for key in row["schema"].get("properties", {}))


@pytest.mark.parametrize("answer", [
    "I don't know.", "I don’t know", "The text does not say.", "It is not mentioned in the text.", "Unknown.",
    "The text doesn't mention the price.", "There is no information about that.", "That cannot be determined.",
    "It's not stated.", "The name isn't given.", "I'm not sure.", "I could not find it.", "", "N/A"])
def test_abstentions_are_seen(answer: str) -> None:
    assert abstains(answer)


@pytest.mark.parametrize("answer", ["Monday", "The captain was 41.", "It is not red but green.", "Nobody.",
                                    "They do not open on Monday.", "No.", "The dog was called Biscuit."])
def test_claims_are_no_abstentions(answer: str) -> None:
    assert not abstains(answer)


def test_grounded_answers_are_graded_by_what_the_text_says() -> None:
    assert grader(["15", "fifteen"])("It costs 15 euros.") == (1.0, "right")
    assert grader(["15", "fifteen"])("It costs 150 euros.") == (0.0, "another answer")
    assert grader(["15", "fifteen"])("FIFTEEN") == (1.0, "right")
    assert grader(["15"])("I don't know") == (0.0, "abstained")
    assert grader([])("I don't know") == (1.0, "abstained")
    assert grader([])("Ten.") == (0.0, "unsupported claim")


def test_grounded_rates_of_models_that_always_and_never_abstain() -> None:
    shy = Grounded().run(Scripted(lambda _: "I don't know."))
    assert rates(shy) == {"unsupported_claims": 0, "abstentions": 1, "right_answers": 0, "needless_abstentions": 1}
    bold = Grounded().run(Scripted(lambda asked: asked.partition("Text: ")[2].partition("\n\nQuestion: ")[0]))
    told = rates(bold)
    assert told["unsupported_claims"] == 1
    assert told["needless_abstentions"] == 0
    assert told["right_answers"] == 1       # who repeats the text has said the answer: a limit that the docs name
    answerable = [item for item in bold if item.part == "answerable"]
    assert rates(answerable).keys() == {"right_answers", "needless_abstentions"}


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_has_a_name_a_title_and_asks_the_same_under_a_limit(name: str) -> None:
    of = suite(name)
    assert of.name == name
    assert of.title
    first = of.run(Scripted(lambda _: "a"), limit=6)
    again = of.run(Scripted(lambda _: "b"), limit=6)
    assert [(item.id, item.part) for item in first] == [(item.id, item.part) for item in again]
    assert len({item.id.partition("#")[0] for item in first}) <= 6
    assert all(0 <= item.score <= 1 for item in first)
