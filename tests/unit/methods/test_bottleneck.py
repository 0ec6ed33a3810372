"""Bottleneck adapters: the formula, families, what is counted and trained, several adapters, refusals, a tiny run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exact
import toy
from tiny import FAMILIES, tiny_base
from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.methods import adapters
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape

ROWS = exact.sharing_rows()
IDS = torch.from_numpy(ROWS[0].ids).unsqueeze(0)
MORE: dict[str, dict[str, Any]] = {"gemma3_text": {"sliding_window": 64}, "mixtral": {"num_local_experts": 4},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}}
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
EVERYWHERE = [*FAMILIES, *(family for family in MORE if family not in FAMILIES)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tiny_base(tmp_path_factory.mktemp(family), family, **MORE.get(family, {}))
        return made[family]
    return folder


def base_of(folder: Path) -> nn.Module:
    return load_model(folder, dtype=torch.float32)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def method_of(**options: Any) -> adapters.Method:
    return adapters.Method.model_validate({"size": 5} | options)


def trained_names(model: nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def filled(model: Any, seed: int = 4, name: str = "default") -> Any:
    """An adapter with values that change the logits much."""
    torch.manual_seed(seed)
    for key, p in model.named_parameters():
        if "bottleneck_" in key and f".{name}." in key:
            p.normal_(std=0.3)
    return model.eval()


def by_hand(weights: dict[str, Tensor], part: str, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """What the adapter of a part adds, from its four saved tensors."""
    at = f"base_model.model.{part}.bottleneck_"
    inner = f(x @ weights[f"{at}down.weight"].T + weights[f"{at}down.bias"])
    return inner @ weights[f"{at}up.weight"].T + weights[f"{at}up.bias"]


def hooked_logits(folder: Path, method: adapters.Method, weights: dict[str, Tensor], parts: list[str]) -> Tensor:
    """Logits of the plain base whose parts' outputs are changed by the formula of the papers."""
    f = {"relu": torch.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu}[method.activation]
    base = base_of(folder)

    def change(part: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            if method.placement == "parallel":
                h = h + (method.scale or 4.0) * by_hand(weights, part, args[0], f)
            else:
                h = h + by_hand(weights, part, h, f)
            return (h, *output[1:]) if isinstance(output, tuple) else h
        return hook

    for part in parts:
        base.get_submodule(part).register_forward_hook(change(part), with_kwargs=True)
    return logits(base)


@pytest.mark.parametrize("family", EVERYWHERE)
@pytest.mark.parametrize("options", [
    {"placement": "houlsby", "activation": "gelu"}, {"placement": "pfeiffer"},
    {"placement": "parallel", "activation": "silu"}, {"placement": "parallel", "scale": 0.5}], ids=str)
def test_every_placement_is_its_formula(options: dict[str, Any], family: str, folder_of: Callable[[str], Path],
                                        tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder, method = folder_of(family), method_of(**options)
    method.check(read_shape(folder))
    model = method.apply(base_of(folder), seed=1)
    assert torch.equal(logits(model), logits(base_of(folder)))       # begins at the base
    filled(model)
    method.save(model, tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    start, attention = ("transformer.h", "attn") if family == "gpt2" else ("model.layers", "self_attn")
    sorts = [attention, "mlp"] if method.placement == "houlsby" else ["mlp"]
    parts = [f"{start}.{i}.{sort}" for i in range(2) for sort in sorts]
    assert len(weights) == 4 * len(parts)
    wanted = hooked_logits(folder, method, weights, parts)
    assert (wanted - logits(base_of(folder))).abs().max() > 0.1
    assert (logits(model) - wanted).abs().max() <= 1e-4
    assert torch.equal(logits(method.load(base_of(folder), tmp_path).eval()), logits(model))


@pytest.mark.parametrize("family", EVERYWHERE)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_just_the_adapters_train_and_are_counted(placement: str, family: str, folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(family)
    for width in ({"size": 5}, {"size": None, "reduction": 4}):
        method = method_of(placement=placement, **width)
        model = method.apply(base_of(folder), seed=1)
        names = trained_names(model)
        assert names == {n for n, _ in model.named_parameters() if "bottleneck_" in n}
        m = width.get("size") or 32 // 4
        by_formula = 2 * (2 if placement == "houlsby" else 1) * (32 * m + m + m * 32 + 32)
        assert sum(p.numel() for n, p in model.named_parameters() if n in names) == by_formula
        assert method.memory(read_shape(folder)).trainable_parameters == by_formula


def test_training_moves_every_adapter_and_nothing_else(folder_of: Callable[[str], Path]) -> None:
    model = method_of(placement="houlsby", activation="gelu").apply(base_of(folder_of("llama")), seed=1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    wrapper = ForestModel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(exact.accumulate(wrapper, ROWS))
        optimizer.step()
    assert losses[-1] < losses[0]
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == trained_names(model)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_sharing_prefixes_is_exact(placement: str, family: str, folder_of: Callable[[str], Path],
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    model = filled(method_of(placement=placement).apply(exact.double(folder_of(family), monkeypatch), seed=1))
    packing = choose_packing(model, ROWS)
    assert packing.mode == "forest"
    assert packing.share, packing.why
    wanted = exact.plain_loss(model, ROWS)
    gradients = exact.gradients(model, wanted)
    assert all(g.abs().max() > 0 for g in gradients.values())
    for cut in ({}, {"budget": 60}):
        loss, got = exact.packed(ForestModel(model), ROWS, **cut)
        assert abs(loss - float(wanted.detach())) <= 1e-9
        assert exact.difference(got, gradients) <= 1e-8


def test_checkpointed_activations_change_no_gradient(folder_of: Callable[[str], Path],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    model = filled(method_of(placement="houlsby").apply(exact.double(folder_of("llama"), monkeypatch), seed=1))
    wanted = exact.packed(ForestModel(model), ROWS)[1]
    wrapper = ForestModel(model.train())
    wrapper.checkpoint_activations()
    assert exact.difference(exact.packed(wrapper, ROWS)[1], wanted) <= 1e-9


def test_dropout_acts_in_training_only_and_forbids_sharing(folder_of: Callable[[str], Path]) -> None:
    method = method_of(dropout=0.5)
    assert not method.exact_when_shared
    assert method_of().exact_when_shared
    model = filled(method.apply(base_of(folder_of("llama")), seed=1))
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_two_adapters_switch_disable_and_save_apart(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Of different placements: the second adds layers where the first has none."""
    from peft import PeftModel

    folder, found = folder_of("qwen3"), {}
    for seed, (name, placement) in enumerate({"one": "parallel", "two": "houlsby"}.items()):
        method = method_of(placement=placement, size=3 + seed)
        model = filled(method.apply(base_of(folder), seed), seed)
        found[name] = logits(model)
        method.save(model, tmp_path / name)
    base: Any = base_of(folder)
    plain = logits(base)
    both: Any = PeftModel.from_pretrained(base, tmp_path / "one", adapter_name="one").eval()
    both.load_adapter(tmp_path / "two", adapter_name="two")
    both.eval()
    assert torch.equal(logits(both), found["one"])
    for name in ("two", "one", "two"):
        both.set_adapter(name)
        assert torch.equal(logits(both), found[name])
        assert {n.split("bottleneck_")[1].split(".")[1] for n in trained_names(both)} == {name}
    with both.disable_adapter():
        assert torch.equal(logits(both), plain)
    assert torch.equal(logits(both), found["two"])
    both.save_pretrained(tmp_path / "again")
    for name in found:
        again: Any = PeftModel.from_pretrained(base_of(folder), tmp_path / "again" / name)
        assert torch.equal(logits(again.eval()), found[name])
    both.delete_adapter("two")
    both.set_adapter("one")
    assert torch.equal(logits(both), found["one"])
    assert torch.equal(logits(both.unload()), plain)


def test_the_reference_is_the_base_and_leaves_a_loaded_adapter_frozen(folder_of: Callable[[str], Path],
                                                                      tmp_path: Path) -> None:
    method, folder = method_of(), folder_of("gpt2")
    model = filled(method.apply(base_of(folder), seed=1))
    method.save(model, tmp_path)
    loaded = method.load(base_of(folder), tmp_path).eval()
    for case, names in ((model, trained_names(model)), (loaded, set())):
        with method.reference(case):
            assert torch.equal(logits(case), logits(base_of(folder)))
        assert trained_names(case) == names
        assert torch.equal(logits(case), logits(model))


def test_registering_again_changes_nothing_and_the_saved_kind_is_a_plain_string(folder_of: Callable[[str], Path],
                                                                                tmp_path: Path) -> None:
    from peft import mapping
    from peft.config import PeftConfig

    from tuneloop.methods import _bottleneck

    _bottleneck.register()
    size = len(mapping.PEFT_TYPE_TO_TUNER_MAPPING)
    _bottleneck.register()
    assert len(mapping.PEFT_TYPE_TO_TUNER_MAPPING) == size
    method = method_of(placement="parallel", activation="gelu", dropout=0.1)
    method.save(method.apply(base_of(folder_of("llama")), seed=1), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "BOTTLENECK"
    read: Any = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(read, _bottleneck.BottleneckConfig)
    assert (read.hidden, read.size, read.activation, read.dropout, read.parallel, read.scale) == (
        32, 5, "gelu", 0.1, True, 4.0)


def test_half_precision_bases_take_adapters_in_float32(folder_of: Callable[[str], Path]) -> None:
    base = load_model(folder_of("llama"), dtype=torch.bfloat16)
    wanted = logits(base)
    model = method_of(placement="houlsby").apply(base, seed=1)
    assert torch.equal(logits(model), wanted)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert logits(filled(model)).dtype == torch.bfloat16


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_is_adapted(bits: Any, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder, method = folder_of("llama"), method_of(bits=bits, placement="houlsby")
    method.check(read_shape(folder))

    def fresh() -> nn.Module:
        return load_model(folder, dtype=torch.float32, **method.load_options())

    model = method.apply(fresh(), seed=1)
    assert torch.equal(logits(model), logits(fresh()))
    filled(model)
    gradients = exact.packed(ForestModel(model), ROWS)[1]
    assert all(g.abs().max() > 0 for g in gradients.values())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    method.save(model, tmp_path)
    assert (logits(method.load(fresh(), tmp_path).eval()) - logits(model)).abs().max() <= 1e-5


def test_merging_is_refused_with_the_reason(folder_of: Callable[[str], Path]) -> None:
    method = method_of()
    assert not method.mergeable
    model: Any = method.apply(base_of(folder_of("llama")), seed=1)
    with pytest.raises(UserError) as caught:
        method.merge(model)
    assert "non-linearity" in caught.value.found
    assert "--to adapter" in caught.value.fix
    with pytest.raises(ValueError, match="non-linearity"):
        model.merge_and_unload()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_base_without_such_parts_is_refused_with_what_it_has(placement: str, tmp_path: Path) -> None:
    """OPT's MLP is two layers of the block itself; Bloom adds the residual inside, as only its code tells."""
    from transformers import BloomConfig, BloomForCausalLM, OPTConfig, OPTForCausalLM

    opt = OPTForCausalLM(OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
                                   vocab_size=50, word_embed_proj_dim=16))
    opt.save_pretrained(tmp_path)
    bloom = BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=50))
    method = method_of(placement=placement)
    acts: list[Callable[[], Any]] = [lambda: method.apply(opt, seed=1), lambda: method.check(read_shape(tmp_path)),
                                     lambda: method.apply(bloom, seed=1)]
    for act, part in zip(acts, ("fc1", "fc1", "input_layernorm"), strict=True):
        with pytest.raises(UserError) as caught:
            act()
        assert placement in caught.value.found
        assert part in caught.value.found
        assert "mlp" in caught.value.wanted or "attn" in caught.value.wanted


def test_options_that_do_not_fit_are_refused() -> None:
    for options in ({"scale": 2.0}, {"size": 0}, {"size": 4, "reduction": 8}, {"reduction": 0},
                    {"activation": "tanh"}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            method_of(**options)


def test_the_plan_needs_no_torch_and_a_bottleneck_is_never_empty(folder_of: Callable[[str], Path]) -> None:
    shape = dataclasses.replace(read_shape(folder_of("llama")), hidden=8, layers=3)
    assert adapters.Method().count(shape) == 3 * (2 * 8 + 1 + 8)
    assert adapters.Method(placement="houlsby", reduction=2).count(shape) == 6 * (2 * 8 * 4 + 4 + 8)
    rate, why = adapters.Method().learning_rate(10**8)
    assert rate == 1e-3
    assert adapters.Method().learning_rate(10**9)[0] == 3e-4
    assert "2005.00247" in why


@pytest.mark.parametrize("placement", ["houlsby", "parallel"])
def test_a_tiny_run_learns(placement: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = toy.labels_recipe(tmp_path, folder_of("llama"), method={"kind": "adapters", "placement": placement,
                                                                     "size": 16}, training={"learning_rate": 0.03})
    certificate = toy.run(recipe, tmp_path / "run")
    assert certificate["verdict"]
    losses = toy.losses(tmp_path / "run")
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert len(toy.weights(tmp_path / "run")) == 4 * 2 * (2 if placement == "houlsby" else 1)
