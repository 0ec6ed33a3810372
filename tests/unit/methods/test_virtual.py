"""Prefix and prompt tuning: gradients are those of PEFT's own forward, in every way that rows go; whole tiny runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exact
import toy
from tiny import LONGEST, tiny_base
from tuneloop.catalog import Catalog
from tuneloop.compute.check import choose_packing, confirm_packing
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.inference.local import generate
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.record import RunFolder
from tuneloop.types import Message, Sampling

CATALOG = Catalog("method", "tuneloop.methods", "Method")
ROWS = exact.sharing_rows()
IDS = torch.from_numpy(ROWS[0].ids).unsqueeze(0)
CHANGES: dict[str, dict[str, Any]] = {"gemma3_text": {"sliding_window": 128}}
FAMILIES = ("llama", "gpt2", "qwen3", "gemma3_text")
KINDS: dict[str, dict[str, Any]] = {
    "prefix": {"kind": "prefix", "tokens": 5},
    "projected": {"kind": "prefix", "tokens": 5, "projection": True, "projection_hidden": 24},
    "prompt": {"kind": "prompt", "tokens": 5},
    "mlp": {"kind": "prompt", "tokens": 5, "encoder": "mlp", "encoder_hidden": 24},
    "lstm": {"kind": "prompt", "tokens": 5, "encoder": "lstm", "encoder_hidden": 24, "encoder_layers": 3},
}
EVERY = [(family, kind) for family in FAMILIES for kind in KINDS]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tiny_base(tmp_path_factory.mktemp(family), family, **CHANGES.get(family, {}))
        return made[family]
    return folder


def method_of(kind: str = "prefix", **options: Any) -> Any:
    given = KINDS[kind] | options
    return CATALOG.get(given["kind"])(**given)


def tuned(folder: Path, kind: str, seed: int = 1) -> Any:
    """The method applied, and moved off its start, so that no gradient is zero by luck."""
    model = method_of(kind).apply(load_model(folder, dtype=torch.float32), seed)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits[:, -IDS.shape[1]:]
    return found


def refusal(act: Callable[[], Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.wanted or caught.value.fix
    return caught.value


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_all_ways_give_the_gradients_of_pefts_own_forward(family: str, kind: str,
                                                          folder_of: Callable[[str], Path]) -> None:
    model = tuned(folder_of(family), kind)
    loss = exact.plain_loss(model, ROWS)
    wanted = exact.gradients(model, loss)
    assert all(g.abs().max() > 0 for g in wanted.values())
    ways: list[tuple[Any, dict[str, Any]]] = [
        ("forest", {"share": True}), ("forest", {"share": False}), ("padded", {"share": False}),
        ("rows", {"share": False}), ("forest", {"share": True, "budget": 70}),
        ("forest", {"share": True, "budget": 70, "trunks": False})]
    for mode, cut in ways:
        found, got = exact.packed(ForestModel(model, mode), ROWS, **cut)
        assert found == pytest.approx(loss.item(), rel=1e-5), (mode, cut)
        assert exact.difference(got, wanted) <= 1e-5, (mode, cut)


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_checkpointed_activations_give_the_same_gradients(family: str, kind: str,
                                                          folder_of: Callable[[str], Path]) -> None:
    model = tuned(folder_of(family), kind)
    wanted = exact.gradients(model, exact.plain_loss(model, ROWS))
    for mode, share in (("forest", True), ("padded", False), ("rows", False)):
        wrapper = ForestModel(copy.deepcopy(model), mode)       # type: ignore[arg-type]
        wrapper.checkpoint_activations()
        wrapper.train()
        got = exact.packed(wrapper, ROWS, share=share)[1]
        assert exact.difference(got, wanted) <= 1e-5, mode


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_the_count_the_saved_and_the_reference_are_exact(family: str, kind: str, folder_of: Callable[[str], Path],
                                                         tmp_path: Path) -> None:
    method, folder, model = method_of(kind), folder_of(family), tuned(folder_of(family), kind)
    method.check(read_shape(folder))
    assert method.count(read_shape(folder)) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    base, wanted = load_model(folder, dtype=torch.float32), logits(model)
    plain = exact.packed(ForestModel(base.requires_grad_(True)), ROWS)[0]
    assert not torch.equal(wanted, logits(base))
    with method.reference(model):
        assert torch.equal(logits(model), logits(base))
        assert exact.packed(ForestModel(model.requires_grad_(True)), ROWS)[0] == pytest.approx(plain, rel=1e-6)
    method.save(model, tmp_path)
    loaded = method.load(load_model(folder, dtype=torch.float32), tmp_path).eval()
    assert torch.allclose(logits(loaded), wanted, atol=1e-5)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert ForestModel(loaded)(exact_batch()).logprobs.allclose(ForestModel(model)(exact_batch()).logprobs, atol=1e-5)
    assert "merged" in str(refusal(lambda: method.merge(model)))


def exact_batch() -> Any:
    from tuneloop.compute.model import to_batch
    from tuneloop.compute.packing import build_forest

    return to_batch(build_forest(ROWS))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_batched_answers_are_those_of_pefts_own_forward(family: str, kind: str,
                                                        folder_of: Callable[[str], Path]) -> None:
    model, tokenizer = tuned(folder_of(family), kind), ChatTokenizer(folder_of(family))
    prompts = [[Message("user", "My order" + " has not arrived" * i)] for i in range(4)]
    sampling = Sampling(max_new_tokens=10)
    together = generate(model, tokenizer, prompts, sampling)
    for prompt, found in zip(prompts, together, strict=True):
        assert generate(model, tokenizer, [prompt], sampling)[0].token_ids == found.token_ids
        ids = start = tokenizer.encode([tokenizer.prompt_text(prompt)])[0]
        for _ in found.token_ids:
            with torch.no_grad():
                following = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()
            ids = [*ids, int(following)]
        assert found.token_ids
        assert tuple(ids[len(start):]) == found.token_ids


def test_answers_end_where_the_positions_do(tmp_path: Path) -> None:
    """The virtual tokens take positions, once: GPT-2 has no embedding for one more."""
    folder = tiny_base(tmp_path, "gpt2", n_positions=64)
    tokenizer = ChatTokenizer(folder)
    model = method_of("prefix").apply(load_model(folder, dtype=torch.float32), seed=0).eval()
    model.generation_config.eos_token_id = None
    prompt = [Message("user", "My order has not arrived")]
    used = len(tokenizer.encode([tokenizer.prompt_text(prompt)])[0])
    tokenizer.max_length = 64
    found = generate(model, tokenizer, [prompt], Sampling(max_new_tokens=500))[0]
    assert not found.stopped
    assert len(found.token_ids) == 64 - 5 - used


def test_words_are_the_bases_own_keys_values_and_embeddings(folder_of: Callable[[str], Path]) -> None:
    """Behind a prefix of words the base says what it says behind the words; the seed and the rows choose them."""
    from tuneloop.methods._virtual import drawn_words

    folder = folder_of("llama")
    base = load_model(folder, dtype=torch.float32)
    words = drawn_words(base, 5, 1, ROWS)
    assert set(words.tolist()) <= {int(i) for row in ROWS for i in row.ids}
    with torch.no_grad():
        wanted = base(input_ids=torch.cat([words.unsqueeze(0), IDS], 1)).logits[:, 5:]
    for kind in ("prefix", "prompt"):
        model = method_of(kind).apply(load_model(folder, dtype=torch.float32), 1, ROWS).eval()
        assert torch.allclose(logits(model), wanted, atol=1e-5)
        other = method_of(kind).apply(load_model(folder, dtype=torch.float32), 2, ROWS).eval()
        random = method_of(kind, start="random").apply(load_model(folder, dtype=torch.float32), 1, ROWS).eval()
        assert not torch.allclose(logits(other), wanted, atol=1e-3)
        assert not torch.allclose(logits(random), wanted, atol=1e-3)


def test_dropout_of_the_encoder_is_not_shared() -> None:
    assert method_of("lstm").exact_when_shared
    assert not method_of("lstm", encoder_dropout=0.1).exact_when_shared


@pytest.mark.parametrize("options", [
    {"kind": "prefix", "projection": True, "start": "words"}, {"kind": "prefix", "projection_hidden": 8},
    {"kind": "prompt", "encoder_hidden": 8}, {"kind": "prompt", "encoder": "mlp", "encoder_layers": 3},
    {"kind": "prompt", "encoder": "mlp", "encoder_dropout": 0.1},
    {"kind": "prompt", "encoder": "lstm", "encoder_dropout": 0.1, "encoder_layers": 1},
    {"kind": "prompt", "encoder": "lstm", "start": "words"}, {"kind": "prompt", "tokens": 0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"start|projection|encoder|tokens"):
        CATALOG.get(options["kind"])(**options)


def test_too_many_tokens_are_refused_before_anything_loads(folder_of: Callable[[str], Path]) -> None:
    long = refusal(lambda: method_of(tokens=LONGEST - 63).check(read_shape(folder_of("llama"))))
    assert str(LONGEST - 64) in long.fix
    method_of(tokens=LONGEST - 64).check(read_shape(folder_of("llama")))
    window = CHANGES["gemma3_text"]["sliding_window"]
    wide = refusal(lambda: method_of("prompt", tokens=window).check(read_shape(folder_of("gemma3_text"))))
    assert f"window of {window}" in str(wide)
    method_of("prompt", tokens=window - 1).check(read_shape(folder_of("gemma3_text")))


def test_a_base_without_keys_and_values_in_every_layer_is_refused(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path, "lfm2", layer_types=["conv", "full_attention"])
    base = load_model(folder, dtype=torch.float32)
    assert "lora" in refusal(lambda: method_of("prefix").apply(base, seed=0)).fix


def test_the_window_counts_the_virtual_tokens(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path, "gemma3_text", sliding_window=62)
    base = load_model(folder, dtype=torch.float32)
    assert choose_packing(base, ROWS).mode == "forest"
    found = choose_packing(method_of("prefix").apply(base, seed=0), ROWS)
    assert found.mode == "padded"
    assert "window of 62" in found.why


# the packing is confirmed on what a method made of the base

class Running(nn.Module):
    """A layer of some method that adds the mean of all tokens so far: causal, but not along a forest."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        so_far = x.mean(-1, keepdim=True).cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype).view(1, -1, 1)
        found: Tensor = self.inner(x) + 100 * self.scale * so_far
        return found


