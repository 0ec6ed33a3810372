"""LLaMA-Factory: its own SFT workflow on given tokens. Runs in its own environment; see protocol.py.

Variant "equal": our flags. Variant "fastest": what its documentation offers for speed on a CPU besides: packing without
contamination (`neat_packing`), here by its own collator on rows that were packed beforehand.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

from datasets import Dataset, DatasetDict
from protocol import Gate, Job, callback, telling

# It imports torchaudio for sounds; the package index has no build that loads beside torch's CPU build. Text needs none.
sys.modules["torchaudio"] = types.ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)

from llamafactory.hparams import get_train_args  # noqa: E402
from llamafactory.train.sft import workflow  # noqa: E402


def rows(job: Job) -> list[dict[str, list[int]]]:
    """Rows as the tokenised data sets of LLaMA-Factory hold them; packed, the mask numbers the rows within one."""
    plain = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in job.labelled()]
    if job.variant == "equal":
        return plain
    packed = []
    for low in range(0, len(plain), job.batch):
        together: dict[str, list[int]] = {"input_ids": [], "labels": [], "attention_mask": [], "position_ids": []}
        for number, row in enumerate(plain[low:low + job.batch], 1):
            count = len(row["input_ids"])
            together["input_ids"] += row["input_ids"]
            together["labels"] += row["labels"]
            together["attention_mask"] += [number] * count
            together["position_ids"] += range(count)
        packed.append(together)
    return packed


def main() -> None:
    gate, job = Gate(), Job()
    tokens = job.folder / "tokens"
    DatasetDict({"train": Dataset.from_list(rows(job))}).save_to_disk(str(tokens))
    flags: dict[str, Any] = job.flags() | {
        "model_name_or_path": job.base, "adapter_name_or_path": job.adapter, "stage": "sft", "do_train": True,
        "finetuning_type": "lora", "lora_rank": 16, "lora_target": "all", "lora_dropout": 0.0, "template": "empty",
        "dataset": "given", "tokenized_path": str(tokens), "disable_shuffling": True, "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True, "cutoff_len": 8192, "overwrite_output_dir": True}
    flags.pop("gradient_checkpointing")
    if job.variant == "fastest":
        flags |= {"neat_packing": True, "packing": True, "per_device_train_batch_size": 1}
    workflow.CustomSeq2SeqTrainer = telling(workflow.CustomSeq2SeqTrainer, gate)
    model, data, training, finetuning, generating = get_train_args(flags)
    workflow.run_sft(model, data, training, finetuning, generating, callbacks=[callback(gate)])


if __name__ == "__main__":
    main()
