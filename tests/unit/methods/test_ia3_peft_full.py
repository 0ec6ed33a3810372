"""(IA)3, PEFT's other tuners by name, and full fine-tuning of a part: what trains, what is refused, whole tiny runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exact
import toy
from tiny import FAMILIES, LONGEST, tiny_base
from tuneloop.catalog import Catalog
from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.methods import full, ia3, peft
from tuneloop.models.load import load_model
from tuneloop.models.shape import Shape, read_shape

ROWS = exact.sharing_rows()
IDS = torch.from_numpy(ROWS[0].ids).unsqueeze(0)
MORE = {"gemma3_text": {"sliding_window": 64}, "mixtral": {"num_local_experts": 4},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}}


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
    found: Tensor = model(input_ids=IDS, use_cache=False).logits[:, -IDS.shape[1]:]
    return found


def trained_names(model: nn.Module) -> set[str]:
    return {n for n, p in model.named_parameters() if p.requires_grad}


def counted(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train(method: Any, model: nn.Module) -> None:
    """Three steps by the way that the check finds exact; just what should train moves, and the loss falls."""
    packing = choose_packing(model, ROWS, share=method.exact_when_shared)
    assert packing.mode == "forest", packing.why
    assert packing.share == method.exact_when_shared, packing.why
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    wrapper = ForestModel(model, packing.mode)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append(exact.accumulate(wrapper, ROWS, share=packing.share, trunks=packing.share))
        optimizer.step()
    model.eval()
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == trained_names(model)
    assert losses[-1] < losses[0]


def lives(method: Any, folder: Path, saved: Path) -> nn.Module:
    """The whole life of a method on a base, up to the trained model: count, training, reference, save, load."""
    method.check(read_shape(folder))
    memory = method.memory(read_shape(folder))
    base, model = base_of(folder), method.apply(base_of(folder), seed=1)
    assert memory.trainable_parameters == counted(model) > 0
    train(method, model)
    tuned = logits(model)
    assert not torch.equal(tuned, logits(base))
    if method.artefact == "adapter":
        with method.reference(model):
            assert torch.equal(logits(model), logits(base))
    method.save(model, saved)
    loaded = method.load(base_of(folder), saved).eval()
    assert torch.equal(logits(loaded), tuned)
    assert not trained_names(loaded)
    return model


def merges(method: Any, model: nn.Module, folder: Path) -> None:
    wanted, merged = logits(model), method.merge(model)
    assert type(merged) is type(base_of(folder))
    assert (logits(merged) - wanted).abs().max() <= 1e-5


def refusal(act: Callable[[], Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.wanted or caught.value.fix
    return caught.value


# (IA)3

@pytest.mark.parametrize("family", [*FAMILIES, "mixtral", "qwen3_moe"])
def test_ia3_trains_exactly_what_the_plan_counts(family: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    merges(ia3.Method(), lives(ia3.Method(), folder_of(family), tmp_path), folder_of(family))


@pytest.mark.parametrize(("family", "targets"), [
    ("llama", {"k_proj": 16, "v_proj": 16, "down_proj": 64}),
    ("gpt2", {"c_attn": 96, "mlp.c_proj": 64}),
    ("qwen3_moe", {"k_proj": 16, "v_proj": 16}),
])
def test_ia3_scales_keys_values_and_the_input_of_the_down_projection(
        family: str, targets: dict[str, int], folder_of: Callable[[str], Path]) -> None:
    model = ia3.Method().apply(base_of(folder_of(family)), seed=0)
    scales = {n.split(".ia3_l")[0]: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(scales) == 2 * len(targets)      # two blocks
    for name, scale in scales.items():
        assert scale.numel() == next(size for target, size in targets.items() if name.endswith(target))
        assert bool((scale == 1).all())


@pytest.mark.parametrize(("options", "trained"), [
    ({"targets": ["q_proj", "up_proj"]}, 2 * (32 + 64)),
    ({"targets": ["o_proj", "down_proj"]}, 2 * (32 + 64)),
    ({"targets": ["down_proj"], "feedforward": []}, 2 * 32),
    ({"targets": ["v_proj", "gate_proj"], "feedforward": ["gate_proj"]}, 2 * (16 + 32)),
])
def test_ia3_takes_targets(options: dict[str, Any], trained: int, folder_of: Callable[[str], Path]) -> None:
    method = ia3.Method(**options)
    assert counted(method.apply(base_of(folder_of("llama")), seed=0)) == trained
    assert method.count(read_shape(folder_of("llama"))) == trained


@pytest.mark.parametrize("how", ["check", "apply"])
@pytest.mark.parametrize(("options", "said", "wanted"), [
    ({"targets": ["k_proj", "key"]}, "key", "q_proj, up_proj, v_proj"),
    ({"targets": ["lm_head"]}, "lm_head", "down_proj"),
    ({"feedforward": ["up_proj"]}, "no targets: up_proj", "k_proj, v_proj, down_proj"),
    ({"targets": []}, "no layers", "k_proj"),
])
def test_ia3_refuses_layers_that_are_not_there(options: dict[str, Any], said: str, wanted: str, how: str,
                                               folder_of: Callable[[str], Path]) -> None:
    method, folder = ia3.Method(**options), folder_of("llama")
    error = refusal(lambda: method.check(read_shape(folder)) if how == "check" else method.apply(base_of(folder), 0))
    assert said in error.found
    assert wanted in error.wanted


# Any tuner of PEFT

TOKENS = sorted({int(t) for row in ROWS for t in row.ids})
WORKS: dict[str, dict[str, Any]] = {
    "ADAMSS": {}, "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2}, "BEFT": {}, "BOFT": {},
    "C3A": {"block_size": 8}, "CARTRIDGE": {"num_virtual_tokens": 4}, "DEFT": {}, "DELORA": {},
    "FOURIERFT": {"n_frequency": 16}, "FROD": {}, "GLORA": {}, "GRALORA": {}, "HIRA": {}, "HRA": {}, "LILY": {},
    "LN_TUNING": {}, "LOHA": {}, "LOKR": {}, "MISS": {"r": 4}, "OFT": {}, "OSF": {}, "PEANUT": {},
    "PREFIX_TUNING": {"num_virtual_tokens": 4}, "PROMPT_TUNING": {"num_virtual_tokens": 4}, "PSOFT": {"r": 4},
    "PVERA": {}, "P_TUNING": {"num_virtual_tokens": 4}, "RANDLORA": {}, "ROAD": {"group_size": 8}, "SHIRA": {"r": 2},
    "SUPERTUNING": {}, "TINYLORA": {}, "TRAINABLE_TOKENS": {"token_indices": TOKENS}, "UNILORA": {},
    "VBLORA": {"vector_length": 8, "num_vectors": 16}, "VERA": {"r": 8}, "WAVEFT": {"n_frequency": 16},
}
"""Every tuner that works, with options small enough for a tiny base."""
NO_MERGE = {"ADAPTION_PROMPT", "BEFT", "CARTRIDGE", "LILY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"}


def test_every_tuner_of_peft_works_or_is_refused_by_name() -> None:
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    assert set(WORKS) | set(peft.REFUSED) == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING
                                               if isinstance(kind, PeftType)}
    assert not set(WORKS) & set(peft.REFUSED)


@pytest.mark.parametrize("name", WORKS)
def test_a_tuner_of_peft_lives(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    method, folder = peft.Method(type=name, options=WORKS[name]), folder_of("llama")
    model = lives(method, folder, tmp_path)
    if name in NO_MERGE:
        assert "adapter" in refusal(lambda: method.merge(model)).fix
    else:
        merges(method, model, folder)


@pytest.mark.parametrize("name", peft.REFUSED)
def test_tuners_that_cannot_work_are_refused_with_the_reason(name: str, folder_of: Callable[[str], Path]) -> None:
    error = refusal(lambda: peft.Method(type=name).check(read_shape(folder_of("llama"))))
    assert peft.REFUSED[name] in error.found
    assert "VERA" in error.wanted


@pytest.mark.parametrize(("given", "said", "fix"), [
    ({"type": "VERRA"}, "'VERRA'", "did you mean 'VERA'?"),
    ({"type": "vera"}, "'vera'", "did you mean 'VERA'?"),
    ({"type": "VERA", "options": {"vera_dropuot": 0.1}}, "'vera_dropuot'", "did you mean 'vera_dropout'?"),
    ({"type": "VERA", "options": {"task_type": "SEQ_CLS"}}, "task_type", "leave it out"),
    ({"type": "VERA", "options": {"bias": "all"}}, "biases of the base", "leave it out"),
])
def test_unknown_types_and_options_are_refused(given: dict[str, Any], said: str, fix: str,
                                               folder_of: Callable[[str], Path]) -> None:
    for act in (lambda: peft.Method(**given).check(read_shape(folder_of("llama"))),
                lambda: peft.Method(**given).apply(base_of(folder_of("llama")), 0)):
        error = refusal(act)
        assert said in error.found
        assert error.fix == fix


@pytest.mark.parametrize(("family", "given", "said"), [
    ("llama", {"type": "MISS", "options": {"r": 64}}, "must be less than or equal to in_features (32)"),
    ("llama", {"type": "VERA", "options": {"target_modules": ["query"]}}, "target_modules"),
    ("gpt2", {"type": "HRA"}, "Conv1D"),
    ("gpt2", {"type": "OSF"}, "nothing to train"),
])
def test_what_peft_refuses_is_said_in_its_words(family: str, given: dict[str, Any], said: str,
                                                folder_of: Callable[[str], Path]) -> None:
    method, folder = peft.Method(**given), folder_of(family)
    assert said in refusal(lambda: method.memory(read_shape(folder))).found
    assert said in refusal(lambda: method.apply(base_of(folder), 0)).found


def test_peft_options_reach_the_tuner_and_planning_leaves_chance_alone(folder_of: Callable[[str], Path]) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    method = peft.Method(type="VERA", options={"r": 8, "target_modules": ["o_proj"]})
    assert method.count(read_shape(folder_of("llama"))) == 2 * (8 + 32)
    assert torch.equal(torch.rand(3), wanted)


def test_peft_takes_all_linear_layers_of_a_family_that_it_does_not_know(
        folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import HiraModel

    monkeypatch.setattr(HiraModel, "target_module_mapping", {})
    model = peft.Method(type="HIRA").apply(base_of(folder_of("llama")), 0)
    assert {n.split(".hira_")[0].rpartition(".")[2] for n in trained_names(model)} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_head_that_a_tuner_trains_is_planned_with_its_logits(folder_of: Callable[[str], Path]) -> None:
    shape = read_shape(folder_of("mistral"))
    own = peft.Method(type="VERA", options={"r": 8, "modules_to_save": ["lm_head"]})
    assert not own.memory(shape).frozen_head
    assert own.memory(shape).trainable_parameters > shape.vocab * shape.hidden
    assert peft.Method(type="VERA", options={"r": 8}).memory(shape).frozen_head


def test_dropout_and_noise_of_a_tuner_are_not_shared_and_virtual_tokens_take_places() -> None:
    assert peft.Method(type="VERA").exact_when_shared
    assert not peft.Method(type="VERA", options={"vera_dropout": 0.1}).exact_when_shared
    assert not peft.Method(type="PVERA").exact_when_shared
    assert peft.Method(type="PROMPT_TUNING", options={"num_virtual_tokens": 6}).slots == 6
    assert peft.Method(type="VERA").slots == 0


# Full fine-tuning of a part

PARTS: dict[str, dict[str, Any]] = {
    "all": {}, "last": {"layers": 1}, "first": {"layers": -1}, "these": {"layers": [1]}, "both": {"layers": [0, 1]},
    "norms": {"only": ["norms"]}, "norms of the last": {"layers": 1, "only": ["norms"]},
}
BIASED = {"biases": {"only": ["biases"]}, "biases and norms": {"only": ["biases", "norms"]}}


def part_of(names: set[str], options: dict[str, Any]) -> set[str]:
    """What should train, by the base's own names, said another way."""
    if "layers" in options:
        blocks = {1: "1", -1: "0"}.get(options["layers"]) if isinstance(options["layers"], int) else \
            "".join(map(str, options["layers"]))
        names = {n for n in names if any(f".{b}." in n for b in str(blocks))}
    if "only" not in options:
        return names
    norms = {n for n in names if any(part.startswith("ln_") or part.endswith("norm") for part in n.split("."))}
    return (norms if "norms" in options["only"] else set()) | \
        ({n for n in names if n.endswith("bias")} if "biases" in options["only"] else set())


