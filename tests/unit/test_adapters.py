"""Many adapters on one base: each answers as it does alone, whatever was loaded, used, swapped or removed before."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_base
from tuneloop.adapters import HOW, Adapters, require_same_base, write_belonging, write_combined
from tuneloop.errors import UserError
from tuneloop.inference.local import generate
from tuneloop.models.load import load_model
from tuneloop.models.shape import weights_sha256
from tuneloop.types import Message, Sampling

PROMPTS = [[Message("user", text)] for text in ("Where is my order?", "Hi", "Is this film good, or is it rather bad?",
                                                "1 2 3", "The plot is thin", "def add")]
IDS = torch.tensor([[1, 20, 30, 40, 50]])
SAMPLING = Sampling(max_new_tokens=6)


def config_of(kind: str) -> Any:
    from peft import IA3Config, LoraConfig, PromptTuningConfig

    lora: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return {
        "lora": lambda: LoraConfig(**lora),
        "wide": lambda: LoraConfig(**lora | {"r": 8, "lora_alpha": 4}),
        "rooted": lambda: LoraConfig(**lora, use_rslora=True),
        "more": lambda: LoraConfig(**lora | {"target_modules": ["q_proj", "v_proj", "up_proj"]}),
        "dora": lambda: LoraConfig(**lora, use_dora=True),
        "saved": lambda: LoraConfig(**lora, modules_to_save=["norm"]),
        "ia3": lambda: IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
                                 task_type="CAUSAL_LM"),
        "prompt": lambda: PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    }[kind]()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Callable[[str], Path]:
    """The folder of an adapter with random values, such as `lora1`: a kind and a seed."""
    from peft import get_peft_model

    root = tmp_path_factory.mktemp("adapters")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            base: Any = load_model(tiny_llama, dtype=torch.float32)
            model = get_peft_model(base, config_of(name[:-1]))
            torch.manual_seed(int(name[-1]))
            with torch.no_grad():
                for p in model.parameters():
                    if p.requires_grad:
                        p.add_(torch.randn_like(p) * 0.4)
            model.save_pretrained(str(root / name))
        return root / name
    return folder


def alone(base: Path, folder: Path | None) -> Any:
    from peft import PeftModel

    model: Any = load_model(base, dtype=torch.float32)
    return model if folder is None else PeftModel.from_pretrained(model, str(folder)).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits[:, -1]
    return found


def holding(base: Path, made: Callable[[str], Path], *names: str) -> Adapters:
    adapters = Adapters(base, dtype=torch.float32)
    for name in names:
        adapters.load(name, made(name))
    return adapters


def assert_as_alone(adapters: Adapters, base: Path, made: Callable[[str], Path], name: str | None) -> None:
    wanted = logits(alone(base, made(name) if name else None))
    assert torch.allclose(logits(adapters.use(name)), wanted, atol=1e-5), name


KINDS = ("lora1", "dora1", "lora2", "ia31", "saved1", "prompt1", "saved2", "wide1")


def test_each_adapter_answers_as_it_does_alone_in_any_order(tiny_llama: Path, made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, *KINDS)
    assert adapters.names == list(KINDS)
    for name in (*KINDS, None, *reversed(KINDS), None, "prompt1", None, "lora2", None, "lora1"):
        assert_as_alone(adapters, tiny_llama, made, name)
    assert not any(p.requires_grad for p in adapters.model.parameters())
    different = [logits(alone(tiny_llama, made(name))) for name in KINDS]
    assert all((a - b).abs().max() > 1e-2 for i, a in enumerate(different) for b in different[:i])


def test_a_prompt_is_answered_by_its_own_adapter(tiny_llama: Path, made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, "lora1", "lora2", "dora1", "saved1", "ia31")
    names = ["lora1", None, "lora2", "dora1", "saved1", "ia31"]
    for turn in range(3):
        asked = names[turn:] + names[:turn]
        adapters.use("lora2")
        answers = adapters.generate(PROMPTS, asked, SAMPLING)
        assert adapters.active == "lora2"
        for name, prompt, answer in zip(asked, PROMPTS, answers, strict=True):
            model = alone(tiny_llama, made(name) if name else None)
            assert answer == generate(model, adapters.tokenizer, [prompt], SAMPLING)[0], name


def test_plain_lora_shares_a_batch_and_others_never_do(tiny_llama: Path, made: Callable[[str], Path],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    import tuneloop.inference.local as module

    adapters = holding(tiny_llama, made, "lora1", "lora2", "dora1", "saved1")
    seen: list[int] = []
    real = module.answer
    monkeypatch.setattr(module, "answer", lambda e, p, s, n: seen.append(len(p)) or real(e, p, s, n))
    adapters.generate(PROMPTS, ["lora1", "dora1", "lora2", "saved1", "dora1", None], SAMPLING)
    assert sorted(seen) == [1, 2, 3]


def test_more_prompts_than_a_batch_keep_their_adapters(tiny_llama: Path, made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, "lora1", "lora2")
    prompts = [[Message("user", "order " * (i * 7 % 23))] for i in range(37)]
    names = [["lora1", "lora2", None][i % 3] for i in range(37)]
    answers = adapters.generate(prompts, names, SAMPLING)
    for name in ("lora1", "lora2", None):
        rows = [i for i in range(37) if names[i] == name]
        wanted = generate(alone(tiny_llama, made(name) if name else None), adapters.tokenizer,
                          [prompts[i] for i in rows], SAMPLING)
        assert [answers[i].text for i in rows] == [w.text for w in wanted]


@pytest.mark.parametrize("new", ["lora2", "wide2", "more2", "dora2", "ia32"])
@pytest.mark.parametrize("old", ["lora1", "dora1"])
def test_a_swapped_adapter_answers_as_the_new_one(old: str, new: str, tiny_llama: Path,
                                                  made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, old, "lora3")
    adapters.use(old)
    adapters.swap(old, made(new))
    assert adapters.active == old
    wanted = logits(alone(tiny_llama, made(new)))
    assert torch.allclose(logits(adapters.model), wanted, atol=1e-5)
    assert_as_alone(adapters, tiny_llama, made, "lora3")
    adapters.swap(old, made(old))
    assert adapters.active == "lora3"
    assert_as_alone(adapters, tiny_llama, made, old)


@pytest.mark.parametrize("kind", ["lora1", "dora1"])
def test_a_removed_adapter_leaves_nothing(kind: str, tiny_llama: Path, made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, kind, "lora2")
    adapters.use(kind)
    adapters.remove(kind)
    assert adapters.names == ["lora2"]
    assert adapters.active is None
    assert torch.allclose(logits(adapters.model), logits(alone(tiny_llama, None)), atol=1e-6)
    assert_as_alone(adapters, tiny_llama, made, "lora2")
    with pytest.raises(UserError, match="no adapter"):
        adapters.use(kind)
    adapters.load(kind, made(kind))
    assert_as_alone(adapters, tiny_llama, made, kind)


# --- combining -------------------------------------------------------------------------------------------------------

def updates(model: Any, name: str) -> dict[str, torch.Tensor]:
    return {n: m.get_delta_weight(name) for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}


@pytest.mark.parametrize("first", ["lora1", "rooted1"])
@pytest.mark.parametrize("how", ["cat", "svd"])
def test_a_combination_is_the_weighted_sum(how: str, first: str, tiny_llama: Path,
                                           made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, first, "wide2")
    adapters.combine("both", [first, "wide2"], [0.7, 0.3], how)
    assert adapters.active is None      # as it was before
    model = adapters.use("both")
    one, other, both = (updates(model, name) for name in (first, "wide2", "both"))
    for name in both:
        wanted = 0.7 * one[name] + 0.3 * other[name]
        error = float((both[name] - wanted).norm())
        if how == "svd":        # the best of rank 8
            assert error == pytest.approx(math.sqrt(float((torch.linalg.svdvals(wanted)[8:] ** 2).sum())), abs=1e-3)
        else:
            assert error < 1e-4


@pytest.mark.parametrize("how", HOW)
def test_every_way_gives_another_adapter_that_lives_on(how: str, tiny_llama: Path,
                                                       made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, "lora1", "lora2", "dora1")
    adapters.combine("both", ["lora1", "lora2"], [0.5, 0.5], how)
    wanted = logits(adapters.use("both"))
    assert all((wanted - logits(alone(tiny_llama, made(n)))).abs().max() > 1e-4 for n in ("lora1", "lora2"))
    assert_as_alone(adapters, tiny_llama, made, "dora1")       # for which the others are put away
    assert torch.allclose(logits(adapters.use("both")), wanted, atol=1e-5)
    again = holding(tiny_llama, made, "lora1", "lora2")
    again.combine("both", ["lora1", "lora2"], [0.5, 0.5], how)
    assert torch.allclose(logits(again.use("both")), wanted, atol=1e-5)       # dare drops at random, but by a seed


@pytest.mark.parametrize(("names", "weights", "how", "said"), [
    (["lora1", "wide1"], [0.5, 0.5], "linear", "wide1 has 8"),
    (["lora1", "wide1"], [0.5, 0.5], "ties", "equal ranks"),
    (["lora1", "dora1"], [0.5, 0.5], "svd", "dora1 is LoRA with use_dora"),
    (["lora1", "ia31"], [0.5, 0.5], "svd", "ia31 is IA3"),
    (["lora1", "lora2"], [0.5], "svd", "one finite weight for each"),
    (["lora1", "lora2"], [0.5, math.nan], "svd", "weights"),
    (["lora1", "lora2"], [0.0, 0.0], "svd", "Every weight is 0"),
    (["lora1"], [1.0], "svd", "two adapters"),
    (["lora1", "lora2"], [0.5, 0.5], "average", "no way to combine"),
    (["lora1", "lora9"], [0.5, 0.5], "svd", "no adapter 'lora9'"),
])
def test_what_cannot_be_combined(names: list[str], weights: list[float], how: str, said: str, tiny_llama: Path,
                                 made: Callable[[str], Path]) -> None:
    adapters = holding(tiny_llama, made, "lora1", "lora2", "wide1", "dora1", "ia31")
    with pytest.raises(UserError) as caught:
        adapters.combine("new", names, weights, how)
    assert said in caught.value.text
    assert "new" not in adapters.names


def test_a_combined_adapter_is_written_for_plain_peft(tiny_llama: Path, made: Callable[[str], Path],
                                                      tmp_path: Path) -> None:
    write_combined(tiny_llama, [made("lora1"), made("lora2")], [1.0, 0.5], "cat", tmp_path / "out")
    adapters = holding(tiny_llama, made, "lora1", "lora2")
    adapters.combine("both", ["lora1", "lora2"], [1.0, 0.5], "cat")
    assert torch.allclose(logits(alone(tiny_llama, tmp_path / "out")), logits(adapters.use("both")), atol=1e-5)
    require_same_base(tmp_path / "out", tiny_llama)
    with pytest.raises(UserError, match="exists already"):
        write_combined(tiny_llama, [made("lora1"), made("lora2")], [1.0, 0.5], "cat", tmp_path / "out")


# --- refusals --------------------------------------------------------------------------------------------------------

def test_an_adapter_of_another_base_is_refused_with_both_hashes(tiny_llama: Path, made: Callable[[str], Path],
                                                                tmp_path: Path) -> None:
    import shutil

    other = tiny_base(tmp_path / "other", seed=5)
    folder = shutil.copytree(made("lora1"), tmp_path / "adapter")
    write_belonging(folder, "the/first", weights_sha256(tiny_llama), 1, {"kind": "lora"})
    Adapters(tiny_llama).load("fits", folder)
    adapters = Adapters(other)
    with pytest.raises(UserError) as caught:
        adapters.load("x", folder)
    assert weights_sha256(tiny_llama)[:12] in caught.value.found
    assert weights_sha256(other)[:12] in caught.value.found
    assert "the/first" in caught.value.fix
    adapters.load("x", made("lora1"))       # says nothing of its base
    with pytest.raises(UserError):
        adapters.swap("x", folder)


def test_what_cannot_be_loaded_leaves_the_rest_as_it_was(tiny_llama: Path, made: Callable[[str], Path],
                                                         tmp_path: Path) -> None:
    adapters = holding(tiny_llama, made, "lora1")
    with pytest.raises(UserError, match="called"):
        adapters.load("lora1", made("lora2"))
    with pytest.raises(UserError, match="called"):
        adapters.load("a.b", made("lora2"))
    with pytest.raises(UserError, match="no adapter"):
        adapters.load("empty", tmp_path)
    wider = tiny_base(tmp_path / "wider", hidden_size=64)
    narrow = Adapters(wider)
    with pytest.raises(UserError, match="does not fit"):
        narrow.load("x", made("lora1"))
    assert narrow.names == []
    assert torch.allclose(logits(narrow.use(None)), logits(alone(wider, None)), atol=1e-6)
    assert adapters.names == ["lora1"]
    assert_as_alone(adapters, tiny_llama, made, "lora1")
    with pytest.raises(UserError, match="2 prompts"):
        adapters.generate(PROMPTS[:2], ["lora1"], SAMPLING)
