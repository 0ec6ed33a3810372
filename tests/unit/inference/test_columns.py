"""Columns of models that do not train: exact, and computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import exact
from tiny import tiny_base
from tuneloop.compute.model import ForestModel
from tuneloop.inference.columns import ColumnCache, Scorer, with_columns
from tuneloop.models.load import load_model
from tuneloop.types import Group, Rendered

ROWS = exact.sharing_rows()


class Counting(ForestModel):
    """Counts the tokens that it computes."""

    tokens = 0

    def forward(self, batch: Any, *rest: Any) -> Any:
        self.tokens += batch.forest.unique_tokens
        return super().forward(batch, *rest)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    return Counting(load_model(tiny_base(tmp_path_factory.mktemp("base")), dtype=torch.float32))


def scorer(model: ForestModel, cache: ColumnCache, identity: str = "a", top: int = 0) -> Scorer:
    return Scorer(lambda: (model, True), identity, cache, token_budget=70, top=top)


def test_columns_equal_the_models_own(model: Counting, tmp_path: Path) -> None:
    found = scorer(model, ColumnCache(tmp_path / "cache.db"), top=3).columns(ROWS)
    with torch.no_grad():
        for row, columns in zip(ROWS, found, strict=True):
            logits = model.inner(input_ids=torch.from_numpy(row.ids).unsqueeze(0)).logits[0].log_softmax(-1)
            at = torch.from_numpy(np.flatnonzero(row.weights[1:]))
            wanted = logits[at, torch.from_numpy(row.ids)[at + 1]]
            assert np.abs(columns["logprobs"] - wanted.numpy()).max() <= 1e-5
            values, ids = logits[at].topk(3)
            assert np.array_equal(columns["top_ids"], ids.numpy())
            assert np.abs(columns["top_logprobs"] - values.numpy()).max() <= 1e-5


def test_a_second_run_computes_only_what_is_new(model: Counting, tmp_path: Path) -> None:
    first = scorer(model, ColumnCache(tmp_path / "cache.db")).columns(ROWS[:6])
    model.tokens = 0
    again = scorer(model, ColumnCache(tmp_path / "cache.db")).columns(ROWS[:6])
    assert model.tokens == 0
    assert all(np.array_equal(a["logprobs"], b["logprobs"]) for a, b in zip(first, again, strict=True))
    done: list[int] = []
    scorer(model, ColumnCache(tmp_path / "cache.db")).columns(ROWS, done.append)
    assert model.tokens == len(ROWS[6].ids) - 1 + len(ROWS[7].ids) - 1      # these two share nothing
    assert sum(done) == len(ROWS)


def test_another_model_mask_or_question_is_another_entry(model: Counting, tmp_path: Path) -> None:
    cache = ColumnCache(tmp_path / "cache.db")
    scorer(model, cache).columns(ROWS[:1])
    weights = ROWS[0].weights.copy()
    weights[-2] = 0
    for ask, row in ((scorer(model, cache, "b"), ROWS[0]), (scorer(model, cache, top=2), ROWS[0]),
                     (scorer(model, cache), Rendered(ROWS[0].ids, weights))):
        model.tokens = 0
        ask.columns([row])
        assert model.tokens > 0


def test_groups_get_their_columns_and_keep_their_own(model: Counting, tmp_path: Path) -> None:
    zeros = np.zeros(ROWS[0].supervised, np.float32)
    own = Rendered(ROWS[0].ids, ROWS[0].weights, None, {"reference_logprobs": zeros})
    groups = [Group((ROWS[1], own), (ROWS[2],))]
    ask = scorer(model, ColumnCache(tmp_path / "cache.db"))
    made = with_columns(groups, ask, {"logprobs": "reference_logprobs"})[0]
    assert len(made.branches[0].named["reference_logprobs"]) == ROWS[1].supervised
    assert not made.branches[1].named["reference_logprobs"].any()
    assert len(made.probes[0].named["reference_logprobs"]) == ROWS[2].supervised
