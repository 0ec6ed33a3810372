"""One command for a GPU, under ten minutes: prefix sharing in SFT with LoRA on models of 1B and 8B parameters, bf16.

`python benchmarks/gpu.py [--only 1b] [--repeats N]`. Weights are random, in the shapes of Llama 3, so nothing is
downloaded. The other side is transformers + PEFT as in baseline.py; TRL with Liger's kernels and Unsloth are measured
where they can be imported. Goals: 2.5 times the other side, and 45 % of the device's published bf16 rate in FLOPs that
are executed. `--tiny` runs the same code on toy shapes wherever torch runs, to see that it works; such figures mean
nothing and are not kept.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from baseline import Padded
from measure import Disagreement, Row, check, interval, keep, markdown, take_turns
from sides import LEARNING_RATE, RANK, TOKEN_BUDGET, Initial, Ours, Side, Step
from workloads import Shape, sft

from tuneloop.compute.cut import cut_step
from tuneloop.methods.lora import Method
from tuneloop.objectives.sft import Objective
from tuneloop.types import Group

PUBLISHED = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}    # dense bf16, FLOP/s
AGREE_BF16 = 2e-2


@dataclass(frozen=True)
class Llama:
    """A shape of the family, and the step it is measured on."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    shape: Shape


MODELS = {"1b": Llama(2048, 16, 32, 8, 8192, 128_256, Shape(1024, 64, 64, 16)),
          "8b": Llama(4096, 32, 32, 8, 14_336, 128_256, Shape(1024, 64, 64, 8))}
TINY = {"tiny": Llama(128, 2, 4, 2, 256, 40_960, Shape(96, 8, 8, 4))}


def build(kind: Llama, device: torch.device) -> Any:
    """A random model of that shape with LoRA on all linear layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=kind.hidden, num_hidden_layers=kind.layers, num_attention_heads=kind.heads,
                         num_key_value_heads=kind.key_heads, intermediate_size=kind.inner, vocab_size=kind.vocabulary,
                         max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 5e5},
                         tie_word_embeddings=kind.hidden < 4096, attn_implementation="sdpa")
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            base = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return Method(rank=RANK).apply(base.requires_grad_(False), seed=0).train()


def twin(model: Any) -> Any:
    """A second model with adapters of its own on the same frozen weights."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})


