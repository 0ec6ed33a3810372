"""What a peer's driver and the benchmark say to each other; imported in the peer's environment: needs torch alone.

The driver gets a folder: job.json and the initial adapter. Before every optimizer step it waits for a line on its
standard input; after it, it answers with a line of JSON. All else that a library prints goes to its standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

IGNORED = -100


class Gate:
    """Steps one at a time, when the benchmark says so, and timed."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._began = 0.0
        self.losses: list[float] = []       # of the micro-batches of the step under way

    def opens(self) -> None:
        """Wait for the turn; the step begins."""
        if not sys.stdin.readline():
            raise SystemExit("the benchmark has gone")
        self.losses.clear()
        self._began = time.perf_counter()

    def closes(self, loss: float | None = None) -> None:
        """The step is done; its loss is given, or the sum of `losses`, which trainers divide by the step's tokens."""
        seconds = time.perf_counter() - self._began
        found = sum(self.losses) if loss is None else loss
        self._answers.write(json.dumps({"seconds": seconds, "loss": found}) + "\n")


class Job:
    """What to train: rows per step, flags, the base and where the initial adapter lies."""

    def __init__(self) -> None:
        import torch

        self.folder = Path(sys.argv[1])
        told: dict[str, Any] = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        self.kind: str = told["kind"]
        self.variant: str = told["variant"]
        self.base: str = told["base"]
        self.adapter = str(self.folder / "adapter")
        self.learning_rate: float = told["learning_rate"]
        self.constants: dict[str, float] = told["constants"]
        self.steps: list[list[dict[str, Any]]] = told["steps"]      # rows: ids, weights, and what the kind needs
        self.accumulate: int = told["accumulate"]                   # forwards that a step's rows are spread over
        torch.set_num_threads(told["threads"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for step in self.steps for row in step]

    @property
    def batch(self) -> int:
        """Rows of a forward."""
        return len(self.steps[0]) // self.accumulate

    def labelled(self) -> list[dict[str, list[int]]]:
        """Rows of instruction tuning as `input_ids` and `labels`."""
        return [{"input_ids": row["ids"],
                 "labels": [token if weight else IGNORED
                            for token, weight in zip(row["ids"], row["weights"], strict=True)]}
                for row in self.rows]

    def flags(self) -> dict[str, Any]:
        """What trainers built on transformers are told, equal to what we do ourselves."""
        return {
            "output_dir": str(self.folder / "out"), "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulate, "max_steps": len(self.steps),
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0,
            "optim": "adamw_torch", "gradient_checkpointing": False, "bf16": False, "save_strategy": "no",
            "logging_steps": 1, "report_to": "none", "seed": 0, "dataloader_num_workers": 0, "use_cpu": True,
        }


def callback(gate: Gate) -> Any:
    """Gives a trainer of transformers its turns."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):       # type: ignore[misc]    # the peer's own version of transformers
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            gate.opens()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            gate.closes()

    return Turns()


def telling(trainer: type[Any], gate: Gate) -> type[Any]:
    """The trainer, in the rows' own order, with every micro-batch's loss noted in full precision."""
    import torch

    class Telling(trainer):     # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            result = super().compute_loss(*args, **kwargs)
            gate.losses.append(float((result[0] if isinstance(result, tuple) else result).detach()))
            return result

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    return Telling
