"""Exports of a run's result, each checked to answer as the run's own model does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.record import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

PROMPTS = 16
TOLERANCE = 1e-3        # largest difference in a log-prob, fp32


def merged(folder: RunFolder, target: Path) -> float:
    """Write a plain Hugging Face model with the adapter merged in; returns the largest difference in a log-prob.

    The next token after some of the run's own test prompts is compared before and after. An export that differs by more
    than the tolerance is refused, and nothing is left at `target`.
    """
    from tuneloop.recipe import load
    from tuneloop.session import open_run
    from tuneloop.training.checkpoint import publish

    if target.exists():
        raise UserError(f"{target} exists already.", fix="choose another place with --out")
    model, tokenizer = open_run(folder)
    from tuneloop.types import Message

    rows = folder.lines("evaluation", "predictions.jsonl")[:PROMPTS] or [{"prompt": "Hello."}]
    prompts = tokenizer.encode([tokenizer.prompt_text([Message("user", row["prompt"])]) for row in rows])
    before = _next_logprobs(model, prompts)
    plain: Any = load(folder.file("recipe.yaml"), run_own_code=False).method.merge(model)
    difference = float((before - _next_logprobs(plain, prompts)).abs().max())
    if not difference <= TOLERANCE:
        raise UserError(f"The merged model differs from the tuned one by {difference:.2e} in a log-prob.",
                        wanted=f"at most {TOLERANCE:.0e}", fix="use the adapter itself; nothing was written")

    def write(into: Path) -> None:
        plain.save_pretrained(into)
        tokenizer.save(into)

    publish(target, write)
    return difference


def _next_logprobs(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        return torch.stack([model(input_ids=torch.tensor([p], device=device)).logits[0, -1].float().log_softmax(-1)
                            for p in prompts])
