"""Rows that judge answers: every format of pairs, ratings and rollouts, and what is wrong with them, by line."""

from __future__ import annotations

from typing import Any

import pytest
from data_rows import recognise_as, table

from tuneloop.data.guess import shown
from tuneloop.data.recognise import choose
from tuneloop.errors import UserError
from tuneloop.types import Conversation, Message, Origin, Preference, Ranked, Rated, Rollout

ASKED = (Message("user", "Q"),)
LONG = (Message("user", "Hi"), Message("assistant", "Yes?", train=False), Message("user", "Q"))
TURNS = [{"role": m.role, "content": m.content} for m in LONG]
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


def only(kind: type[Any], row: dict[str, Any], **options: Any) -> Any:
    return recognise_as(table(row), kind, **options).samples[0]


def refused(kind: type[Any], *rows: dict[str, Any], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        recognise_as(table(*rows), kind, **options)
    return caught.value.text


@pytest.mark.parametrize(("row", "prompt"), [
    ({"prompt": "Q", "chosen": "good", "rejected": "bad"}, ASKED),
    ({"Question": "Q", "Chosen": "good", "Rejected": "bad"}, ASKED),
    ({"instruction": "Q", "input": "I", "chosen": "good", "rejected": "bad"}, (Message("user", "Q\n\nI"),)),
    ({"context": "C", "prompt": "Q", "chosen": "good", "rejected": "bad"}, (Message("user", "C\n\nQ"),)),
    ({"prompt": TURNS, "chosen": [GOOD], "rejected": [BAD]}, LONG),
    ({"prompt": "Q", "chosen": [TURNS[-1], GOOD], "rejected": [TURNS[-1], BAD]}, ASKED),
    ({"chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]}, LONG),
    ({"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "good"},
      "rejected": {"from": "gpt", "value": "bad"}}, ASKED),
    ({"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Q\n\nAssistant: good",
      "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Q\n\nAssistant: bad"}, LONG),
])
def test_pairs(row: dict[str, Any], prompt: tuple[Message, ...]) -> None:
    assert only(Preference, row) == Preference(prompt, "good", "bad", Origin("rows.jsonl", 1))


def test_margin_system_and_template() -> None:
    row = {"q": "Q", "chosen": "good", "rejected": "bad", "margin": 1.5}
    found = only(Preference, row, prompt="Say: {q}", system="Be brief.")
    assert found.prompt == (Message("system", "Be brief."), Message("user", "Say: Q"))
    assert found.margin == 1.5
    assert shown(found) == [("system", "Be brief."), ("user", "Say: Q"), ("chosen", "good"), ("rejected", "bad")]


@pytest.mark.parametrize(("row", "liked"), [
    ({"prompt": "Q", "completion": "A", "label": True}, True),
    ({"prompt": "Q", "response": "A", "kto_tag": "false"}, False),
    ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "label": 0}, False),
    ({"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}],
      "label": True}, True),
])
def test_rated(row: dict[str, Any], liked: bool) -> None:
    assert only(Rated, row) == Rated(ASKED, "A", liked, Origin("rows.jsonl", 1))


def test_rollouts() -> None:
    found = only(Rollout, {"prompt": "Q", "completions": ["A", "B"], "rewards": [0, 1.5]})
    assert found == Rollout(ASKED, ("A", "B"), (0.0, 1.5), Origin("rows.jsonl", 1))
    assert found.answer == "B"
    assert shown(found)[1:] == [("reward 0", "A"), ("reward 1.5", "B")]


def test_rollouts_an_answer_a_row() -> None:
    rows = [{"prompt": f"Q{i % 2}", "completion": f"A{i}", "reward": str(i / 2)} for i in range(4)]
    found = recognise_as(table(*rows), Rollout).samples
    assert [(r.prompt[0].content, r.answers, r.rewards, r.origin.line) for r in found] == [
        (f"Q{i % 2}", (f"A{i}",), (i / 2,), i + 1) for i in range(4)]
    both = {"prompt": "Q", "completion": "A", "reward": 1, "rewards": 1}
    assert recognise_as(table(both), Rollout).samples[0].rewards == (1.0,)
    nothing = {"prompt": "Q", "completion": "A", "reward": ""}
    assert '"reward" is missing or no number' in refused(Rollout, *rows, nothing)
    assert "1 row, at line 5, as prompt and completion" in refused(Rollout, *rows, {"prompt": "Q", "completion": "A"})


@pytest.mark.parametrize(("kind", "row", "told"), [
    (Preference, {"prompt": "Q", "chosen": "same", "rejected": "same"}, "line 1: chosen and rejected are the same"),
    (Preference, {"prompt": "Q", "chosen": " ", "rejected": "bad"}, "line 1: the answer is empty"),
    (Preference, {"prompt": "", "chosen": "good", "rejected": "bad"}, "line 1: the prompt is empty"),
    (Preference, {"chosen": "good", "rejected": "bad"}, "line 1: the prompt is empty"),
    (Preference, {"chosen": [*TURNS, GOOD], "rejected": [TURNS[-1], BAD]}, "follow different conversations"),
    (Preference, {"prompt": "another", "chosen": [TURNS[-1], GOOD], "rejected": [TURNS[-1], BAD]},
     "different questions"),
    (Preference, {"prompt": "Q", "chosen": TURNS, "rejected": [BAD]}, "does not end with an assistant turn"),
    (Preference, {"prompt": "Q", "chosen": 3, "rejected": "bad"}, '"chosen" is a number'),
    (Preference, {"prompt": "Q", "chosen": "good", "rejected": "bad", "margin": "much"}, '"margin" is missing or no'),
    (Rollout, {"prompt": "Q", "completions": ["A"], "rewards": [1, 2]}, "no lists of equal length"),
    (Rollout, {"prompt": "Q", "completions": ["A", ""], "rewards": [1, 2]}, "the answer is empty"),
    (Rollout, {"prompt": "Q", "completions": ["A"], "rewards": [float("nan")]}, "no finite number"),
])
def test_what_is_wrong_with_a_row(kind: type[Any], row: dict[str, Any], told: str) -> None:
    assert told in refused(kind, row)


@pytest.mark.parametrize("key", ["prompt", "conversations"])
def test_context_joins_what_is_asked_last(key: str) -> None:
    row = {"context": "C", key: TURNS, "chosen": "good", "rejected": "bad"}
    assert only(Preference, row).prompt == (*LONG[:-1], Message("user", "C\n\nQ"))


def test_a_template_beside_chats_that_people_liked() -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert only(Rated, {"prompt": "Q", "messages": turns, "label": True}).answer == "A"
    row = {"messages": turns, "label": True, "topic": "T"}
    assert "different questions" in refused(Rated, row, prompt="On {topic}")


def test_one_odd_label_is_told_with_its_line() -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"Q{i}", "completion": "A", "label": bool(i % 2)} for i in range(12)]
    rows[4]["label"] = None
    assert 'line 5: "label" is null. It is true or false; mend line 5' in refused(Rated, *rows)
    assert "set objective=kto" in refused(Conversation, *rows)