def running(model: Any) -> Any:
    layer = model.get_base_model().model.layers[0].mlp
    layer.up_proj = Running(layer.up_proj)
    return model


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_packing_that_is_still_exact_is_kept(kind: str, folder_of: Callable[[str], Path]) -> None:
    base = load_model(folder_of("llama"), dtype=torch.float32)
    packing = choose_packing(base, ROWS)
    model = method_of(kind).apply(base, 1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    random = torch.get_rng_state()
    assert confirm_packing(model, ROWS, packing) is packing
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_layer_that_runs_along_the_row_is_noticed_though_it_begins_at_zero(folder_of: Callable[[str], Path]) -> None:
    base = load_model(folder_of("llama"), dtype=torch.float32)
    packing = choose_packing(base, ROWS)
    assert packing.mode == "forest"
    model = running(method_of("prompt").apply(base, 1))
    assert choose_packing(model, ROWS).mode == "forest"     # nothing to see yet
    found = confirm_packing(model, ROWS, packing)
    assert (found.mode, found.share) == ("padded", False)
    assert "with the method applied" in found.why
    assert not model.get_base_model().model.layers[0].mlp.up_proj.scale.any()


def test_a_run_records_and_keeps_the_packing_of_the_method(folder_of: Callable[[str], Path], tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(method_of("prompt"))
    apply, load = kind.apply, kind.load
    monkeypatch.setattr(kind, "apply", lambda *args: running(apply(*args)))
    monkeypatch.setattr(kind, "load", lambda *args: running(load(*args)))
    recipe = toy.labels_recipe(tmp_path, folder_of("llama"), method=KINDS["prompt"])
    toy.run(recipe, tmp_path / "run", until="train")
    recorded = RunFolder(tmp_path / "run").read("record.json")["packing"]
    assert recorded["mode"] == "padded"
    toy.resume(recipe, tmp_path / "run")
    assert RunFolder(tmp_path / "run").read("record.json")["packing"] == recorded


# whole runs

@pytest.mark.parametrize("kind", ["prefix", "prompt", "projected"])
def test_a_whole_run_learns_and_resumes_bit_for_bit(kind: str, folder_of: Callable[[str], Path],
                                                    tmp_path: Path) -> None:
    options = {"method": KINDS[kind], "training": {"checkpoint_every": 5, "checkpointing": True}}
    recipe = toy.labels_recipe(tmp_path, folder_of("llama"), **options)
    toy.run(recipe, tmp_path / "whole")
    record = RunFolder(tmp_path / "whole").read("record.json")
    assert record["trainable_parameters"] == method_of(kind).count(read_shape(folder_of("llama")))
    assert (record["packing"]["mode"], record["packing"]["share"]) == ("forest", True)
    losses = toy.losses(tmp_path / "whole")
    assert losses[-1] < losses[0]

    def cut() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.run(recipe, tmp_path / "cut", watch=toy.Interrupting(7, cut))
    toy.resume(recipe, tmp_path / "cut")
    assert toy.same_bits(tmp_path / "whole", tmp_path / "cut")
    assert toy.losses(tmp_path / "cut") == losses


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_too_long_rows_are_counted_with_the_virtual_tokens(kind: str, folder_of: Callable[[str], Path],
                                                           tmp_path: Path) -> None:
    """A row that the base takes alone, but not behind the virtual tokens."""
    from tuneloop.prepared import Prepared
    from tuneloop.training.watch import Silent

    (tmp_path / "wide").mkdir()
    options = {"method": KINDS[kind] | {"tokens": LONGEST - 64}}
    recipe = toy.open_recipe(tmp_path, folder_of("llama"))
    row = {"prompt": "Where is it? " * 8, "completion": "We are sorry"}
    toy.write_jsonl(tmp_path / "rows.jsonl", [*toy.open_rows(), row])
    Prepared(recipe, Silent())
    wide = toy.open_recipe(tmp_path / "wide", folder_of("llama"), **options)
    toy.write_jsonl(tmp_path / "wide" / "rows.jsonl", [*toy.open_rows(), row])
    assert "64 tokens" in str(refusal(lambda: Prepared(wide, Silent())))


def test_a_method_that_does_not_fit_is_refused_before_rows_are_read(folder_of: Callable[[str], Path],
                                                                    tmp_path: Path) -> None:
    """Rows cut to nothing by too many virtual tokens would be blamed themselves."""
    from tuneloop.errors import UserError

    recipe = toy.labels_recipe(tmp_path, folder_of("llama"), method={"kind": "prefix", "tokens": LONGEST + 88})
    with pytest.raises(UserError, match=r"^method\.tokens 600 takes almost all"):
        toy.run(recipe, tmp_path / "run", "plan")
    assert not (tmp_path / "run" / "data").exists()
