"""Every family of models: a forest with shared prefixes computes what the model itself computes row by row.

Tolerances are those of the design: float64 1e-9. A comparison with the loss that transformers computes itself is held
to 1e-6, since that loss is rounded to float32 (see `exact`). Log-probs in float32 are held to 1e-4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import exact
from tiny import FAMILIES, tiny_base
from tuneloop.compute import cut
from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest
from tuneloop.models.load import load_model
from tuneloop.types import Rendered

WIDE = {"gemma3_text": {"sliding_window": 64}}      # as long as the rows, so that there is a forest form
ROWS = exact.sharing_rows()


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: str = request.param
    return tiny_base(tmp_path_factory.mktemp(family), family, **WIDE.get(family, {}))


@pytest.fixture
def model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """In float64, with all parameters to be trained."""
    return exact.double(folder, monkeypatch).requires_grad_(True)


def test_the_rows_share_and_fork() -> None:
    forest = build_forest(ROWS)
    assert forest.unique_tokens < 0.6 * forest.logical_tokens
    assert len(forest.segments) > 5
    assert len(np.unique(forest.predict_at)) < len(forest.predict_at)


def test_packing_is_a_forest(folder: Path) -> None:
    packing = choose_packing(load_model(folder, dtype=torch.float32), ROWS)
    assert (packing.mode, packing.share) == ("forest", True), packing.why
    assert "prefixes shared" in packing.why


def test_dropout_of_the_method_switches_sharing_off(folder: Path) -> None:
    packing = choose_packing(load_model(folder, dtype=torch.float32), ROWS, share=False)
    assert (packing.mode, packing.share) == ("forest", False)
    assert "dropout" in packing.why


def test_logprobs_equal_the_models_own(model: nn.Module) -> None:
    with torch.no_grad():
        ours = ForestModel(model)(to_batch(build_forest(ROWS)))
        theirs = exact.plain_logprobs(model, ROWS)
    assert (ours.logprobs - torch.cat(theirs)).abs().max() <= 1e-9
    assert (ours.per_branch() - torch.stack([t.sum() for t in theirs])).abs().max() <= 1e-9


def test_logprobs_equal_the_models_own_in_float32(folder: Path) -> None:
    model = load_model(folder, dtype=torch.float32)
    with torch.no_grad():
        ours = ForestModel(model)(to_batch(build_forest(ROWS))).logprobs
        assert (ours - torch.cat(exact.plain_logprobs(model, ROWS))).abs().max() <= 1e-4


@pytest.mark.parametrize("mode", ["forest", "padded", "rows"])
def test_loss_and_gradient_equal_those_of_the_rows_one_by_one(model: nn.Module, mode: Any) -> None:
    plain = exact.plain_loss(model, ROWS)
    wanted = exact.gradients(model, plain)
    wrapper = ForestModel(model, mode)
    for share in (True, False) if mode == "forest" else (False,):
        loss, gradients = exact.packed(wrapper, ROWS, share=share)
        assert abs(loss / plain.item() - 1) <= 1e-9
        assert exact.difference(gradients, wanted) <= 1e-9


def test_loss_and_gradient_equal_those_that_transformers_computes(model: nn.Module) -> None:
    theirs, (ours, gradients) = exact.labelled_loss(model, ROWS), exact.packed(ForestModel(model), ROWS)
    assert abs(ours / theirs.item() - 1) <= 1e-6
    assert exact.difference(gradients, exact.gradients(model, theirs)) <= 1e-6


@pytest.mark.parametrize("budget", [1, 40, 70])
@pytest.mark.parametrize("trunk", [8, 10**6])       # with trunks and without
def test_the_cut_into_pieces_changes_nothing(model: nn.Module, budget: int, trunk: int,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = ForestModel(model)
    whole, wanted = exact.packed(wrapper, ROWS)
    monkeypatch.setattr(cut, "MIN_TRUNK_TOKENS", trunk)
    if budget > 1:
        assert any(not p.samples for p in cut.cut_step(ROWS, budget)) == (trunk == 8)
    loss, gradients = exact.packed(wrapper, ROWS, budget=budget)
    assert abs(whole - loss) <= 1e-9
    assert exact.difference(gradients, wanted) <= 1e-9


def test_a_piece_that_is_all_prefix_reads_it(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of which everything that is fed was computed by a trunk: its piece computes no token."""
    monkeypatch.setattr(cut, "MIN_TRUNK_TOKENS", 8)
    weights = np.zeros(21, np.float32)
    weights[20] = 1
    rows = [Rendered(np.append(ROWS[0].ids[:20], 5), weights), *ROWS[:5]]
    pieces = cut.cut_step(rows, 40)
    assert [p.computed_tokens for p in pieces if p.samples == [0]] == [0]
    plain = exact.plain_loss(model, rows)
    wanted = exact.gradients(model, plain)
    loss, gradients = exact.packed(ForestModel(model), rows, budget=40)
    assert abs(loss - plain.item()) <= 1e-9
    assert exact.difference(gradients, wanted) <= 1e-9


def test_activation_checkpointing_changes_nothing(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "MIN_TRUNK_TOKENS", 8)
    wrapper = ForestModel(model).train()
    whole, wanted = exact.packed(wrapper, ROWS)
    wrapper.checkpoint_activations()
    for budget in (70, 10**6):     # with a trunk, and in one piece
        loss, gradients = exact.packed(wrapper, ROWS, budget=budget)
        assert abs(whole - loss) <= 1e-9
        assert exact.difference(gradients, wanted) <= 1e-9


