"""What an objective needs beside the rows: a scalar head, and columns from models that do not train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tuneloop.compute.check import choose_packing
from tuneloop.compute.model import ForestModel
from tuneloop.inference.columns import ColumnCache, Scorer, with_columns
from tuneloop.models import cache
from tuneloop.models.load import device, load_model, precision
from tuneloop.models.packages import sha256_of
from tuneloop.types import Group

if TYPE_CHECKING:
    from torch import nn

    from tuneloop.objectives.base import Objective
    from tuneloop.session import Session

SCALARS = frozenset({"scores", "values"})
REWARD_FILE, VALUE_FILE = "reward_head.safetensors", "value_head.safetensors"


def add_columns(session: Session, *parts: Sequence[Group]) -> list[list[Group]]:
    """The parts with every column that the objective needs. The session's model must still be the base."""
    objective, found = session.ready.recipe.objective, [group for part in parts for group in part]
    if "reference_logprobs" in objective.needs:
        found = _ask(session, found, "reference_logprobs", {"logprobs": "reference_logprobs"})
    if "old_logprobs" in objective.needs:       # rollouts that do not say who wrote them: taken as the base's own
        found = _ask(session, found, "old_logprobs", {"logprobs": "old_logprobs"})
    if "teacher" in objective.needs:
        names = {"top_ids": "select_ids", "top_logprobs": "teacher_logprobs"}
        found = _ask(session, found, "teacher", names, top=objective.top_k)  # type: ignore[attr-defined]   # own_code sees to it
    rest = iter(found)
    return [list(islice(rest, len(part))) for part in parts]


def add_old_values(model: ForestModel, groups: Sequence[Group], token_budget: int, share: bool) -> list[Group]:
    """What the fresh value head says of given rollouts, as (supervised,) columns `old_values`."""
    import torch

    from tuneloop.compute.cut import cut_step
    from tuneloop.compute.passes import passes

    samples = [r for group in groups for r in group.branches]
    if not samples:
        return []
    values: dict[int, Any] = {}
    with torch.no_grad():
        for piece, _, out in passes(model.eval(), cut_step(samples, token_budget, share=share),
                                        next(model.parameters()).device, frozenset({"values"})):
            assert out.values is not None
            values.update(zip(piece.samples, piece.forest.by_branch(out.values.float().cpu().numpy()), strict=True))
    made = iter([replace(r, named={"old_values": values[i]} | dict(r.named)) for i, r in enumerate(samples)])
    return [replace(group, branches=tuple(next(made) for _ in group.branches)) for group in groups]


def _ask(session: Session, groups: list[Group], need: str, names: dict[str, str], top: int = 0) -> list[Group]:
    """Columns by the model that the recipe names for this need, or by the base."""
    other = session.ready.asked.get(need)
    if other is None:
        weight = next(session.model.parameters())
        # quantised, the same files are another model
        made, where = f"{weight.dtype}{session.method.load_options() or ''}", weight.device
    else:
        made, where = str(precision()), device()

    def opened() -> tuple[ForestModel, bool]:
        if other is None:
            return session.model, session.packing.share
        model = load_model(other.path)
        packing = choose_packing(model, sorted((r for g in groups for r in g.branches), key=len))
        session.watch.say(f"{other.name}: {packing.why}")
        return ForestModel(model, packing.mode), packing.share

    weights = session.ready.weights["base" if other is None else need]
    identity = f"{weights}:{sha256_of((other or session.ready.base).path / 'config.json')}:{made}:{where.type}"
    stage = {"old_logprobs": "old policy", "teacher": "teacher"}.get(need, "reference")
    session.watch.stage(stage, sum(len(g.branches + g.probes) for g in groups))
    store = ColumnCache(cache.root() / "columns.db")
    try:
        scorer = Scorer(opened, identity, store, token_budget=session.plan["training.token_budget"], top=top)
        return with_columns(groups, scorer, names, session.watch.advance)
    finally:
        store.close()


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
