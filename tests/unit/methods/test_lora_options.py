"""LoRA's options: every start saves a plain adapter of the untouched base, counts are exact, misfits are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exact
import toy
from tiny import tiny_base
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.methods import lora, qlora
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape
from tuneloop.record import RunFolder
from tuneloop.session import open_run

ROWS = exact.sharing_rows()
IDS = torch.from_numpy(ROWS[0].ids).unsqueeze(0)
WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "num_attention_heads": 2}
MIXTURE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
STARTS = ["default", "gaussian", "orthogonal", "pissa", "olora", "eva"]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def folder(family: str, **changes: Any) -> Path:
        key = f"{family}{changes}"
        if key not in made:
            made[key] = tiny_base(tmp_path_factory.mktemp(family), family, **changes)
        return made[key]
    return folder


def fresh(folder: Path, **options: Any) -> nn.Module:
    return load_model(folder, dtype=torch.float32, **options)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return found


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def trained(model: nn.Module) -> nn.Module:
    """After two optimizer steps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        exact.accumulate(ForestModel(model), ROWS)
        optimizer.step()
    return model.eval()


def of_peft(model: nn.Module, **options: Any) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    given: Any = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    return get_peft_model(model, LoraConfig(**given))  # type: ignore[arg-type, return-value]


def cases() -> list[Any]:
    options = [{"start": start} for start in STARTS] + [
        {"rslora": True}, {"dora": True}, {"start": "pissa", "rslora": True}, {"dora": True, "start": "eva"},
        {"start": "olora", "dropout": 0.3}]
    return [pytest.param(family, o, id=f"{family}-{'-'.join(map(str, o.values()))}")
            for o in options for family in ("llama", "gpt2")]


