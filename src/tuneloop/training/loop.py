"""The reference training loop, on accelerate.

The optimizer batch is defined in samples; micro-batches are cut by a token budget and never change the result, because
sums are divided by the objective's denominator over the whole step. Which samples a step sees and what dropout drops
follows from the seed and the step's number alone, so that resuming needs no state of samplers or generators.

With several processes each takes its share of a step's micro-batches; only the main one writes, reports and samples.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tuneloop.compute.model import ForestModel, to_batch
from tuneloop.compute.packing import build_forest, micro_batches
from tuneloop.errors import TrainingFailed
from tuneloop.inference.score import score
from tuneloop.objectives.base import Objective
from tuneloop.training import checkpoint
from tuneloop.training.checkpoint import Progress
from tuneloop.types import Batch, Forest, Rendered


@dataclass(frozen=True)
class Settings:
    """The resolved hyperparameters of a training."""

    steps: int
    batch_size: int                 # samples per optimizer step
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup: float                   # share of the steps
    weight_decay: float
    max_grad_norm: float
    token_budget: int               # unique tokens per micro-batch
    evaluate_every: int             # optimizer steps
    checkpoint_every: int           # optimizer steps
    patience: int                   # looks at the validation loss
    share: bool                     # share prefixes
    seed: int


Report = Callable[[dict[str, Any]], None]


def fit(model: ForestModel, objective: Objective, train: Sequence[Rendered], validation: Sequence[Rendered],
        settings: Settings, folder: Path, *, report: Report, look: Callable[[int], None]) -> Progress:
    """Train `model` in place and leave the best parameters in it.

    `folder` holds the checkpoints; training continues from the newest one there. `report` receives the lines of
    metrics.jsonl; `look` is called with the step after every validation, to sample answers. Raises TrainingFailed when
    the loss is not finite or a checkpoint cannot be written, KeyboardInterrupt after saving when the user interrupts.
    """
    from accelerate import Accelerator

    accelerator = Accelerator()
    main = accelerator.is_main_process
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(_parameter_groups(model, settings.weight_decay), lr=settings.learning_rate)
    progress = checkpoint.restore(folder, model, optimizer) or Progress()
    prepared, optimizer = accelerator.prepare(model, optimizer)
    with _interruptible() as interrupted:
        while progress.step < settings.steps and not progress.stopped_early:
            began = time.perf_counter()
            prepared.train()
            entry = _step(accelerator, prepared, optimizer, objective, train, settings, progress.step)
            progress = _after_step(progress, entry, time.perf_counter() - began)
            if main:
                report(entry | {"event": "step", "step": progress.step, "seconds": round(progress.seconds, 3),
                                "memory_bytes": progress.peak_memory_bytes})
            last = progress.step == settings.steps
            if progress.step % settings.evaluate_every == 0 or last:
                loss = _validation_loss(accelerator, model, validation, settings, progress.step)
                progress = _after_look(progress, loss, settings)
                if main:
                    _keep_and_tell(model, progress, loss, folder, report)
                    look(progress.step)
            stop = _anyone(accelerator, interrupted.is_set())
            if main and (progress.step % settings.checkpoint_every == 0 or last or stop or progress.stopped_early):
                checkpoint.save(folder, model, optimizer.optimizer, progress)
            if stop:
                raise KeyboardInterrupt
    accelerator.wait_for_everyone()
    if progress.best_step is not None:
        checkpoint.load_best(folder, model, progress.best_step)
    return progress


def _step(accelerator: Any, model: Any, optimizer: Any, objective: Objective, train: Sequence[Rendered],
          settings: Settings, step: int) -> dict[str, Any]:
    """One optimizer step; returns its line for metrics.jsonl."""
    began = time.perf_counter()
    torch.manual_seed(_seed_of_step(settings.seed, step, accelerator.process_index))
    rate = settings.learning_rate * schedule(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    chosen = [train[i] for i in samples_of_step(len(train), settings.batch_size, step, settings.seed)]
    forests = [build_forest([chosen[i] for i in cut], share=settings.share)
               for cut in micro_batches(chosen, settings.token_budget, share=settings.share)]
    denominator = sum(_denominator(f, objective) for f in forests)
    total = torch.zeros((), device=accelerator.device)
    for batch in _share_of_rank(forests, accelerator):
        loss = objective.loss(model(batch), batch).loss
        # gradients are averaged over processes, while the loss is a sum over all of them
        accelerator.backward(loss * (accelerator.num_processes / denominator))
        total += loss.detach()
    mean = float(accelerator.reduce(total, "sum")) / denominator
    norm = float(accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm))
    if not (math.isfinite(mean) and math.isfinite(norm)):
        raise TrainingFailed(_explain_not_finite(mean, norm, rate, step),
                             fix="lower training.learning_rate, or look at the rows with `tuneloop check`; earlier "
                                 "checkpoints are kept")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    tokens = sum(f.unique_tokens for f in forests)
    return {"loss": mean, "learning_rate": rate, "grad_norm": norm, "tokens": tokens,
            "logical_tokens": sum(f.logical_tokens for f in forests),
            "supervised_tokens": sum(len(f.targets) for f in forests), "micro_batches": len(forests),
            "tokens_per_second": round(tokens / (time.perf_counter() - began), 1)}


def _share_of_rank(forests: list[Forest], accelerator: Any) -> Iterator[Batch]:
    """This process's micro-batches. All processes run the same number: what is missing is repeated without weight."""
    world, rank = accelerator.num_processes, accelerator.process_index
    for turn in range(math.ceil(len(forests) / world)):
        i = turn * world + rank
        batch = to_batch(forests[i if i < len(forests) else 0], accelerator.device)
        yield batch if i < len(forests) else replace(batch, weights=torch.zeros_like(batch.weights))