def published_rate(device: torch.device) -> tuple[float, str]:
    """FLOP/s that utilisation is told against, and where the figure is from."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "this CPU"
    for part, rate in PUBLISHED.items():
        if part in name:
            return rate, f"{rate / 1e12:.0f} TFLOP/s published for {part}"
    size = 8192 if device.type == "cuda" else 512
    x = torch.randn(size, size, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=device)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        float((x @ x)[0, 0])
        rates.append(2 * size ** 3 / (time.perf_counter() - began))
    return max(rates), f"{max(rates) / 1e12:.2f} TFLOP/s measured on {name}"


def measured(name: str, kind: Llama, device: torch.device, repeats: int) -> list[Row]:
    """Ours against transformers + PEFT on one model, and how busy the device is."""
    model = build(kind, device)
    theirs, ours = Padded(twin(model), "sft", LEARNING_RATE), Ours(model, Objective(), LEARNING_RATE)
    initial = Initial.of(model)
    sides: list[Side] = [theirs, ours]
    make = sft(kind.shape)
    for side in sides:
        side.step(make(0))
        initial.restore(side.model)
        side.reset()
    ours.counting = True
    other, own = take_turns(sides, [make(1 + i) for i in range(repeats)])
    difference = check(other, own, tolerance=AGREE_BF16)
    workload = f"SFT, Llama {name}, prefix {kind.shape.prefix} × {kind.shape.rows}"
    ratio, low, high = interval([a.seconds / b.seconds for a, b in zip(other, own, strict=True)])
    rows = [Row(workload, theirs.name, ratio, low, high, 2.5, statistics.median(s.seconds for s in other),
                statistics.median(s.seconds for s in own), difference, "bf16")]
    rate, source = published_rate(device)
    pieces = cut_step([r for g in make(1) for r in g.branches], TOKEN_BUDGET)
    busy, low, high = interval([ours.meter.flops(pieces) / s.seconds / rate for s in own])
    rows.append(Row(workload, "rate of the device", busy, low, high, 0.45, note=f"executed FLOPs; {source}"))
    if device.type == "cuda":
        rows.append(memory_row(workload, sides, make(1)))
    initial.restore(ours.model)
    return rows + peers(workload, twin(model), [make(1 + i) for i in range(repeats)], own)


def memory_row(workload: str, sides: Sequence[Side], groups: list[Group]) -> Row:
    """Peak memory of a step above what is allocated before it."""
    peaks = []
    for side in sides:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        side.step(groups)
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**30)
    ratio = peaks[1] / peaks[0]
    return Row(workload, "peak memory of transformers + PEFT", ratio, ratio, ratio, 0.4, peaks[0], peaks[1],
               at_most=True, note="ours over theirs, above the loaded models; GiB in place of seconds")


def peers(workload: str, model: Any, steps: list[list[Group]], own: list[Step]) -> list[Row]:
    """TRL and Unsloth, where they are; after our own steps, not in turns."""
    rows = []
    for name, module, run in (("TRL with Liger", "trl", with_trl), ("Unsloth", "unsloth", with_unsloth)):
        if importlib.util.find_spec(module) is None:
            rows.append(Row(workload, name, None, None, None, None, note=f"not run: {module} is not installed"))
            continue
        try:
            label, other = run(model, steps)
            difference = check(other, own, tolerance=AGREE_BF16)
            ratio, low, high = interval([a.seconds / b.seconds for a, b in zip(other[1:], own[1:], strict=True)])
            rows.append(Row(workload, label, ratio, low, high, 2.5, statistics.median(s.seconds for s in other[1:]),
                            statistics.median(s.seconds for s in own[1:]), difference, "not in turns"))
        except Disagreement as error:
            rows.append(Row(workload, name, None, None, None, None, note=f"not counted: {error}"))
        except Exception as error:      # whatever another tool raises is told, and the rest goes on
            rows.append(Row(workload, name, None, None, None, None, note=f"not run: {type(error).__name__}: {error}"))
    return rows


def with_trl(model: Any, steps: list[list[Group]]) -> tuple[str, list[Step]]:
    """TRL's SFTTrainer from the same adapters, with Liger's kernels where they can be imported."""
    datasets, trl = _module("datasets"), _module("trl")
    callback, trainer = _module("transformers").TrainerCallback, trl.SFTTrainer
    done: list[Step] = []
    losses: list[float] = []
    began = 0.0

    class Clock(callback):     # type: ignore[misc, valid-type]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            nonlocal began
            began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            done.append(Step(losses[-1], None, time.perf_counter() - began))

    class Telling(trainer):     # type: ignore[misc, valid-type]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            result = super().compute_loss(*args, **kwargs)
            losses.append(float((result[0] if isinstance(result, tuple) else result).detach()))
            return result

    rows = [{"input_ids": r.ids.tolist(), "labels": [int(t) if w else -100
                                                     for t, w in zip(r.ids, r.weights, strict=True)]}
            for groups in steps for g in groups for r in g.branches]
    liger = torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None
    with tempfile.TemporaryDirectory() as out:
        args = trl.SFTConfig(
            output_dir=out, per_device_train_batch_size=len(steps[0]), max_steps=len(steps),
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", weight_decay=0.0, gradient_checkpointing=False,
            bf16=torch.cuda.is_available(), max_length=None, save_strategy="no", report_to="none",
            train_sampling_strategy="sequential", use_liger_kernel=liger, use_cpu=not torch.cuda.is_available())
        Telling(model=model, args=args, train_dataset=datasets.Dataset.from_list(rows),
                processing_class=_no_words(), callbacks=[Clock()]).train()
    return "TRL with Liger" if liger else "TRL (Liger is not installed)", done


def _module(name: str) -> Any:
    """A package that is no dependency of ours."""
    return importlib.import_module(name)


def _no_words() -> Any:
    """A tokenizer that trainers ask for and that tokenised rows do not need."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    return _module("transformers").PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>",
                                                           eos_token="</s>")


def with_unsloth(model: Any, steps: list[list[Group]]) -> tuple[str, list[Step]]:
    """Unsloth's kernels under a plain loop, from the same weights. It loads from a folder and patches transformers."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    loader = _module("unsloth").FastLanguageModel
    adapters = get_peft_model_state_dict(model)
    with tempfile.TemporaryDirectory() as folder:
        copy.deepcopy(model).unload().save_pretrained(folder)
        _no_words().save_pretrained(folder)
        fast, _ = loader.from_pretrained(folder, dtype=torch.bfloat16, load_in_4bit=False, max_seq_length=2048)
    fast = loader.get_peft_model(
        fast, r=RANK, lora_alpha=2 * RANK, lora_dropout=0, use_gradient_checkpointing=False, target_modules=[
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    set_peft_model_state_dict(fast, adapters)
    trained = [p for p in fast.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    done = []
    for groups in steps:
        rows = [r for g in groups for r in g.branches]      # of equal length here
        ids = torch.tensor([r.ids.tolist() for r in rows], device="cuda")
        labels = ids.masked_fill(torch.tensor([r.weights.tolist() for r in rows], device="cuda") == 0, -100)
        began = time.perf_counter()
        loss = fast(input_ids=ids, labels=labels).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done.append(Step(float(loss.detach()), float(norm), time.perf_counter() - began))
    return "Unsloth", done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side, at least 2")
    parser.add_argument("--tiny", action="store_true", help="toy shapes, also without a GPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"gpu-{date.today()}.json")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.tiny:
        parser.exit(0, "not run: torch finds no CUDA device here. --tiny shows on toy shapes that the code works.\n")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = TINY if given.tiny else {n: m for n, m in MODELS.items() if given.only in (None, n)}
    rows = []
    for name, kind in models.items():
        for row in measured(name, kind, device, max(2, given.repeats)):
            rows.append(row)
            if not given.tiny:
                keep(row, given.out, {"device": torch.cuda.get_device_name(), "torch": torch.__version__})
    print(markdown(rows))


if __name__ == "__main__":
    main()
