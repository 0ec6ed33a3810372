"""A check that needs the base's weights: answers that surprise it, or that it expects anyway."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tuneloop.data.checks import base
from tuneloop.data.checks._sample import RowSample
from tuneloop.data.checks.base import Chunk
from tuneloop.data.checks.surprising import SAMPLED, surprising
from tuneloop.data.findings import Finding
from tuneloop.data.groups import group_all, preferred
from tuneloop.types import Conversation, Group, Learnt, Preference, Rated, Rendered, Rollout

if TYPE_CHECKING:
    from tuneloop.models.tokenizer import ChatTokenizer

TOKEN_BUDGET = 4096


class Perplexity(base.Check):
    """Negative log-likelihood per token of the answers of a sample of rows, by the base; far ones are told."""

    about: ClassVar[str] = f"answers that the base finds far likelier or less likely than others, on {SAMPLED} rows"

    def __init__(self, model: Path, tokenizer: ChatTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._sample: RowSample[Learnt | None] = RowSample(SAMPLED)

    def see(self, chunk: Chunk) -> None:
        if chunk.part != "evaluation":
            self._sample.add(len(chunk), lambda at: sample if isinstance(
                sample := chunk.samples[at], Conversation | Preference | Rated | Rollout) else None)

    def findings(self) -> list[Finding]:
        samples = [sample for sample in self._sample.kept if sample is not None]
        rendered = [(sample, preferred(sample, group)) for sample, group
                    in zip(samples, group_all(samples, self.tokenizer), strict=True) if isinstance(group, Group)]
        short = [(sample, tokens) for sample, tokens in rendered if len(tokens) <= self.tokenizer.max_length]
        return surprising([sample for sample, _ in short], _nll_per_token(self.model, [tokens for _, tokens in short]))


def _nll_per_token(path: Path, rows: list[Rendered]) -> list[float]:
    from tuneloop.compute.check import choose_packing
    from tuneloop.compute.model import ForestModel
    from tuneloop.inference.score import score
    from tuneloop.models.load import load_model

    if not rows:
        return []
    model = load_model(path)
    packing = choose_packing(model, sorted(rows, key=len))
    scored = score(ForestModel(model, packing.mode), rows, token_budget=TOKEN_BUDGET, share=packing.share)
    return [-total / row.supervised for total, row in zip(scored.total.tolist(), rows, strict=True)]