def test_pairs_that_say_nothing_are_dropped_on_request() -> None:
    rows = [{"prompt": "Q", "chosen": "good", "rejected": r} for r in ("bad", "good", "")]
    found = recognise_as(table(*rows), Preference, drop_empty=True)
    assert (len(found.samples), [origin.line for origin in found.dropped]) == (1, [2, 3])


def test_rows_of_another_kind_are_refused_with_the_objective_that_fits() -> None:
    pair = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
    plain = {"prompt": "Q", "completion": "A"}
    assert "set objective=dpo" in refused(Conversation, pair)
    assert "set objective=kto" in refused(Conversation, plain | {"label": False})
    assert ("its rows are no pairs of answers; they are questions with their answers (columns: prompt, completion)"
            in refused(Preference, plain))
    assert "its rows are no pairs of answers (columns: code)" in refused(Preference, {"code": "Q"})
    assert "they are pairs of answers" in refused(Rated, pair)
    assert "leave data.answer out" in refused(Preference, pair, answer="{chosen}")


def test_templates_may_still_take_one_of_the_answers() -> None:
    pair = {"prompt": "Q", "chosen": "good", "rejected": "bad"}
    assert only(Conversation, pair, prompt="{prompt}", answer="{chosen}").answer == "good"


def test_labels_that_are_classes_are_no_ratings() -> None:
    assert choose(table({"text": "fine", "label": "positive"})).main.kind is Conversation
    assert choose(table({"prompt": "Q", "completion": "A", "label": "other"})).main.kind is Conversation


