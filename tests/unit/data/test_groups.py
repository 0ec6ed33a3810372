"""Samples to groups of branches: which tokens, what the rows say of them, and probes that belong to no row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_rows import CharacterTokenizer

from toy import write_jsonl
from tuneloop.data.groups import group_all, preferred
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError
from tuneloop.types import Group, Message, Origin, Preference, Rated, Rendered, Rollout

TOKENS: Any = CharacterTokenizer()
ASKED, HERE = (Message("user", "Q"),), Origin("rows.jsonl", 1)


def said(branch: Rendered) -> str:
    """The supervised tokens as text."""
    return TOKENS.decode(branch.ids[branch.weights > 0].tolist())


def group(sample: Any) -> Group:
    [found] = group_all([sample], TOKENS)
    assert isinstance(found, Group)
    return found


def test_a_pair_is_chosen_and_rejected_and_both_bring_the_margin() -> None:
    pair = Preference(ASKED, "good", "bad", HERE, margin=0.5)
    found = group(pair)
    assert [said(b) for b in found.branches] == ["good<end>", "bad<end>"]
    assert [dict(b.named) for b in found.branches] == [{"margin": 0.5}] * 2
    assert said(preferred(pair, found)) == "good<end>"


def test_earlier_answers_carry_no_loss() -> None:
    before = (Message("user", "Hi"), Message("assistant", "Yes?", train=False), *ASKED)
    assert [said(b) for b in group(Rated(before, "A", True, HERE)).branches] == ["A<end>"]


def test_rollouts_bring_their_rewards_and_the_best_is_preferred() -> None:
    rollout = Rollout(ASKED, ("A", "B", "C"), (0.0, 2.0, 1.0), HERE)
    found = group(rollout)
    assert [b.named["rewards"] for b in found.branches] == [0.0, 2.0, 1.0]
    assert said(preferred(rollout, found)) == "B<end>"


def prepared(folder: Path, kind: type[Any], rows: list[dict[str, Any]], **spec: Any) -> Rows:
    write_jsonl(folder / "rows.jsonl", rows)
    return prepare(DataSpec(train="rows.jsonl", **spec), folder, TOKENS, spec.get("max_length_tokens"), 0, kind)


def thumbs(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Q{i}", "completion": f"A{i}", "label": i % 2 == 0} for i in range(count)]


def test_every_rated_row_is_probed_with_another_row_of_its_part(tmp_path: Path) -> None:
    rows = prepared(tmp_path, Rated, thumbs(30), split={"validation": 1, "test": 6})
    for part in ("train", "test"):
        own = [row.answer for row in getattr(rows, part)]
        probes = [said(g.probes[0]).removesuffix("<end>") for g in rows.groups[part]]
        assert sorted(probes) == sorted(own)
        assert all(probe != answer for probe, answer in zip(probes, own, strict=True))
        assert all(f"user:{row.prompt[0].content}<end>" in TOKENS.decode(g.probes[0].ids.tolist())
                   for row, g in zip(getattr(rows, part), rows.groups[part], strict=True))
    [lone] = rows.groups["validation"]
    assert said(lone.probes[0]).removesuffix("<end>") in {row.answer for row in rows.train}


def test_a_probe_that_would_be_too_long_is_left_out(tmp_path: Path) -> None:
    rows = thumbs(12)
    rows[0] |= {"prompt": "Q" * 40}
    rows[1] |= {"completion": "A" * 40}
    found = prepared(tmp_path, Rated, rows, max_length_tokens=70)
    longest = [g for part in found.groups.values() for g in part if max(map(len, g.branches)) > 55]
    assert len(longest) == 2
    assert all(len(p) <= 70 for part in found.groups.values() for g in part for p in g.probes)


def test_rows_made_from_pairs_are_probed_across_prompts(tmp_path: Path) -> None:
    """A liked row's neighbour is the disliked answer to the same prompt, which is no mismatch."""
    rows = [{"prompt": f"Q{i // 2}", "completion": f"{'good' if i % 2 else 'bad'} {i // 2}", "label": bool(i % 2)}
            for i in range(40)]
    found = prepared(tmp_path, Rated, rows)
    for row, own in zip(found.train, found.groups["train"], strict=True):
        probe = said(own.probes[0]).removesuffix("<end>")
        assert probe.split()[1] != row.answer.split()[1]


