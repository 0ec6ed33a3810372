"""What an objective needs beside the rows: a scalar head, and columns from models that do not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.errors import UserError
from tuneloop.inference.columns import ColumnCache, Scorer, with_columns
from tuneloop.models import cache
from tuneloop.models.load import load_model
from tuneloop.models.resolve import resolve
from tuneloop.models.shape import weights_sha256
from tuneloop.models.tokenizer import ChatTokenizer
from tuneloop.types import Group

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.objectives.base import Objective
    from tuneloop.session import Session

SCALARS = frozenset({"scores", "values"})
REWARD_FILE, VALUE_FILE = "reward_head.safetensors", "value_head.safetensors"


def add_columns(session: Session, groups: Sequence[Group]) -> list[Group]:
    """The groups with every column that the objective needs. The session's model must still be the base."""
    objective, found = session.ready.recipe.objective, list(groups)
    if "reference_logprobs" in objective.needs:
        found = _ask(session, found, getattr(objective, "reference", None), {"logprobs": "reference_logprobs"})
    if "old_logprobs" in objective.needs:       # rollouts that do not say who wrote them: taken as the base's own
        found = _ask(session, found, None, {"logprobs": "old_logprobs"})
    if "teacher" in objective.needs:
        names = {"top_ids": "select_ids", "top_logprobs": "teacher_logprobs"}
        found = _ask(session, found, objective.teacher, names, top=objective.top_k)  # type: ignore[attr-defined]
    return found


def add_old_values(model: ForestModel, groups: Sequence[Group], token_budget: int, share: bool) -> list[Group]:
    """What the fresh value head says of given rollouts, as (supervised,) columns `old_values`."""
    import numpy as np
    import torch

    from tuneloop.compute.cut import cut_step
    from tuneloop.compute.passes import passes

    samples = [r for group in groups for r in group.branches]
    values: dict[int, Any] = {}
    with torch.no_grad():
        for piece, batch, out in passes(model.eval(), cut_step(samples, token_budget, share=share),
                                        next(model.parameters()).device, frozenset({"values"})):
            assert out.values is not None
            ends = np.cumsum(np.bincount(piece.forest.branch_of, minlength=batch.branches))[:-1]
            values.update(zip(piece.samples, np.split(out.values.float().cpu().numpy(), ends), strict=True))
    made = iter([replace(r, named={"old_values": values[i]} | dict(r.named)) for i, r in enumerate(samples)])
    return [replace(group, branches=tuple(next(made) for _ in group.branches)) for group in groups]


def _ask(session: Session, groups: list[Group], name: str | None, names: dict[str, str], top: int = 0) -> list[Group]:
    """Columns by the model `name`, or by the base."""
    ready, budget = session.ready, session.plan["training.token_budget"]
    store = ColumnCache(cache.root() / "columns.db")
    try:
        model, folder, share = session.model, ready.base.path, session.packing.share
        if name is not None:
            folder = resolve(name, ready.recipe.root, say=session.watch.say).path
            _check_same_tokens(ready.tokenizer, ChatTokenizer(folder), name)
            plain = load_model(folder)
            packing = choose_packing(plain, sorted((r for g in groups for r in g.branches), key=len))
            model, share = ForestModel(plain, packing.mode), packing.share
        weight = next(model.parameters())
        identity = f"{weights_sha256(folder)}:{weight.dtype}:{weight.device.type}"
        session.watch.stage(f"{'teacher' if top else 'reference'}", sum(len(g.branches + g.probes) for g in groups))
        scorer = Scorer(model, identity, store, token_budget=budget, share=share, top=top)
        return with_columns(groups, scorer, names, session.watch.advance)
    finally:
        store.close()


def _check_same_tokens(ours: ChatTokenizer, theirs: ChatTokenizer, name: str) -> None:
    if ours.vocabulary() != theirs.vocabulary():
        raise UserError(f"{name} has another vocabulary than the base, so its log-probs are of other tokens.",
                        wanted="a model of the same family, with the same tokenizer")


def scalar_head(model: nn.Module, objective: Objective, seed: int) -> nn.Linear | None:
    """A head for rewards or values where the objective needs one, near zero as those of transformers begin."""
    if not objective.needs & SCALARS:
        return None
    import torch

    weight = next(model.parameters())
    hidden = int(cast("Any", model).config.hidden_size)
    head = torch.nn.Linear(hidden, 1, bias=False, device=weight.device)     # float32: it is small and it trains
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(0.02 * torch.randn(1, hidden, generator=generator))
    return head


def _file_of(objective: Objective) -> str:
    return REWARD_FILE if "scores" in objective.needs else VALUE_FILE


def save_scalar(head: nn.Linear | None, folder: Path, objective: Objective) -> None:
    """Beside the adapter or the model."""
    if head is not None:
        from safetensors.torch import save_file

        save_file({"weight": head.weight.detach().cpu().contiguous()}, folder / _file_of(objective))


def load_scalar(head: nn.Linear | None, folder: Path, objective: Objective) -> nn.Linear | None:
    """The trained weights into a fresh head."""
    if head is not None:
        import torch
        from safetensors.torch import load_file

        with torch.no_grad():
            head.weight.copy_(load_file(folder / _file_of(objective))["weight"])
    return head