@pytest.mark.parametrize(("family", "options"), cases())
def test_what_trains_is_saved_as_a_plain_adapter_of_the_untouched_base(
        family: str, options: dict[str, Any], folder_of: Callable[..., Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = folder_of(family)
    base, method = logits(fresh(folder)), lora.Method(rank=4, **options)
    model = method.apply(fresh(folder), 1, ROWS)
    assert apart(logits(model), base) <= 1e-5
    trains = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    assert sum(map(torch.numel, trains.values())) == method.count(read_shape(folder))
    rest = {n: p.detach().clone() for n, p in model.named_parameters() if n not in trains}
    tuned = logits(trained(model))
    assert apart(tuned, base) > 1e-2
    after = dict(model.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in rest.items())
    assert not any(torch.equal(p, after[n]) for n, p in trains.items())
    with method.reference(model):
        assert torch.equal(logits(model), base)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(trains)
    assert torch.equal(logits(model), tuned)
    method.save(model, tmp_path)
    assert apart(logits(method.load(fresh(folder), tmp_path)), tuned) <= 1e-5
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert apart(logits(PeftModel.from_pretrained(plain, tmp_path)), tuned) <= 1e-5
    assert apart(logits(method.merge(method.load(fresh(folder), tmp_path))), tuned) <= 1e-5
    assert apart(logits(method.merge(model)), tuned) <= 1e-5


@pytest.mark.parametrize("start", STARTS)
def test_a_seed_gives_one_start(start: Any, folder_of: Callable[..., Path]) -> None:
    method = lora.Method(rank=4, start=start)
    one, two = (dict(method.apply(fresh(folder_of("llama")), 5, ROWS).named_parameters()) for _ in range(2))
    assert all(torch.equal(p, two[n]) for n, p in one.items())


@pytest.mark.parametrize(("start", "alpha"), [("pissa", 8), ("olora", 4)])
def test_starts_and_gradients_are_those_of_peft(start: Any, alpha: int, folder_of: Callable[..., Path]) -> None:
    """PEFT takes the start out of the weights, we by a second adapter. PEFT's A and B of OLoRA disregard the scale."""
    ours = lora.Method(rank=4, alpha=alpha, start=start).apply(fresh(folder_of("llama")), 1)
    theirs = of_peft(fresh(folder_of("llama")), lora_alpha=alpha, init_lora_weights=start)
    mine = dict(ours.named_parameters())
    named = {n: p for n, p in theirs.named_parameters() if ".lora_" in n}
    assert named
    assert all(apart(p, mine[n]) <= 1e-5 for n, p in named.items())
    wanted = exact.gradients(theirs, exact.plain_loss(theirs, ROWS))
    assert exact.difference(exact.packed(ForestModel(ours), ROWS)[1], wanted) <= 1e-4


def test_eva_takes_the_main_directions_of_the_inputs(folder_of: Callable[..., Path]) -> None:
    """For the last down projection: the right singular vectors of its inputs, around their mean."""
    base = fresh(folder_of("llama"))
    seen: list[Tensor] = []
    layer: Any = base.get_submodule("model.layers.1.mlp.down_proj")
    handle = layer.register_forward_hook(lambda m, args, out: seen.append(args[0].detach().flatten(0, 1)))
    for row in ROWS:
        logits_of = base(input_ids=torch.from_numpy(row.ids).unsqueeze(0)).logits
        assert logits_of.isfinite().all()
    handle.remove()
    inputs = torch.cat(seen)
    v = torch.linalg.svd(inputs - inputs.mean(0)).Vh[:2]
    model: Any = lora.Method(rank=2, start="eva").apply(base, 1, ROWS)
    a = model.get_submodule("base_model.model.model.layers.1.mlp.down_proj").lora_A["default"].weight
    assert ((a @ v.T).abs() - torch.eye(2)).abs().max() < 0.05


def test_eva_without_rows_is_refused(folder_of: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="looks at training rows"):
        lora.Method(rank=4, start="eva").apply(fresh(folder_of("llama")), 1)


@pytest.mark.parametrize("rank", [8, 16])
def test_eva_ends_where_rows_have_too_few_directions(rank: int, folder_of: Callable[..., Path]) -> None:
    ids = torch.tensor([5, 6, 5, 6, 5] * (1 if rank == 8 else 9)).numpy()
    rows = [exact.Rendered(ids, ROWS[0].weights[:len(ids)])]
    with pytest.raises(UserError) as caught:
        lora.Method(rank=rank, start="eva").apply(fresh(folder_of("llama")), 1, rows)
    assert "lower method.rank" in caught.value.fix


def test_no_target_is_no_choice() -> None:
    with pytest.raises(ValueError, match="targets"):
        lora.Method(targets=[])


@pytest.mark.parametrize("options", [{"start": "loftq"}, {"start": "loftq", "bits": 8}, {"dora": True,
                         "start": "pissa"}, {"dora": True, "start": "olora"}, {"start": "orthogonal", "rank": 3}])
def test_impossible_pairs_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="start"):
        lora.Method(**options)


def test_rslora_scales_by_the_root_of_the_rank(folder_of: Callable[..., Path]) -> None:
    model: Any = lora.Method(rank=4, alpha=8, rslora=True).apply(fresh(folder_of("llama")), 1)
    assert model.get_submodule("base_model.model.model.layers.0.mlp.up_proj").scaling == {"default": 4.0}


def test_a_rank_larger_than_a_layer_is_refused(folder_of: Callable[..., Path]) -> None:
    shape = read_shape(folder_of("llama"))
    with pytest.raises(UserError) as caught:
        lora.Method(rank=17).check(shape)
    assert "_proj, which has 32 inputs and 16 outputs" in caught.value.found
    lora.Method(rank=16).check(shape)
    lora.Method(rank=32, targets=["q_proj"]).check(shape)


def test_unknown_targets_are_refused_before_anything_loads(folder_of: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as caught:
        lora.Method(targets=["q_proj", "query"]).check(read_shape(folder_of("llama")))
    assert "query" in caught.value.found
    assert "down_proj, gate_proj, k_proj" in caught.value.wanted


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"start": "pissa"}])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "qwen2_moe"])
def test_the_plan_counts_what_trains_of_a_mixture(family: str, options: Any, folder_of: Callable[..., Path]) -> None:
    folder = folder_of(family, **MIXTURE)
    method = lora.Method(rank=4, **options)
    method.check(read_shape(folder))
    model = method.apply(fresh(folder), 1)
    assert method.count(read_shape(folder)) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert any(".experts." in name for name in read_shape(folder).weights)
    with pytest.raises(UserError):
        lora.Method(targets=["gate"]).check(read_shape(folder))


def parse_method(given: dict[str, Any]) -> lora.Method:
    return (qlora if given["kind"] == "qlora" else lora).Method(**given)


def quantised_of_peft(folder: Path, bits: Any) -> tuple[nn.Module, nn.Module]:
    ours = qlora.Method(rank=4, bits=bits).apply(fresh(folder, bits=bits), 1)
    theirs = of_peft(fresh(folder, bits=bits))
    torch.manual_seed(2)
    for n, p in ours.named_parameters():
        if "lora_B" in n:
            p.data.normal_(std=0.1)
    mine = dict(ours.named_parameters())
    for n, p in theirs.named_parameters():
        if ".lora_" in n:
            p.data.copy_(mine[n])
    return ours, theirs


@pytest.mark.parametrize(("bits", "apart_by"), [(4, 1e-4), (8, 0.03)])
def test_gradients_on_a_quantised_base_are_those_of_peft(
        bits: Any, apart_by: float, folder_of: Callable[..., Path]) -> None:
    """LLM.int8 rounds inputs row by row, and float16 adds what sharing changes of the sums."""
    ours, theirs = quantised_of_peft(folder_of("llama", **WIDE), bits)
    logits(ours)        # a base that has answered must still pass gradients on
    wanted = exact.gradients(theirs, exact.plain_loss(theirs, ROWS))
    assert exact.difference(exact.packed(ForestModel(ours), ROWS)[1], wanted) <= apart_by
    assert exact.difference(exact.packed(ForestModel(ours), ROWS, share=False)[1], wanted) <= apart_by


