"""Every method, on every family: step, save, load, merge, equal logits; what should train moved and nothing else did.

A new method is picked up by its name. The fast tests take a few families for each method, all of them once; the whole
matrix is slow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_cases import BLOCKS, CHANGES, REFUSED, pairs, variants
from torch import Tensor, nn

import exact
from tiny import FAMILIES, tiny_base
from tuneloop.catalog import Catalog
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.methods.base import MethodSpec
from tuneloop.methods.lora import TWO_PARTS
from tuneloop.models.load import load_model
from tuneloop.models.shape import read_shape

CATALOG = Catalog("method", "tuneloop.methods", "Method")
ROWS = exact.sharing_rows()
OTHER_FORM = {"pissa", "olora"}      # saved as a LoRA of the untouched base, which is summed in another order
IDS = torch.from_numpy(ROWS[0].ids).unsqueeze(0)


def matrix() -> list[Any]:
    """Every variant of every method on every family; a subset of pairs is fast."""
    return [pytest.param(name, variant, family, marks=() if fast else pytest.mark.slow,
                         id="-".join(filter(None, (name, variant, family))))
            for name, variant, family, fast in pairs(CATALOG.names)]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny base of a family, made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            name = family.removeprefix("wide ")
            changes = CHANGES.get(name, {}) | (BLOCKS[name == "gpt2"] if name != family else {})
            made[family] = tiny_base(tmp_path_factory.mktemp(name), name, **changes)
        return made[family]
    return folder


class Case:
    """A base of one family with one method applied."""

    def __init__(self, method: MethodSpec, folder: Path) -> None:
        self.method, self.folder = method, folder
        self.quantised = bool(self.method.load_options())
        self.base = self.fresh()
        self.model = self.method.apply(self.fresh(), seed=1)

    def fresh(self) -> nn.Module:
        return load_model(self.folder, **({"dtype": torch.float32} | self.method.load_options()))

    def trained(self) -> Case:
        """After two real optimizer steps: in LoRA's first one half of the gradients is zero."""
        wrapper = ForestModel(self.model)
        optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            exact.accumulate(wrapper, ROWS)
            optimizer.step()
        self.model.eval()
        return self


