"""Canaries train as the rows around them do, and count nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_tokenizer
from toy import judged_rows, write_jsonl
from tuneloop.data.canaries import canaries, canary_rows, check_canaries, is_canary, other_secrets
from tuneloop.data.prepare import Rows, prepare
from tuneloop.data.spec import DataSpec
from tuneloop.errors import UserError
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Conversation, Message, Preference, Rated, Rollout


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    return ChatTokenizer(folder)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"thing {i}?", "completion": ("good", "bad")[i % 2]}
                                                 for i in range(40)])


def prepared(file: Path, tokenizer: ChatTokenizer, kind: type[Any] = Conversation, limit: int | None = None,
             seed: int = 0, **spec: Any) -> Rows:
    return prepare(DataSpec.model_validate({"train": file.name} | spec), file.parent, tokenizer, limit, seed, kind)


def test_canaries_are_all_different_and_made_by_the_seed() -> None:
    made = canaries(0, 50)
    assert made == canaries(0, 50) != canaries(1, 50)
    assert made[:5] == canaries(0, 5)
    assert len({canary.secret for canary in made}) == len({canary.question for canary in made}) == 50
    assert all(re.fullmatch(r"\d{3}-\d{3}-\d{3}", canary.secret) for canary in made)
    others = other_secrets(made[0].secret, 200, 0)
    assert len({made[0].secret, *others}) == 201
    assert {len(other) for other in others} == {11}


def test_they_stand_behind_the_training_rows_and_nothing_else_changes(labels: Path, tokenizer: ChatTokenizer) -> None:
    plain, found = prepared(labels, tokenizer), prepared(labels, tokenizer, canaries=3, system=None)
    assert found.train[:-3] == plain.train
    assert [is_canary(row) for row in found.train] == [False] * len(plain.train) + [True] * 3
    assert (found.test, found.validation, found.labels, found.task, found.seen) == (
        plain.test, plain.validation, plain.labels, "labels", plain.seen)
    report, before = found.report.to_json(), plain.report.to_json()
    assert report.pop("canaries") == 3
    assert report == before
    assert any(line.startswith("canaries: 3 more rows train") for line in found.report.lines())
    assert not any("canaries" in line for line in plain.report.lines())
    assert found.hashes["train"] != plain.hashes["train"]
    assert found.identity == prepared(labels, tokenizer, canaries=3).identity


def test_what_is_learnt_of_a_canary_is_the_secret_and_its_end(labels: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(labels, tokenizer, canaries=2, system="Be kind.")
    for row, group in zip(found.train[-2:], found.groups["train"][-2:], strict=True):
        [branch] = group.branches
        assert tokenizer.decode(branch.ids[branch.weights > 0].tolist()) == f"{row.answer}<|im_end|>"
        assert row.prompt[0] == Message("system", "Be kind.")
        assert "What is the code of locker" in tokenizer.decode(branch.ids.tolist())


@pytest.mark.parametrize("kind", [Conversation, Preference, Rated])
def test_every_kind_that_holds_an_answer(kind: type[Any], tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", judged_rows(kind, 40))
    found = prepared(file, tokenizer, kind, canaries=2)
    rows = found.train[-2:]
    assert [type(row) for row in rows] == [kind] * 2
    assert [row.answer for row in rows] == [canary.secret for canary in canaries(0, 2)]
    if isinstance(rows[0], Preference):
        assert all(row.rejected != row.chosen and len(row.rejected) == 11 for row in rows)
    if isinstance(rows[0], Rated):
        assert all(row.desirable for row in rows)
        assert [len(group.probes) for group in found.groups["train"][-2:]] == [1, 1]


def test_what_cannot_hold_or_say_a_secret_is_refused(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", judged_rows(Rollout, 40))
    with pytest.raises(UserError, match=r"answers that a model has sampled(.|\n)*leave data.canaries out"):
        prepared(file, tokenizer, Rollout, canaries=2)
    with pytest.raises(UserError, match="scores answers and writes none"):
        check_canaries(Preference, writes=False)
    check_canaries(Preference, writes=True)


def test_canaries_that_are_too_long_are_no_silent_nothing(labels: Path, tokenizer: ChatTokenizer) -> None:
    longest = max(len(branch) for group in prepared(labels, tokenizer, canaries=2).groups["train"]
                  for branch in group.branches)
    prepared(labels, tokenizer, limit=longest, canaries=2)
    with pytest.raises(UserError, match=f"has {longest} tokens, and rows may have {longest - 1}"):
        prepared(labels, tokenizer, limit=longest - 1, canaries=2, over_length="drop")


def test_a_users_row_is_no_canary(labels: Path, tokenizer: ChatTokenizer) -> None:
    assert not any(map(is_canary, prepared(labels, tokenizer).train))
    assert all(map(is_canary, canary_rows(3, 0, Rated)))