def test_loftq_starts_nearer_to_the_base_and_saves_a_change_of_it(
        folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = folder_of("llama", **WIDE)
    method = qlora.Method(rank=8, start="loftq")
    whole, quantised = logits(fresh(folder)), logits(fresh(folder, bits=4))
    model = method.apply(fresh(folder, bits=4), 1)
    layer: Any = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    weight: Any = fresh(folder).get_submodule("model.layers.0.mlp.up_proj").weight
    from peft.utils.integrations import dequantize_module_weight
    kept = dequantize_module_weight(layer.get_base_layer())
    made = kept + layer.get_delta_weight("default")
    assert (weight - made).norm() < 0.9 * (weight - kept).norm()
    with method.reference(model):
        assert torch.equal(logits(model), quantised)
    assert method.count(read_shape(folder)) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    method.save(model, tmp_path / "start")      # untrained: on the base in full precision it changes nothing
    assert apart(logits(method.load(fresh(folder), tmp_path / "start")), whole) <= 1e-5
    tuned = logits(trained(model))
    method.save(model, tmp_path / "end")
    assert apart(logits(method.load(fresh(folder, bits=4), tmp_path / "end")), tuned) <= 1e-5
    on_whole = method.load(fresh(folder), tmp_path / "end")
    wanted = logits(on_whole)
    assert apart(wanted, whole) > 1e-2
    assert apart(logits(method.merge(on_whole)), wanted) <= 1e-5


@pytest.mark.parametrize("options", [{}, {"bits": 8}, {"dora": True}, {"start": "pissa"}, {"start": "orthogonal"},
                                     {"start": "eva"}])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_quantised_base_trains_saves_and_merges_in_full_precision(
        family: str, options: dict[str, Any], folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = folder_of(family, **(WIDE if family == "llama" else {"n_embd": 64, "n_inner": 128}))
    method = qlora.Method(rank=4, **options)
    base = fresh(folder, **method.load_options())
    quantised = logits(base)
    model = method.apply(base, 1, ROWS)
    tuned = logits(trained(model))
    assert apart(tuned, quantised) > 1e-2
    with method.reference(model):
        assert torch.equal(logits(model), quantised)
    method.save(model, tmp_path)
    close = 1e-5 if method.bits == 4 else 0.05
    assert apart(logits(method.load(fresh(folder, **method.load_options()), tmp_path)), tuned) <= close
    with pytest.raises(UserError, match="losing precision"):
        method.merge(model)
    on_whole = method.load(fresh(folder), tmp_path)
    wanted = logits(on_whole)
    assert apart(logits(method.merge(on_whole)), wanted) <= 1e-5


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_is_quiet(bits: int, folder_of: Callable[..., Path], caplog: pytest.LogCaptureFixture,
                                   recwarn: pytest.WarningsRecorder) -> None:
    with caplog.at_level("WARNING"):
        model = fresh(folder_of("llama", **WIDE), bits=bits)
        logits(model)
        trained(qlora.Method(rank=4).apply(model, 1))
    assert not [r.getMessage() for r in caplog.records]
    assert not [w.message for w in recwarn.list if "bitsandbytes" in w.filename]


def test_without_bitsandbytes_a_quantised_base_is_refused_at_once(
        folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="bitsandbytes"):
        qlora.Method(rank=4).check(read_shape(folder_of("llama")))
    lora.Method(rank=4).check(read_shape(folder_of("llama")))


@pytest.mark.parametrize("method", [{"kind": "qlora", "rank": 4}, {"kind": "qlora", "rank": 4, "start": "loftq"},
                                    {"kind": "qlora", "rank": 4, "bits": 8}, {"kind": "lora", "rank": 4, "dora": True},
                                    {"kind": "lora", "rank": 4, "start": "pissa"},
                                    {"kind": "lora", "rank": 4, "start": "eva"}])
def test_a_whole_run(method: dict[str, Any], folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """And one that is cut off after training has begun ends with the same weights."""
    recipe = toy.labels_recipe(tmp_path, folder_of("llama", **WIDE), method=method, training={"checkpoint_every": 5})
    certificate = toy.run(recipe, tmp_path / "whole")
    assert toy.losses(tmp_path / "whole")[-1] < toy.losses(tmp_path / "whole")[0]
    assert certificate["scores"]["tuned"]["accuracy"]["value"] > certificate["scores"]["base"]["accuracy"]["value"]

    class Cut(Exception):
        pass

    def cut() -> None:
        raise Cut

    with pytest.raises(Cut):
        toy.run(recipe, tmp_path / "cut", watch=toy.Interrupting(7, cut))
    toy.resume(recipe, tmp_path / "cut")
    assert toy.same_bits(tmp_path / "whole", tmp_path / "cut")
    model, _ = open_run(RunFolder(tmp_path / "whole"), whole_base=True)
    wanted = logits(model)
    assert apart(logits(parse_method(method).merge(model)), wanted) <= 1e-5
