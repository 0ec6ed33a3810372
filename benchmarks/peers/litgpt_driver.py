"""LitGPT: the loop of `litgpt finetune_lora` on given tokens. Runs in its own environment; see protocol.py.

It has one way on a CPU: rows padded to the longest, logits of all tokens in chunks. Its loop does not clip gradients.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.finetune.lora import fit
from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.utils import load_checkpoint
from protocol import IGNORED, Gate, Job
from safetensors.torch import load_file

MODEL = "SmolLM2-135M-Instruct"
LAYERS = {"attn.proj": "self_attn.o_proj", "mlp.fc_1": "mlp.gate_proj", "mlp.fc_2": "mlp.up_proj",
          "mlp.proj": "mlp.down_proj"}


class Loader:
    """The forwards' rows as LitGPT's own loader gives them; the first of each step waits for its turn."""

    def __init__(self, forwards: list[list[dict[str, Any]]], gate: Gate | None, accumulate: int = 1) -> None:
        self.forwards, self.gate, self.accumulate = forwards, gate, accumulate
        self.dataset = [row for forward in forwards for row in forward]

    def __len__(self) -> int:
        return len(self.forwards)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, step in enumerate(self.forwards):
            if self.gate is not None and number % self.accumulate == 0:
                self.gate.opens()
            width = max(len(row["input_ids"]) for row in step)
            raw = torch.tensor([[len(row["input_ids"])] for row in step])
            yield {"input_ids": padded(step, "input_ids", width, 0), "labels": padded(step, "labels", width, IGNORED),
                   "token_counts": {"raw": raw, "raw_plus_prompt_template": raw}}


class Fabric(lightning.Fabric):     # type: ignore[misc]
    """Closes the gate where the loop logs a step."""

    gate: Gate

    def log_dict(self, metrics: Any, step: int | None = None) -> None:
        if "loss" in metrics:       # the throughput is logged apart
            self.gate.closes(float(metrics["loss"]))


def padded(step: list[dict[str, Any]], name: str, width: int, filler: int) -> torch.Tensor:
    return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in step])


def converted(job: Job) -> Path:
    """The base in LitGPT's layout, made once per job."""
    folder = job.folder / MODEL
    shutil.copytree(job.base, folder)
    convert_hf_checkpoint(folder, model_name=MODEL, dtype="float32")
    return folder


@torch.no_grad()
def start_from(adapter: Path, model: Any) -> None:
    """Give LitGPT's merged projections the initial weights of the separate ones."""
    given = load_file(adapter / "adapter_model.safetensors")
    parameters = dict(model.named_parameters())

    def part(layer: int, name: str, half: str) -> torch.Tensor:
        return given[f"base_model.model.model.layers.{layer}.{name}.lora_{half}.weight"]

    for name, parameter in parameters.items():
        if "lora_" not in name:
            continue
        half, block = name[-1], int(name.split(".h.")[1].split(".")[0])
        inner = name.split(f".h.{block}.")[1].rsplit(".lora_", 1)[0]
        if inner == "attn.qkv":
            parts = [part(block, f"self_attn.{p}_proj", half) for p in "qkv"]
            parameter.copy_(torch.cat(parts))
        else:
            parameter.copy_(part(block, LAYERS[inner], half))


def main() -> None:
    gate, job = Gate(), Job()
    folder = converted(job)
    config = Config.from_file(folder / "model_config.yaml", lora_r=16, lora_alpha=32, lora_dropout=0.0,
                              lora_query=True, lora_key=True, lora_value=True, lora_projection=True, lora_mlp=True,
                              lora_head=False)
    fabric = Fabric(devices=1, accelerator="cpu", precision="32-true")
    fabric.gate = gate
    fabric.launch()
    model = GPT(config)
    mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(trained, lr=job.learning_rate, weight_decay=0.0))
    load_checkpoint(fabric, model, folder / "lit_model.pth", strict=False)
    start_from(Path(job.adapter), model)
    rows = job.labelled()
    forwards = [rows[low:low + job.batch] for low in range(0, len(rows), job.batch)]
    few = [{name: values[-16:] for name, values in rows[0].items()}]        # its sanity check wants validation rows
    fit(fabric=fabric, model=model, optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda _: 1.0),
        train_dataloader=Loader(forwards, gate, job.accumulate), val_dataloader=Loader([few], None), devices=1,
        checkpoint_dir=folder, out_dir=job.folder / "out", data=None,
        train=TrainArgs(save_interval=None, log_interval=job.accumulate, global_batch_size=job.batch * job.accumulate,
                        micro_batch_size=job.batch, lr_warmup_steps=0, epochs=2, max_steps=len(job.steps),
                        max_seq_length=None),
        eval=EvalArgs(interval=10 ** 9, max_new_tokens=1, max_iters=1, initial_validation=False,
                      final_validation=False))


if __name__ == "__main__":
    main()