def test_answers_that_nothing_else_can_be_put_in_place_of_get_no_probe(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "A" if i < 11 else "B", "label": bool(i % 2)} for i in range(12)]
    found = prepared(tmp_path, Rated, rows, split={"validation": 0, "test": 0})
    assert all(len(g.probes) == 1 for g in found.groups["train"])
    alike = prepared(tmp_path, Rated, [row | {"completion": "A"} for row in rows], split={"validation": 0, "test": 0})
    assert not any(g.probes for g in alike.groups["train"])


def test_rewards_without_contrast_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completions": ["A", "B"], "rewards": [1, i % 3 and 1]} for i in range(12)]
    warnings = prepared(tmp_path, Rollout, rows).report.warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("prompts whose answers all have the same reward: 8 (rows.jsonl line")


def test_one_verdict_only_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="people liked every answer"):
        prepared(tmp_path, Rated, [row | {"label": True} for row in thumbs(12)])
    assert "6 liked and 6 not" in "\n".join(prepared(tmp_path, Rated, thumbs(12)).report.lines())


def test_the_longest_rows_are_those_with_the_longest_answer(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "good" * i, "rejected": "bad"} for i in range(1, 13)]
    report = prepared(tmp_path, Preference, rows).report
    assert list(report.longest) == [f"rows.jsonl line {n}" for n in (12, 11, 10, 9, 8)]
    assert next(iter(report.longest.values())) == report.tokens["row"].max


def test_answers_to_one_prompt_are_put_together_however_the_file_spreads_them(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i % 15}", "completion": f"A{i // 15}", "reward": i // 15} for i in range(60)]
    found = prepared(tmp_path, Rollout, [*rows, rows[0]])
    assert sum(len(getattr(found, part)) for part in ("train", "validation", "test")) == 15
    assert all(sorted(set(row.answers)) == ["A0", "A1", "A2", "A3"] for row in found.train)
    for row, own in zip(found.train, found.groups["train"], strict=True):
        assert [said(b) for b in own.branches] == [f"{answer}<end>" for answer in row.answers]
        assert [b.named["rewards"] for b in own.branches] == list(row.rewards)
    assert "rows put together with others that answer the same prompt: 46" in "\n".join(found.report.lines())


def test_what_is_wrong_with_one_of_several_answers_is_told_with_its_own_line(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i // 4}", "completion": f"A{i}", "reward": i % 4} for i in range(60)]
    rows[13]["completion"] = "long" * 40
    with pytest.raises(UserError, match=r"1 row is longer than 90 tokens: rows.jsonl line 14"):
        prepared(tmp_path, Rollout, rows, max_length_tokens=90)
    found = prepared(tmp_path, Rollout, rows, max_length_tokens=90, over_length="drop")
    assert sum(len(row.answers) for part in ("train", "validation", "test") for row in getattr(found, part)) == 59


def test_rollouts_twice_or_rewarded_otherwise_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completions": ["A", "B"], "rewards": [1, 0]} for i in range(15)]
    found = prepared(tmp_path, Rollout, [*rows, rows[3], rows[4] | {"rewards": [0, 1]}])
    assert found.report.removed["duplicates"].count == 1
    assert found.report.conflicts.count == 1


def test_nothing_left_is_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "same", "rejected": "same"} for i in range(12)]
    with pytest.raises(UserError, match=r"No usable row is left in data.train"):
        prepared(tmp_path, Preference, rows, drop_empty=True)


def test_the_kind_of_answers_cannot_be_given_for_rows_that_judge(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "good", "rejected": "bad"} for i in range(12)]
    with pytest.raises(UserError, match=r"data.answers is labels, but the rows of rows.jsonl judge answers"):
        prepared(tmp_path, Preference, rows, answers="labels")


def test_the_longer_answer_of_a_pair_counts(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "good", "rejected": "bad" * (20 if i == 3 else 1)} for i in range(12)]
    with pytest.raises(UserError, match=r"1 row is longer than 60 tokens: rows.jsonl line 4"):
        prepared(tmp_path, Preference, rows, max_length_tokens=60)


def test_pairs_judged_both_ways_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "good", "rejected": "bad"} for i in range(12)]
    found = prepared(tmp_path, Preference, [*rows, {"prompt": "Q0", "chosen": "bad", "rejected": "good"}, rows[1]])
    assert found.report.conflicts.count == 1
    assert "the same answers judged differently, kept: 1" in "\n".join(found.report.lines())
    assert found.report.removed["duplicates"].count == 1
    assert found.task == "pairs"