@pytest.mark.parametrize(("family", "part"), [
    *((family, part) for family in ("llama", "gpt2", "mistral", "qwen3_moe") for part in PARTS),
    *((family, part) for family in ("qwen2", "gpt2") for part in BIASED)])
def test_just_the_chosen_part_trains(family: str, part: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    options, folder = (PARTS | BIASED)[part], folder_of(family)
    method = full.Method(**options)
    base = base_of(folder)
    model = method.apply(base_of(folder), seed=0)
    assert trained_names(model) == part_of({n for n, _ in base.named_parameters()}, options)
    memory, shape = method.memory(read_shape(folder)), read_shape(folder)
    assert memory.trainable_parameters == counted(model)
    head: Any = model
    assert memory.frozen_head == (not head.get_output_embeddings().weight.requires_grad)
    assert (memory.trainable_parameters == shape.parameters) == (part == "all")


@pytest.mark.parametrize(("family", "part"), [("llama", "last"), ("gpt2", "norms"), ("qwen2", "biases")])
def test_a_part_lives_as_a_whole_model(family: str, part: str, folder_of: Callable[[str], Path],
                                       tmp_path: Path) -> None:
    method = full.Method(**(PARTS | BIASED)[part])
    model = lives(method, folder_of(family), tmp_path)
    assert read_shape(tmp_path).parameters == read_shape(folder_of(family)).parameters
    merges(method, model, folder_of(family))


@pytest.mark.parametrize("how", ["check", "apply"])
@pytest.mark.parametrize(("options", "said", "wanted"), [
    ({"only": ["biases"]}, "no biases", "norms"),
    ({"only": ["norms", "biases"], "layers": 1}, "no biases", "norms"),
    ({"layers": 3}, "3 of 2 blocks", "1 to 2"),
    ({"layers": -3}, "-3 of 2 blocks", "-1 to -2"),
    ({"layers": 0}, "0 of 2 blocks", "1 to 2"),
    ({"layers": [0, 2]}, "does not have: 2", "0 to 1"),
    ({"layers": [-1]}, "does not have: -1", "0 to 1"),
])
def test_parts_that_are_not_there_are_refused(options: dict[str, Any], said: str, wanted: str, how: str,
                                              folder_of: Callable[[str], Path]) -> None:
    method, folder = full.Method(**options), folder_of("llama")
    error = refusal(lambda: method.check(read_shape(folder)) if how == "check" else method.apply(base_of(folder), 0))
    assert said in error.found
    assert wanted in error.wanted


@pytest.mark.parametrize("options", [{"layers": []}, {"only": []}, {"only": ["weights"]}])
def test_no_part_is_no_choice(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"full|layers|only"):
        full.Method(**options)


def test_a_quantised_base_is_refused_before_it_loads(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path, "llama")
    assert read_shape(folder).quantised is None
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    assert read_shape(folder).quantised == "gptq"
    for options in ({}, {"only": ["norms"]}):
        assert "gptq" in refusal(lambda o=options: full.Method(**o).check(read_shape(folder))).found  # type: ignore[misc]


def test_the_shape_names_every_parameter_once(folder_of: Callable[[str], Path]) -> None:
    for family in ("llama", "gpt2", "mistral"):
        shape: Shape = read_shape(folder_of(family))
        assert shape.folder == folder_of(family)
        assert dict(shape.weights) == {n: tuple(p.shape) for n, p in base_of(folder_of(family)).named_parameters()}


@pytest.mark.parametrize("options", [{"layers": 1}, {"only": ["norms"]}])
def test_a_part_is_planned_with_a_higher_learning_rate(options: dict[str, Any]) -> None:
    for size in (10**8, 10**10):
        rate, why = full.Method(**options).learning_rate(size)
        assert rate > full.Method().learning_rate(size)[0]
        assert why


# Whole runs

@pytest.mark.parametrize("method", [
    {"kind": "ia3"}, {"kind": "peft", "type": "VERA", "options": {"r": 8}}, {"kind": "full", "only": ["norms"]},
], ids=lambda method: method["kind"])
def test_a_whole_run(method: dict[str, Any], folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = toy.labels_recipe(tmp_path, folder_of("llama"), method=method)
    certificate = toy.run(recipe, tmp_path / "run")
    losses = toy.losses(tmp_path / "run")
    assert losses[-1] < losses[0]
    assert certificate
    assert (tmp_path / "run" / Catalog("method", "tuneloop.methods", "Method").get(method["kind"]).artefact).is_dir()


@pytest.mark.parametrize(("tokens", "said"), [(None, "needs"), ("many", "'many'"), (0, "0"), (LONGEST, "positions")])
def test_virtual_tokens_of_peft_are_a_number_that_leaves_room(tokens: Any, said: str,
                                                              folder_of: Callable[[str], Path]) -> None:
    method = peft.Method(type="PREFIX_TUNING", options={} if tokens is None else {"num_virtual_tokens": tokens})
    error = refusal(lambda: method.check(read_shape(folder_of("llama"))))
    assert said in error.found
    assert "method.options.num_virtual_tokens" in error.fix