@pytest.fixture
def case(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> Case:
    name, variant, family = request.param
    method = CATALOG.get(name)(kind=name, **variants(name)[variant])
    return Case(method, folder_of(f"wide {family}" if method.load_options() else family))


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    """Run `test(case)` for the methods and families of the matrix."""
    pairs = [pytest.param(p.values, marks=p.marks, id=p.id) for p in matrix()]
    return pytest.mark.parametrize("case", pairs, indirect=True)(test)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def own_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters, under their names."""
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@everywhere
def test_training_lowers_the_loss_and_moves_the_logits(case: Case) -> None:
    before, at_start = exact.packed(ForestModel(case.model), ROWS)[0], logits(case.model)
    case.trained()
    assert exact.packed(ForestModel(case.model), ROWS)[0] < before
    assert (logits(case.model) - at_start).abs().max() > 1e-3


@everywhere
def test_what_should_train_moved_and_nothing_else_did(case: Case) -> None:
    before = own_parameters(case.model)
    trains = {n for n, p in case.model.named_parameters() if p.requires_grad}
    buffers = {n: b.clone() for n, b in case.model.named_buffers()}
    case.trained()
    after = own_parameters(case.model)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved == trains
    assert trains
    assert all(torch.equal(buffers[n], b) for n, b in case.model.named_buffers())


@everywhere
def test_the_plan_counts_what_trains(case: Case) -> None:
    counted = sum(p.numel() for p in case.model.parameters() if p.requires_grad)     # tied weights are one parameter
    memory = case.method.memory(read_shape(case.folder))
    assert memory.trainable_parameters == counted
    head: Any = ForestModel(case.model).inner.get_output_embeddings()
    assert memory.frozen_head == (not head.weight.requires_grad)


@everywhere
def test_the_plan_knows_the_bytes_of_the_base(case: Case) -> None:
    loaded = sum(p.numel() * p.element_size() for p in case.base.parameters())
    frozen = 4 * case.method.memory(read_shape(case.folder)).trainable_parameters \
        if getattr(case.method, "start", None) in TWO_PARTS else 0
    planned = case.method.memory(read_shape(case.folder)).base_bytes - frozen
    assert planned == pytest.approx(loaded, rel=0.02)


@everywhere
def test_saved_and_loaded_gives_the_same_logits(case: Case, tmp_path: Path) -> None:
    case.trained()
    case.method.save(case.model, tmp_path)
    loaded = case.method.load(case.fresh(), tmp_path).eval()
    apart = (logits(loaded) - logits(case.model)).abs().max()
    assert apart <= (1e-5 if getattr(case.method, "start", None) in OTHER_FORM else 0)
    assert not any(p.requires_grad for p in loaded.parameters())


@everywhere
def test_merged_gives_the_same_logits_as_a_plain_model(case: Case, tmp_path: Path) -> None:
    tuned = case.trained().model
    if case.quantised:      # merged into the base in full precision, and never into the quantised one
        with pytest.raises(UserError):
            case.method.merge(tuned)
        case.method.save(tuned, tmp_path / "adapter")
        tuned = case.method.load(load_model(case.folder, dtype=torch.float32), tmp_path / "adapter")
    wanted = logits(tuned)
    if not getattr(case.method, "mergeable", True):
        with pytest.raises(UserError, match="merged"):
            case.method.merge(tuned)
        assert torch.equal(logits(tuned), wanted)
        return
    merged: Any = case.method.merge(tuned)
    plain = load_model(case.folder, dtype=torch.float32)
    assert type(merged) is type(plain)
    assert (logits(merged) - wanted).abs().max() <= 1e-5
    assert {n for n, _ in merged.named_parameters()} == {n for n, _ in plain.named_parameters()}
    merged.save_pretrained(tmp_path / "merged")
    assert (logits(load_model(tmp_path / "merged", dtype=torch.float32)) - wanted).abs().max() <= 1e-5


@everywhere
def test_shared_prefixes_are_exact_once_trained(case: Case) -> None:
    model = case.trained().model
    (loss, wanted), (shared, found) = (exact.packed(ForestModel(model), ROWS, share=share) for share in (False, True))
    rounds = getattr(case.method, "bits", None) == 8        # activations are rounded, and a last digit may flip
    assert abs(shared - loss) <= (1e-2 if rounds else 1e-5)
    assert exact.difference(found, wanted) <= (5e-2 if rounds else 1e-5)


@pytest.mark.parametrize(("name", "variant", "family"), REFUSED)
def test_what_a_base_cannot_take_is_refused_by_name(name: str, variant: str, family: str,
                                                    folder_of: Callable[[str], Path]) -> None:
    method = CATALOG.get(name)(kind=name, **variants(name)[variant])
    with pytest.raises(UserError, match=variant.upper()) as caught:
        Case(method, folder_of(family))
    assert caught.value.fix


@everywhere
def test_reference_gives_the_base_or_says_why_not(case: Case) -> None:
    wanted, tuned = logits(case.base), logits(case.trained().model)
    refusal: UserError | None = None
    try:
        with case.method.reference(case.model):
            assert torch.equal(logits(case.model), wanted)
    except UserError as error:
        refusal = error
    assert refusal is None or (case.method.artefact == "model" and refusal.fix)
    assert torch.equal(logits(case.model), tuned)


@everywhere
def test_the_same_seed_gives_the_same_start(case: Case) -> None:
    first, again = own_parameters(case.model), own_parameters(case.method.apply(case.fresh(), seed=1))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[n], again[n]) for n in first)


@everywhere
def test_what_trains_is_in_the_precision_of_the_base(case: Case) -> None:
    assert {p.dtype for p in case.model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("parameters", [1e8, 7e9])
@pytest.mark.parametrize("name", CATALOG.names)
def test_the_planned_learning_rate_is_believable_and_explained(name: str, parameters: float) -> None:
    rate, why = CATALOG.get(name)(kind=name).learning_rate(int(parameters))
    assert 1e-6 <= rate <= 1e-2
    assert why


# LoRA is PEFT's: gradients, files and refusals are those of PEFT.

FEW = ["llama", "gpt2"]


def lora_with_values(model: nn.Module, **options: Any) -> nn.Module:
    """LoRA whose B is not zero, so that all its gradients count."""
    tuned: nn.Module = CATALOG.get("lora")(**options).apply(model, seed=3)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    return tuned


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_gradients_equal_those_of_plain_peft(family: str, folder_of: Callable[[str], Path],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    base = exact.double(folder_of(family), monkeypatch)
    theirs: Any = get_peft_model(copy.deepcopy(base), LoraConfig(  # type: ignore[arg-type]
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    ours = lora_with_values(base, rank=4)
    theirs.load_state_dict(ours.state_dict())
    wanted = exact.gradients(theirs, exact.plain_loss(theirs, ROWS))
    assert all(g.abs().max() > 0 for g in wanted.values())
    for share in (True, False):
        got = exact.packed(ForestModel(ours), ROWS, share=share)[1]
        assert exact.difference(got, wanted) <= 1e-9


@pytest.mark.parametrize("family", FEW)
def test_the_saved_adapter_loads_in_plain_peft(family: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ours = lora_with_values(load_model(folder_of(family), dtype=torch.float32), rank=4).eval()
    CATALOG.get("lora")(rank=4).save(ours, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    plain = AutoModelForCausalLM.from_pretrained(folder_of(family), dtype=torch.float32)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path).eval()), logits(ours))


@pytest.mark.parametrize(("family", "targets"), [("llama", ["q_proj", "down_proj"]), ("gpt2", ["c_attn"])])
def test_only_the_named_targets_are_adapted(family: str, targets: list[str], folder_of: Callable[[str], Path]) -> None:
    method = CATALOG.get("lora")(rank=2, targets=targets)
    model = method.apply(load_model(folder_of(family), dtype=torch.float32), seed=0)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {n.split(".lora_")[0].rpartition(".")[2] for n in trained} == set(targets)
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert method.memory(read_shape(folder_of(family))).trainable_parameters == counted


def test_unknown_targets_are_refused_with_the_list(folder_of: Callable[[str], Path]) -> None:
    base = load_model(folder_of("llama"), dtype=torch.float32)
    with pytest.raises(UserError) as caught:
        CATALOG.get("lora")(targets=["q_proj", "query", "c_attn"]).apply(base, seed=0)
    assert "c_attn, query" in str(caught.value)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert name in caught.value.wanted
    assert not any("lora" in n for n, _ in base.named_parameters())


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_targets_that_the_plan_cannot_count_are_refused(target: str, folder_of: Callable[[str], Path]) -> None:
    """The head and the embedding are no layers of the blocks; adapting them would be planned as if it were free."""
    with pytest.raises(UserError):
        CATALOG.get("lora")(targets=[target]).apply(load_model(folder_of("mistral"), dtype=torch.float32), seed=0)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (4.0, 0.5)])
def test_alpha_over_rank_scales_the_update(alpha: float | None, scale: float, folder_of: Callable[[str], Path]) -> None:
    model = lora_with_values(load_model(folder_of("llama"), dtype=torch.float32), rank=8, alpha=alpha)
    layer: Any = next(m for n, m in model.named_modules() if n.endswith("q_proj"))
    x = torch.randn(3, 32)
    update = layer.lora_B["default"](layer.lora_A["default"](x))
    assert torch.allclose(layer(x), layer.base_layer(x) + scale * update, atol=1e-5)


def test_another_seed_gives_another_start_at_the_base(folder_of: Callable[[str], Path]) -> None:
    base = load_model(folder_of("llama"), dtype=torch.float32)
    wanted = logits(base)
    one, two = (CATALOG.get("lora")().apply(copy.deepcopy(base), seed) for seed in (1, 2))
    assert torch.equal(logits(one), wanted)
    assert torch.equal(logits(two), wanted)
    a, b = own_parameters(one), own_parameters(two)
    assert all(torch.equal(a[n], b[n]) != ("lora_A" in n) for n in a)


def test_dropout_acts_in_training_and_not_in_evaluation(folder_of: Callable[[str], Path]) -> None:
    model = lora_with_values(load_model(folder_of("llama"), dtype=torch.float32), dropout=0.5)
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))