def _denominator(forest: Forest, objective: Objective) -> float:
    if objective.denominator == "weight":
        return float(forest.weights.sum())
    return float(forest.branches if objective.denominator == "branch" else len(np.unique(forest.group_of)))


def _validation_loss(accelerator: Any, model: ForestModel, validation: Sequence[Rendered], settings: Settings,
                     step: int) -> float | None:
    """Mean negative log-likelihood per supervised token, the same number in all processes; None without rows."""
    from accelerate.utils import broadcast_object_list

    if not validation:
        return None
    scored = score(model, validation, token_budget=settings.token_budget, share=settings.share)
    loss: float = broadcast_object_list([-float(scored.total.sum()) / sum(r.supervised for r in validation)])[0]
    if not math.isfinite(loss):
        raise TrainingFailed(f"Training stopped after step {step}: the validation loss is {loss:g}. The usual cause is "
                             "a learning rate too high.",
                             fix="lower training.learning_rate; earlier checkpoints are kept")
    return loss


def _after_look(progress: Progress, loss: float | None, settings: Settings) -> Progress:
    """What a look at the validation loss changes: a new best, or patience that runs out."""
    if loss is None:
        return progress
    if progress.best_loss is None or loss < progress.best_loss:
        return replace(progress, best_step=progress.step, best_loss=loss, stale_looks=0)
    stale = progress.stale_looks + 1
    return replace(progress, stale_looks=stale,
                   stopped_early=stale >= settings.patience and progress.step < settings.steps)


def _keep_and_tell(model: ForestModel, progress: Progress, loss: float | None, folder: Path, report: Report) -> None:
    if loss is None:
        return
    best = progress.best_step == progress.step
    if best:
        checkpoint.save_best(folder, model, progress.step)
    report({"event": "validation", "step": progress.step, "loss": loss, "best": best,
            "seconds": round(progress.seconds, 3)})


def _anyone(accelerator: Any, flag: bool) -> bool:
    """Whether any process was asked to stop: they stop after the same step, or those left over would wait for ever."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), "sum") > 0)


def samples_of_step(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which of `count` samples the optimizer step sees: consecutive slices of one shuffle per epoch."""
    wanted = range(step * batch_size, (step + 1) * batch_size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(count)
              for epoch in {position // count for position in wanted}}
    return [int(orders[position // count][position % count]) for position in wanted]


def _seed_of_step(seed: int, step: int, process: int) -> int:
    """What dropout draws from: a number of its own for every step and process."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def schedule(step: int, settings: Settings) -> float:
    """Factor on the learning rate for the optimizer step `step`, counted from 0."""
    warmup = round(settings.warmup * settings.steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - warmup)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[settings.schedule]


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices; none for biases and norms, which are vectors."""
    parameters = list(checkpoint.trainable(model).values())
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]


def _after_step(progress: Progress, entry: dict[str, Any], seconds: float) -> Progress:
    return replace(progress, step=progress.step + 1, tokens=progress.tokens + entry["tokens"],
                   seconds=progress.seconds + seconds,
                   peak_memory_bytes=max(progress.peak_memory_bytes, memory_bytes()))


def memory_bytes() -> int:
    """Memory in use: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def _explain_not_finite(loss: float, norm: float, rate: float, step: int) -> str:
    return (f"Training stopped at step {step + 1}: the loss is {loss:g} and the gradient's norm {norm:g}. "
            f"The learning rate was {rate:.2g}. Usual causes: a learning rate too high, or weights that hold no finite "
            "numbers. The step was not applied.")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the step under way is finished and saved; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