def test_the_order_of_rows_changes_nothing(model: nn.Module) -> None:
    with torch.no_grad():
        ours = ForestModel(model)(to_batch(build_forest(ROWS))).per_branch()
        turned = ForestModel(model)(to_batch(build_forest(ROWS[::-1]))).per_branch()
    assert (ours - turned.flip(0)).abs().max() <= 1e-9


def test_the_forest_leaves_the_models_own_attention_as_it_was(model: Any) -> None:
    before = model.config._attn_implementation
    ForestModel(model)(to_batch(build_forest(ROWS)))
    assert model.config._attn_implementation == before


def test_logits_that_the_family_caps_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_base(tmp_path, "gemma3_text", sliding_window=64, final_logit_softcapping=2.0)
    capped = exact.double(folder, monkeypatch).requires_grad_(True)
    plain, (loss, gradients) = exact.plain_loss(capped, ROWS), exact.packed(ForestModel(capped), ROWS)
    assert abs(plain.item() - loss) <= 1e-9
    assert exact.difference(gradients, exact.gradients(capped, plain)) <= 1e-9
    uncapped = exact.double(tiny_base(tmp_path / "plain", "gemma3_text", sliding_window=64), monkeypatch)
    assert abs(exact.plain_loss(uncapped, ROWS).item() - plain.item()) > 1e-3      # the cap matters


# What cannot share says so, and is right nevertheless.


def falls_back(folder: Path, reason: str, rows: list[Rendered] = ROWS, to: str = "padded") -> None:
    model = load_model(folder, dtype=torch.float32)
    packing = choose_packing(model, rows)
    assert (packing.mode, packing.share) == (to, False), packing.why
    assert reason in packing.why
    with torch.no_grad():
        ours = ForestModel(model, packing.mode)(to_batch(build_forest(rows, share=False))).logprobs
        assert (ours - torch.cat(exact.plain_logprobs(model, rows))).abs().max() <= 1e-4


def test_a_window_shorter_than_the_rows_falls_back_to_rows(tmp_path: Path) -> None:
    falls_back(tiny_base(tmp_path, "gemma3_text"), "window of 16 tokens is shorter than the longest row of 60")


def test_layers_that_run_along_the_sequence_fall_back_to_rows(tmp_path: Path) -> None:
    """LFM2 has short convolutions beside its attention: its layers take the layout and would silently mix branches."""
    falls_back(tiny_base(tmp_path, "lfm2", layer_types=["conv", "full_attention"], block_multiple_of=8),
               "differs from the base's own")


def test_attention_sinks_fall_back_to_rows(tmp_path: Path) -> None:
    falls_back(tiny_base(tmp_path, "gpt_oss", num_local_experts=2, num_experts_per_tok=1, sliding_window=64,
                         layer_types=["full_attention", "full_attention"], rope_parameters={"rope_type": "default",
                                                                                           "rope_theta": 1e4}),
               "refused (attention sinks")


def test_rows_one_by_one_refuse_a_forest_that_shares(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="shared prefixes"):
        ForestModel(load_model(folder, dtype=torch.float32), "rows")(to_batch(build_forest(ROWS)))


def test_short_rows_are_probed_with_a_prefix_long_enough_to_share(tmp_path: Path) -> None:
    """Rows of a few tokens share nothing; what decides is what a longer one would do."""
    rows = [Rendered(np.array([5, 6, 7]), np.array([0, 0, 1], np.float32))]
    assert choose_packing(load_model(tiny_base(tmp_path / "a"), dtype=torch.float32), rows).mode == "forest"
    falls_back(tiny_base(tmp_path / "b", "lfm2", layer_types=["conv", "full_attention"], block_multiple_of=8),
               "differs from the base's own", rows)


SHARES: dict[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3}, "cohere": {"logit_scale": 0.25}, "olmo2": {},
    "phi3": {}, "gpt_neox": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}}
PACKS = ("jamba",)      # its recurrence begins anew where positions do
CANNOT_SHARE: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 64}, "bloom": {}, "mamba": {}, "jamba": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 64}}


@pytest.mark.parametrize("family", SHARES)
def test_more_families_share(family: str, tmp_path: Path) -> None:
    """What each does to its logits, its positions or its attention is followed."""
    model = load_model(tiny_base(tmp_path, family, **SHARES[family]), dtype=torch.float32)
    packing = choose_packing(model, ROWS)
    assert (packing.mode, packing.share) == ("forest", True), packing.why
    with torch.no_grad():
        ours = ForestModel(model)(to_batch(build_forest(ROWS))).logprobs
        assert (ours - torch.cat(exact.plain_logprobs(model, ROWS))).abs().max() <= 1e-4


@pytest.mark.parametrize("family", CANNOT_SHARE)
def test_families_that_cannot_share_are_found_out(family: str, tmp_path: Path) -> None:
    """Recurrent layers, soft-capped attention, positions that come with a mask, attention of its own."""
    falls_back(tiny_base(tmp_path, family, **CANNOT_SHARE[family]), "prefixes shared, no padding:",
               to="forest" if family in PACKS else "padded")
