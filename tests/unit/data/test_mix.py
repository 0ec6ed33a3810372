"""Shares of training rows, drawn from other sources."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.data.mix import Mixed, mix, shares
from tuneloop.data.spec import DataSpec, MixedSource
from tuneloop.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, rows in (("general", 500), ("safety", 6), ("empty", 0)):
        lines = [json.dumps({"text": f"{name} {n}"}) + "\n" for n in range(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def source(name: str, weight: float, **more: Any) -> MixedSource:
    return MixedSource.model_validate({"from": f"{name}.jsonl", "weight": weight, **more})


def said(mixed: Mixed) -> list[str]:
    return [row.values["text"] for row in mixed.rows]


@pytest.mark.parametrize(("weights", "own", "counts"), [
    ([0.1], 900, [100]), ([0.1, 0.05], 850, [100, 50]), ([0.5], 7, [7]), ([0.001], 10, [1]), ([], 10, []),
])
def test_a_weight_is_a_share_of_all_training_rows(weights: list[float], own: int, counts: list[int]) -> None:
    assert shares(weights, own) == counts


def test_each_source_gives_its_share_and_rows_know_where_they_are_from(root: Path) -> None:
    general, safety = mix([source("general", 0.1), source("safety", 0.005)], 895, root, seed=0)
    assert (len(general.rows), len(safety.rows)) == (100, 5)
    assert len({*said(general)}) == 100
    assert all(row.file == "general.jsonl" and row.values["text"] == f"general {row.line - 1}" for row in general.rows)
    assert str(general) == ("general.jsonl: 100 rows mixed in, 10 % of the training rows; "
                            "drawn from all 500 rows")


def test_the_same_seed_draws_the_same_whatever_stands_beside(root: Path) -> None:
    [alone] = mix([source("general", 0.1)], 90, root, seed=3)
    _, beside = mix([source("safety", 0.1), source("general", 0.1)], 80, root, seed=3)
    [other] = mix([source("general", 0.1)], 90, root, seed=4)
    assert said(alone) == said(beside) != said(other)


def test_the_same_rows_are_drawn_by_an_absolute_path(root: Path) -> None:
    [drawn] = mix([source("general", 0.1)], 90, root, seed=3)
    absolute = source(str(root / "general"), 0.1)
    [again] = mix([absolute], 90, Path(), seed=3, shown=["general.jsonl"])
    assert (again.rows, str(again)) == (drawn.rows, str(drawn))


def test_a_source_that_is_too_small_is_taken_once_and_it_is_said(root: Path) -> None:
    [safety] = mix([source("safety", 0.1)], 90, root, seed=0)
    assert sorted(said(safety)) == [f"safety {n}" for n in range(6)]
    assert str(safety) == ("safety.jsonl: 6 rows mixed in; it has 6, and its weight asks for 10: "
                           "each is taken once")


def test_or_again_until_its_share_is_met(root: Path) -> None:
    [safety] = mix([source("safety", 0.1, when_short="repeat")], 90, root, seed=0)
    assert sorted(Counter(said(safety)).values()) == [1, 1, 2, 2, 2, 2]
    assert str(safety).endswith("its weight asks for 10: each is taken 1.7 times on average")


def test_every_source_that_gives_nothing_is_told(root: Path) -> None:
    with pytest.raises(UserError, match=r"empty.jsonl(.|\n)*nowhere.jsonl"):
        mix([source("empty", 0.1), source("general", 0.1), source("nowhere", 0.1)], 90, root, seed=0)


def test_in_a_recipe() -> None:
    spec = DataSpec.model_validate({"train": "a", "mix": [{"from": "builtin:safety", "weight": 0.05}]})
    assert (spec.mix[0].source, spec.mix[0].when_short) == ("builtin:safety", "take_all")
    for wrong in ([{"from": "x", "weight": 0.5}] * 2, [{"from": "x", "weight": 0}], [{"from": "x", "weight": 1}],
                  [{"source": "x", "weight": 0.1}]):
        with pytest.raises(ValidationError):
            DataSpec.model_validate({"train": "a", "mix": wrong})
    assert DataSpec.model_json_schema()["$defs"]["MixedSource"]["required"] == ["from", "weight"]


def test_fixes_and_splits_in_a_recipe() -> None:
    spec = DataSpec.model_validate({"train": "a", "fix": [{"kind": "drop", "checks": ["turns"]}],
                                    "split": {"group": "customer"}, "evaluation_sets": ["mmlu.jsonl"]})
    assert spec.model_dump(mode="json")["fix"] == [{"kind": "drop", "checks": ["turns"], "kinds": []}]
    assert (spec.split.group, spec.evaluation_sets) == ("customer", ("mmlu.jsonl",))
    with pytest.raises(ValidationError, match=r"fix.0\n.*Unknown fix 'dorp'.*did you mean 'drop'"):
        DataSpec.model_validate({"train": "a", "fix": ["dorp"]})
    with pytest.raises(ValidationError, match="group or time, not both"):
        DataSpec.model_validate({"train": "a", "split": {"group": "a", "time": "b"}})
