"""TRL: SFTTrainer, DPOTrainer and GRPOTrainer on given tokens. Runs in TRL's own environment; see protocol.py.

Variant "equal": our flags. Variant "fastest": what its documentation offers for speed on a CPU besides: packing for
SFT, the reference model's log-probs computed beforehand for DPO (that pass is not timed).
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from protocol import Gate, Job, callback, telling
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer


def model_of(job: Job) -> Any:
    base = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.float32)
    return PeftModel.from_pretrained(base, job.adapter, is_trainable=True)


def sft(job: Job, gate: Gate) -> Any:
    flags = job.flags()
    if job.variant == "fastest":        # the rows of a forward become one packed row
        tokens = max(sum(len(row["ids"]) for row in step) for step in job.steps) // job.accumulate
        flags |= {"packing": True, "packing_strategy": "bfd", "max_length": tokens, "per_device_train_batch_size": 1}
    args = SFTConfig(**{"max_length": None} | flags)
    return telling(SFTTrainer, gate)(
        model=model_of(job), args=args, train_dataset=Dataset.from_list(job.labelled()),
        processing_class=AutoTokenizer.from_pretrained(job.base), callbacks=[callback(gate)])


def dpo(job: Job, gate: Gate) -> Any:
    class Tokens(telling(DPOTrainer, gate)):        # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset      # it holds tokens already

    pairs = []
    for better, worse in zip(job.rows[0::2], job.rows[1::2], strict=True):
        prompt = better["weights"].index(1)
        pairs.append({"prompt_ids": better["ids"][:prompt], "chosen_ids": better["ids"][prompt:],
                      "rejected_ids": worse["ids"][prompt:]})
    flags = job.flags() | {"per_device_train_batch_size": job.batch // 2, "beta": job.constants["beta"],
                           "max_length": None, "precompute_ref_log_probs": job.variant == "fastest"}
    return Tokens(model=model_of(job), args=DPOConfig(**flags), train_dataset=Dataset.from_list(pairs),
                  processing_class=AutoTokenizer.from_pretrained(job.base), callbacks=[callback(gate)])


def grpo(job: Job, gate: Gate) -> Any:
    class Given(telling(GRPOTrainer, gate)):        # type: ignore[misc]
        _done = 0
        _get_train_sampler = GRPOTrainer._get_train_sampler

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            step = job.steps[self._done]
            self._done += 1
            return rollouts(step)

    flags = job.flags() | {
        "num_generations": job.batch, "beta": 0.0, "epsilon": job.constants["epsilon"], "loss_type": "grpo",
        "steps_per_generation": 1, "max_completion_length": 64}
    return Given(model=model_of(job), args=GRPOConfig(**flags), reward_funcs=[lambda **_: [0.0]],
                 train_dataset=Dataset.from_list([{"prompt": "unused"}] * len(job.steps)),
                 processing_class=AutoTokenizer.from_pretrained(job.base), callbacks=[callback(gate)])


def rollouts(step: list[dict[str, Any]]) -> dict[str, Any]:
    """A step's rows in the form that the trainer's own generation gives them; answers are equally long."""
    ids = torch.tensor([row["ids"] for row in step])
    prompt = step[0]["weights"].index(1)
    reward = torch.tensor([row["reward"] for row in step])
    return {"prompt_ids": ids[:, :prompt], "prompt_mask": torch.ones_like(ids[:, :prompt]),
            "completion_ids": ids[:, prompt:], "completion_mask": torch.ones_like(ids[:, prompt:]),
            "advantages": (reward - reward.mean()) / (reward.std() + 1e-4),
            "old_per_token_logps": torch.tensor([row["old_logprobs"] for row in step]),
            "num_items_in_batch": torch.tensor(ids[:, prompt:].numel())}


def main() -> None:
    gate, job = Gate(), Job()
    {"sft": sft, "dpo": dpo, "grpo": grpo}[job.kind](job, gate).train()


if __name__ == "__main__":
    main()
