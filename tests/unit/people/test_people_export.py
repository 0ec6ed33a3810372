"""What people said becomes rows that training reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from judging import answer, desk, in_memory, judge_all, prefers, questions, rows, store, word, work

from toy import write_jsonl
from tuneloop.data.load import Wanted, load
from tuneloop.errors import UserError
from tuneloop.people.export import Format, export, select
from tuneloop.people.items import NONSENSE, Verdict, equal
from tuneloop.people.questions import Question, read_questions
from tuneloop.people.store import Said
from tuneloop.types import Conversation, Preference, Rated, Rollout


@pytest.fixture
def asked(tmp_path: Path) -> list[Question]:
    return questions(tmp_path, 3)


def exported(asked: Sequence[Question], said: Sequence[Said], form: Format, **options: Any) -> list[dict[str, Any]]:
    return export({one.id: one for one in asked}, said, form, **options).rows


def edited(question: Question, text: str, instead: str, annotator: str = "ann") -> Said:
    return word(question, Verdict(), annotator, kind="edit", shown=(answer(question, text),),
                value={"answer": answer(question, text), "text": instead})


# --- preference ------------------------------------------------------------------------------------------------------


def test_most_people_decide(asked: list[Question]) -> None:
    q = asked[0]
    said = [word(q, prefers(q, "good", "poor"), "ann", time="2026-01-01"), word(q, prefers(q, "poor", "good"), "bob"),
            word(q, prefers(q, "good", "poor"), "cid", time="2026-03-01", comment="clearer")]
    [row] = exported(asked, said, "preference")
    assert row == {"prompt": "Question 0?", "chosen": "good 0", "rejected": "poor 0", "annotators": ["ann", "cid"],
                   "source": "person", "time": "2026-03-01", "comments": ["clearer"], "agreed": 2, "disagreed": 1}


def test_each_judgement_may_be_a_row(asked: list[Question]) -> None:
    q = asked[0]
    said = [word(q, prefers(q, "good", "poor"), "ann"), word(q, prefers(q, "poor", "good"), "bob")]
    found = exported(asked, said, "preference", each=True)
    assert [(row["annotator"], row["chosen"]) for row in found] == [("ann", "good 0"), ("bob", "poor 0")]


def test_ties_are_left_out_and_counted(asked: list[Question]) -> None:
    q, other, third = asked
    both = [answer(q, "good"), answer(q, "poor")]
    said = [word(q, equal(both)), word(other, prefers(other, "good", "poor"), "ann"),
            word(other, prefers(other, "poor", "good"), "bob"), word(third, prefers(third, "good", "fair"))]
    found = export({one.id: one for one in asked}, said, "preference")
    assert len(found.rows) == 1
    assert found.left_out == {"pairs without a winner": 1,
                              "pairs that as many people decide one way as the other": 1}
    assert found.lines("pairs.jsonl", "preference")[0] == "pairs.jsonl holds 1 preference rows."


def test_an_order_is_all_its_pairs_and_stars_have_a_margin(asked: list[Question]) -> None:
    q, other, _ = asked
    names = [answer(q, text) for text in ("good", "fair", "poor")]
    said = [word(q, Verdict((tuple(names[:1]), tuple(names[1:])))),
            *(word(other, Verdict(stars=stars), shown=(answer(other, text),))
              for text, stars in (("good", 5), ("fair", 4), ("poor", 4)))]
    found = {(row["chosen"], row["rejected"]): row.get("margin") for row in exported(asked, said, "preference")}
    assert found == {("good 0", "fair 0"): None, ("good 0", "poor 0"): None, ("good 1", "fair 1"): 1.0,
                     ("good 1", "poor 1"): 1.0}


def test_an_edited_answer_is_better_than_what_it_was(asked: list[Question]) -> None:
    [row] = exported(asked, [edited(asked[0], "fair", "Ideal.")], "preference")
    assert (row["chosen"], row["rejected"]) == ("Ideal.", "fair 0")
    [chat] = exported(asked, [edited(asked[0], "fair", "Ideal.")], "sft")
    assert chat["messages"] == [{"role": "user", "content": "Question 0?"}, {"role": "assistant", "content": "Ideal."}]
    assert chat["annotators"] == ["ann"]


# --- the other formats -----------------------------------------------------------------------------------------------


def test_what_is_liked(asked: list[Question]) -> None:
    q, other, third = asked
    said = [word(q, Verdict(liked=True), shown=(answer(q, "good"),)),
            word(q, Verdict(liked=False), shown=(answer(q, "poor"),)),
            word(other, Verdict(stars=3), shown=(answer(other, "fair"),)),
            word(other, Verdict(stars=2), shown=(answer(other, "poor"),)),
            word(third, prefers(third, "good", "poor")),
            word(third, equal([answer(third, "poor"), answer(third, "fair")], bad=True), "bob")]
    found = {row["completion"]: row["label"] for row in exported(asked, said, "kto")}
    assert found == {"good 0": True, "poor 0": False, "poor 1": False, "good 2": True, "poor 2": False, "fair 2": False}
    assert len(exported(asked, said, "kto", each=True)) == 7


def test_what_was_said_outright_counts_more_than_a_comparison(asked: list[Question]) -> None:
    q = asked[0]
    said = [word(q, prefers(q, "poor", "fair"), name) for name in ("ann", "bob")]
    said.append(word(q, Verdict(liked=False), "cid", shown=(answer(q, "poor"),)))
    found = {row["completion"]: row["label"] for row in exported(asked, said, "kto")}
    assert found == {"poor 0": False, "fair 0": False}


def test_a_full_order_comes_of_pairs_or_not_at_all(asked: list[Question]) -> None:
    q, cycle, half = asked
    said = [word(q, prefers(q, a, b)) for a, b in (("good", "poor"), ("good", "fair"), ("fair", "poor"))]
    said += [word(cycle, prefers(cycle, a, b)) for a, b in (("good", "poor"), ("poor", "fair"), ("fair", "good"))]
    said += [word(half, prefers(half, "good", "poor")), word(half, prefers(half, "good", "fair"))]
    found = export({one.id: one for one in asked}, said, "ranked")
    assert [row["ranked"] for row in found.rows] == [["good 0", "fair 0", "poor 0"]]
    assert found.left_out == {"prompts whose answers are in no full order": 2}


def test_the_best_answer_of_each_prompt(asked: list[Question]) -> None:
    q, other, bad = asked
    said = [*(word(q, prefers(q, a, b)) for a, b in (("good", "poor"), ("good", "fair"), ("fair", "poor"))),
            word(other, prefers(other, "good", "poor")), edited(other, "poor", "Ideal."),
            word(bad, equal([answer(bad, "good"), answer(bad, "poor")], bad=True))]
    found = export({one.id: one for one in asked}, said, "sft")
    assert [row["messages"][-1]["content"] for row in found.rows] == ["good 0", "Ideal."]
    assert found.left_out == {"prompts without an answer that was preferred or liked": 1}


def test_rewards_are_means(asked: list[Question]) -> None:
    q, other, third = asked
    said = [word(q, prefers(q, "good", "poor"), "ann"), word(q, equal([answer(q, "good"), answer(q, "poor")]), "bob"),
            word(other, Verdict(stars=4), shown=(answer(other, "fair"),)),
            word(third, equal([answer(third, "good"), answer(third, "poor")], bad=True))]
    found = [dict(zip(row["completions"], row["rewards"], strict=True)) for row in exported(asked, said, "rollouts")]
    assert found == [{"good 0": 0.75, "poor 0": 0.25}, {"fair 1": 0.75}, {"good 2": 0.0, "poor 2": 0.0}]


def test_training_reads_every_format(tmp_path: Path) -> None:
    of, kept = work(tmp_path, 20), in_memory()
    at = desk(of, kept)
    at.edit(0, "Ideal.")
    judge_all(at)
    kinds: dict[Format, tuple[type[Any], int]] = {"preference": (Preference, 61), "kto": (Rated, 41),
                                                  "ranked": (Preference, 40), "sft": (Conversation, 20),
                                                  "rollouts": (Rollout, 20)}
    for form, (kind, count) in kinds.items():
        found = export(of.questions, select(kept), form)
        write_jsonl(tmp_path / f"{form}.jsonl", found.rows)
        loaded = load(f"{form}.jsonl", tmp_path, form, Wanted(kind))
        assert len(loaded.samples) == count, form


def test_prompts_of_several_turns_keep_their_turns(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]
    file = write_jsonl(tmp_path / "f.jsonl", [*rows(1), {"prompt": turns, "completions": ["a", "b"]}])
    asked = read_questions(file)
    said = [word(asked[0], prefers(asked[0], "good", "poor")), word(asked[1], prefers(asked[1], "a", "b"))]
    found = exported(asked, said, "preference")
    assert found[1]["prompt"] == turns
    assert found[1]["chosen"] == [{"role": "assistant", "content": "a"}]
    assert found[0]["prompt"] == [{"role": "user", "content": "Question 0?"}]       # all rows of a file are alike


# --- whose words -----------------------------------------------------------------------------------------------------


def test_tests_of_attention_are_never_rows(asked: list[Question]) -> None:
    q = asked[0]
    said = [word(q, prefers(q, "good", "poor"), item=f"x{NONSENSE}")]
    with pytest.raises(UserError, match="No preference row"):
        exported(asked, said, "preference")


def test_models_are_left_out_unless_asked_for(tmp_path: Path, asked: list[Question]) -> None:
    kept, q = store(tmp_path), asked[0]
    kept.add(word(q, prefers(q, "good", "poor"), "ann"))
    kept.add(word(q, prefers(q, "poor", "good"), "gpt", source="model"))
    assert [said.annotator for said in select(kept)] == ["ann"]
    assert [said.annotator for said in select(kept, source="model")] == ["gpt"]
    both = exported(asked, select(kept, source="all"), "kto", each=True)
    assert {row["annotator"]: row["source"] for row in both} == {"ann": "person", "gpt": "model"}
    assert [said.annotator for said in select(kept, source="all", without=["ann"])] == ["gpt"]
    with pytest.raises(UserError, match=r"Nobody called 'bob' judged(.|\n)*ann, gpt"):
        select(kept, only=["bob"])
    with pytest.raises(UserError, match=r"nothing to export(.|\n)*--source model"):
        select(kept, without=["ann"])


def test_nothing_to_export_is_said(tmp_path: Path, asked: list[Question]) -> None:
    with pytest.raises(UserError, match="nothing to export: nobody has judged anything yet"):
        select(store(tmp_path))
    q = asked[0]
    with pytest.raises(UserError, match=r"No preference row comes of what was judged \(1 left out: pairs without"):
        exported(asked, [word(q, equal([answer(q, "good"), answer(q, "poor")]))], "preference")
    with pytest.raises(UserError, match="leave out --each"):
        exported(asked, [word(q, prefers(q, "good", "poor"))], "sft", each=True)


def test_what_the_file_holds_no_more_is_counted(asked: list[Question]) -> None:
    said = [word(q, prefers(q, "good", "poor")) for q in asked]
    found = export({one.id: one for one in asked[:2]}, said, "preference")
    assert len(found.rows) == 2
    assert found.left_out == {"judgements of answers that the file holds no more": 1}


def test_rows_are_plain_json(asked: list[Question]) -> None:
    q = asked[0]
    for form in ("preference", "kto", "sft", "rollouts"):
        assert json.loads(json.dumps(exported(asked, [word(q, prefers(q, "good", "poor"))], form)))  # type: ignore[arg-type]