@pytest.mark.parametrize("row", [
    {"chosen_messages": [*TURNS, GOOD], "rejected_messages": [*TURNS, BAD]},
    {"input": {"messages": TURNS, "tools": [], "parallel_tool_calls": True}, "preferred_output": [GOOD],
     "non_preferred_output": [BAD]},
    {"prompt": TURNS, "chosen": "good", "rejected": "bad", "system": " "},
])
def test_pairs_in_further_dialects(row: dict[str, Any]) -> None:
    assert only(Preference, row) == Preference(LONG, "good", "bad", Origin("rows.jsonl", 1))


@pytest.mark.parametrize("row", [
    {"prompt": "Q", "chosen": "good", "rejected": "bad", "tools": [{"name": "f"}]},
    {"input": {"messages": TURNS, "tools": [{"name": "f"}]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    {"prompt": "Q", "completion": "A", "label": True, "tools": '[{"name": "f"}]'},
])
def test_rows_that_judge_may_not_offer_tools(row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the row offers tools"):
        recognise_as(table(row), choose(table(row)).main.kind)


def test_an_answer_that_calls_a_tool_is_not_judged() -> None:
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    assert "an answer calls a tool" in refused(Preference, {"prompt": "Q", "chosen": [calling], "rejected": [BAD]})


BEST = ("good", "fair", "bad")


@pytest.mark.parametrize("row", [
    {"prompt": "Q", "ranked": list(BEST)},
    {"question": "Q", "answers": ["bad", "good", "fair"], "ranks": [3, 1, 2]},
    {"prompt": "Q", "responses": ["bad", "good", "fair"], "ranking": [1, 2, 0]},
    {"prompt": "Q", "responses": ["bad", "good", "fair"], "ranking": [2, 3, 1]},
    {"prompt": "Q", "answers": [{"answer": text, "rank": 2.5 - i} for i, text in enumerate(reversed(BEST))]},
    {"ranked": [[*[{"role": "user", "content": "Q"}], {"role": "assistant", "content": text}] for text in BEST]},
])
def test_ranked_answers(row: dict[str, Any]) -> None:
    assert only(Ranked, row) == Ranked(ASKED, BEST, Origin("rows.jsonl", 1))


def test_ranked_answers_are_learnt_from_as_pairs_of_the_best_with_each_other() -> None:
    found = recognise_as(table({"prompt": "Q", "ranked": list(BEST)}), Preference)
    origin = Origin("rows.jsonl", 1)
    assert found.samples == [Preference(ASKED, "good", "fair", origin), Preference(ASKED, "good", "bad", origin)]
    assert found.sentence.endswith("the best answer is paired with each other")
    assert "holds ranked answers" in refused(Conversation, {"prompt": "Q", "ranked": list(BEST)})


@pytest.mark.parametrize(("row", "told"), [
    ({"prompt": "Q", "answers": ["a", "b"], "ranks": [1, 1]}, "not a different number for each answer"),
    ({"prompt": "Q", "answers": ["a", "b"], "ranks": [1]}, "not a different number for each answer"),
    ({"prompt": "Q", "answers": ["a", "b"], "ranks": ["1", "2"]}, "not a different number for each answer"),
    ({"prompt": "Q", "answers": ["a", "b"], "ranking": [1, 3]}, "does not name every answer once"),
    ({"prompt": "Q", "answers": ["a", "b"], "ranking": ["1", 2]}, "does not name every answer once"),
    ({"prompt": "Q", "ranked": ["a", "a"]}, "two of the ranked answers are the same"),
    ({"prompt": "Q", "ranked": ["a"]}, "there is one answer to rank"),
    ({"prompt": "Q", "ranked": []}, '"ranked" is no list, or empty'),
    ({"prompt": "Q", "ranked": ["a", " "]}, "the answer is empty"),
    ({"prompt": "Q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b"}]}, "an answer has no rank"),
])
def test_what_is_wrong_with_a_ranked_row(row: dict[str, Any], told: str) -> None:
    assert told in refused(Ranked, row)
