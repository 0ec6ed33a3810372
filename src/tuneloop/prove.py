"""Whether an objective keeps its contract, tried on a tiny model with made-up rows: `prove(objective)`.

The contract is that of `objectives.base`: sums and no means, needs that are declared, nothing that depends on how a
step is cut or shared. All in float64, where two ways to the same number agree to about 1e-12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tuneloop.compute.cut import cut_step, totals_of
from tuneloop.compute.passes import passes
from tuneloop.objectives.base import COLUMNS, REDUCERS, Objective
from tuneloop.own_code import DENOMINATORS, declaration_flaws, file_of, told
from tuneloop.specimen import COLUMNS_OF, TRUNK_BUDGET, groups_of, restricted, tiny_model
from tuneloop.types import Denominator, Group, LossOutput, Piece, Rendered

EXACT, SLOPE = 1e-9, 1e-6
"""Largest relative errors: between two ways to the same number, and of a gradient against finite differences."""
WHOLE = 10**6
Totals = Mapping[Denominator, float]


@dataclass(frozen=True)
class Check:
    """One clause of the contract. `ok` is None where it could not be measured, since an earlier one was broken."""

    name: str
    what: str                       # the clause, as a sentence
    ok: bool | None
    error: float | None = None      # measured, relative
    limit: float | None = None
    why: str = ""                   # what is probably wrong, or worth knowing

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; an error that is not finite is null."""
        finite = self.error is not None and math.isfinite(self.error)
        return asdict(self) | {"error": self.error if finite else None}


class Broken(Exception):
    """The objective raised, or gave what no loss can be; says so in a sentence."""


@dataclass(frozen=True)
class Step:
    """What an optimizer step gives: the mean loss, the means of the named sums, and the gradient of all parameters."""

    loss: float
    sums: dict[str, float]
    gradient: Tensor | None         # flat; None where the loss carries none
    pieces: Sequence[Piece]


CLAUSES = {
    "declares": "what it declares is known to the loop",
    "needs": "the needs that it declares are enough",
    "finite": "loss and gradient are finite, and the gradient is not zero",
    "repeats": "the same batch gives the same loss",
    "slope": "the gradient is the slope of the loss",
    "sharing": "whether prefixes are shared changes nothing",
    "cut": "how a step is cut into pieces changes nothing",
    "order": "the order of the groups changes nothing",
    "weights": "each token counts by its weight",
    "metrics": "what it reports is a sum, too",
}


def prove(objective: Objective, *, detaches: bool = False) -> list[Check]:
    """Every clause of the contract, in order. With `detaches` the loss cuts gradients off on purpose: no slope then."""
    flaws = declaration_flaws(objective)
    checks = [_check("declares", not flaws, why=" ".join(flaw.text.replace("\n", ";") for flaw in flaws))]
    if not flaws:
        bench = Bench(objective)
        checks.append(_needs(bench))
        if checks[-1].ok:
            checks += _measured(bench, detaches)
    known = {check.name for check in checks}
    unasked = {"slope"} if detaches else set()
    if not flaws and objective.denominator != "weight":
        unasked.add("weights")
    return checks + [Check(name, what, None) for name, what in CLAUSES.items() if name not in known | unasked]


def _measured(bench: Bench, detaches: bool) -> Iterable[Check]:
    whole = bench.step()
    yield (finite := _finite(whole))
    if not finite.ok:
        return
    yield (repeats := _repeats(bench, whole))
    if not repeats.ok:
        return
    if not detaches:
        yield _slope(bench, whole)
    ways = _Ways(bench, whole)
    yield (sharing := ways.check("sharing", _explain_sharing, {"share": False}))
    if not sharing.ok:      # the others would repeat what it says
        return
    yield (cut := ways.check("cut", _explain_cut, {"budget": 1, "share": False}, {"budget": 1},
                             {"budget": TRUNK_BUDGET}, {"budget": TRUNK_BUDGET, "trunks": False}))
    if not cut.ok:
        return
    groups = bench.groups
    yield ways.check("order", _explain_order, {"groups": groups[::-1]}, {"groups": groups[2:] + groups[:2]})
    if bench.objective.denominator == "weight":
        yield ways.check("weights", _explain_weights, {"groups": _doubled(groups)})
    yield ways.metrics()


# ── one step, as the training loop takes it ──────────────────────────────────────────────────────────────────────────

class Bench:
    """The tiny model, the rows, and an objective to try on them. `needs` are the objective's own unless given."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.model = tiny_model().eval()
        self._all = groups_of(objective.batch_kind, self.model)
        self.needs = frozenset(objective.needs)

    @property
    def groups(self) -> list[Group]:
        return restricted(self._all, self.objective.batch_kind, self.needs)

    def with_needs(self, needs: frozenset[str]) -> Bench:
        """The same with other reducers and columns at hand."""
        other = object.__new__(Bench)
        other.__dict__.update(self.__dict__, needs=needs)
        return other

    def step(self, groups: Sequence[Group] | None = None, *, budget: int = WHOLE, share: bool = True,
             trunks: bool = True, stats: Mapping[str, float] | None = None, backward: bool = True) -> Step:
        """The means of a whole step, cut into pieces of `budget` tokens, with the probes' `stats` unless given."""
        groups = self.groups if groups is None else groups
        pieces = self._cut([g.branches for g in groups], budget, share, trunks)
        if stats is None:
            stats = self.stats(groups, budget=budget, share=share, trunks=trunks)
        totals, loss, sums, reached = totals_of(pieces), 0.0, _Sums(self.objective), False
        self.model.zero_grad()
        for _, batch, out in passes(self.model, pieces, "cpu", self.needs & REDUCERS):
            found = self._called(self.objective.loss, out, replace(batch, stats=stats))
            loss += found.loss.item() / totals[self.objective.denominator]
            sums.add(found)
            if backward and found.loss.requires_grad:
                self._called_backward(found.loss / totals[self.objective.denominator])
                reached = True
        gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                              for p in self.model.parameters()]) if reached else None
        self.model.zero_grad()
        return Step(loss, sums.means(totals), gradient, pieces)

    @torch.no_grad()
    def stats(self, groups: Sequence[Group], *, budget: int = WHOLE, share: bool = True,
              trunks: bool = True) -> dict[str, float]:
        """What `step_stats` makes of the probes."""
        if not any(g.probes for g in groups):
            return {}
        pieces = self._cut([g.probes for g in groups], budget, share, trunks)
        sums = _Sums(self.objective)
        for _, batch, out in passes(self.model, pieces, "cpu", self.needs & REDUCERS):
            found = self._called(self.objective.step_stats, out, batch)
            if found is not None:
                sums.add(found, loss=True)
        return sums.means(totals_of(pieces))

    def raw(self, groups: Sequence[Group]) -> float:
        """The undivided loss of groups in one piece, with the stats of the whole step."""
        stats = self.stats(self.groups)
        pieces = self._cut([g.branches for g in groups], WHOLE, True, False)
        [(_, batch, out)] = list(passes(self.model, pieces, "cpu", self.needs & REDUCERS))
        return float(self._called(self.objective.loss, out, replace(batch, stats=stats)).loss.item())

    def _cut(self, groups: Sequence[tuple[Rendered, ...]], budget: int, share: bool, trunks: bool) -> list[Piece]:
        return cut_step([r for g in groups for r in g], budget, groups=[i for i, g in enumerate(groups) for _ in g],
                        share=share, trunks=trunks, keep_last="scores" in self.needs)

    def _called(self, function: Callable[..., Any], out: Any, batch: Any) -> Any:
        try:
            found = function(out, batch)
        except Exception as error:
            alone = " where a piece holds one group" if len(np.unique(batch.forest.group_of)) == 1 else ""
            raise Broken(f"{function.__name__} fails{alone}: {told(error, file_of(type(self.objective)))}.") from error
        if function.__name__ == "loss" or found is not None:
            _check_output(found, function.__name__)
        return found

    def _called_backward(self, loss: Tensor) -> None:
        try:
            loss.backward()  # type: ignore[no-untyped-call]    # torch types no backward
        except RuntimeError as error:
            raise Broken(f"The loss has no gradient that torch can compute: {str(error).splitlines()[0]}") from error


class _Sums:
    """Named sums over the pieces of a step, and what each is divided by."""

    def __init__(self, objective: Objective) -> None:
        self.usual: Denominator = objective.denominator
        self.sums: dict[str, float] = {}
        self.per: dict[str, Denominator] = {}

    def add(self, found: LossOutput, loss: bool = False) -> None:
        for name, value in ({"loss": found.loss, **found.sums} if loss else found.sums).items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        self.per |= found.per

    def means(self, totals: Totals) -> dict[str, float]:
        return {name: value / totals[self.per.get(name, self.usual)] for name, value in self.sums.items()}


def _check_output(found: Any, function: str) -> None:
    """Refuse what the loop could not add up."""
    if not isinstance(found, LossOutput):
        raise Broken(f"{function} returns {type(found).__name__}: return LossOutput(sum of losses, {{name: sum}}).")
    for name, value in {"the loss": found.loss, **found.sums}.items():
        if not isinstance(value, Tensor):
            raise Broken(f"{function} returns {name} as {type(value).__name__}: keep it a tensor, without .item().")
        if value.ndim:
            raise Broken(f"{function} returns {name} of shape {tuple(value.shape)}: return its sum.")
    if "loss" in found.sums and function == "loss":
        raise Broken("loss reports a sum named 'loss', which would replace the loss itself in the metrics: rename it.")
    for name, per in found.per.items():
        if name not in found.sums or per not in DENOMINATORS:
            raise Broken(f"{function} divides '{name}' by '{per}' in `per`: it takes the names in `sums`, and "
                         f"{', '.join(DENOMINATORS)}.")
    if found.loss.dtype != torch.float64:
        raise Broken(f"{function} computes in {found.loss.dtype} what came in torch.float64: leave out .float() and "
                     "constants of another precision, which lose digits.")


# ── the clauses ──────────────────────────────────────────────────────────────────────────────────────────────────────

def _check(name: str, ok: bool, error: float | None = None, limit: float | None = None, why: str = "") -> Check:
    return Check(name, CLAUSES[name], ok, error, limit, why)


def _needs(bench: Bench) -> Check:
    """One step with just what is declared; where that fails, which of the others would mend it."""
    try:
        bench.step()
    except Broken as broken:
        missing = _missing(bench)
        why = str(broken)
        if missing:
            names = ", ".join(f'"{need}"' for need in missing)
            why = f"The loss reads what it does not declare: add {names} to `needs`. ({why})"
        return _check("needs", False, why=why)
    idle = sorted(need for need in bench.needs & COLUMNS if _does_without(bench, need))
    return _check("needs", True, why=f"It never reads {', '.join(idle)}: computed for nothing." if idle else "")


def _missing(bench: Bench) -> list[str]:
    """The least that must be added to the needs before the loss can be computed; none where nothing helps."""
    needs = REDUCERS | COLUMNS
    if not _works(bench.with_needs(needs)):
        return []
    for need in sorted(needs - bench.needs):
        if _works(bench.with_needs(needs - {need})):
            needs -= {need}
    return sorted(needs - bench.needs)


def _works(bench: Bench) -> bool:
    if "selected" in bench.needs and "teacher" not in bench.needs:
        return False
    try:
        bench.step(backward=False)
    except Broken:
        return False
    return True


def _does_without(bench: Bench, need: str) -> bool:
    return bool(COLUMNS_OF.get(need)) and _works(bench.with_needs(bench.needs - {need}))


def _finite(whole: Step) -> Check:
    if not math.isfinite(whole.loss):
        why = f"The loss is {whole.loss}: a logarithm of 0, a division by 0, an exponential that overflows, or log-" \
              'probs that are read where `needs` names "scores" alone (add "logprobs").'
    elif whole.gradient is None:
        why = "The loss carries no gradient: something between `out` and the result is detached (.detach(), .item(), " \
              "torch.no_grad, or a comparison)."
    elif not bool(whole.gradient.isfinite().all()):
        why = "The gradient is not finite although the loss is: the slope of a root or a logarithm at 0, or " \
              "torch.where over a branch that is not finite."
    elif not bool(whole.gradient.any()):
        why = "The gradient is zero everywhere: the loss does not depend on what the model computes."
    else:
        return _check("finite", True)
    return _check("finite", False, why=why)


def _repeats(bench: Bench, whole: Step) -> Check:
    again = bench.step()
    error = _apart(again.loss, whole.loss)
    return _check("repeats", error <= EXACT, error, EXACT, why="" if error <= EXACT else
                  "The loss draws random numbers or keeps something from call to call: a resumed run would differ.")


def _slope(bench: Bench, whole: Step) -> Check:
    """The gradient against central differences, along itself and along random directions; the best of several widths.

    Several, because a kink (a clip, a maximum) within the width spoils a difference, and rounding spoils a narrow one.
    """
    assert whole.gradient is not None
    gradient, stats = whole.gradient, bench.stats(bench.groups)     # no gradient flows through the stats
    length, start = float(gradient.norm()), parameters_to_vector(bench.model.parameters()).detach().clone()
    draw = torch.Generator().manual_seed(1)
    worst = 0.0
    for i in range(4):
        direction = gradient if i == 0 else torch.randn(len(start), generator=draw, dtype=torch.float64)
        direction = direction / direction.norm()
        slope, scale = float(gradient @ direction), length if i == 0 else length / math.sqrt(len(start))
        errors = []
        for width in (1e-4, 1e-5, 1e-6):
            ends = [_loss_at(bench, start + sign * width * direction, stats) for sign in (1, -1)]
            errors.append(abs((ends[0] - ends[1]) / (2 * width) - slope) / scale)
        worst = max(worst, min(errors))
    vector_to_parameters(start, bench.model.parameters())
    return _check("slope", worst <= SLOPE, worst, SLOPE, why="" if worst <= SLOPE else
                  "Part of the loss is detached from the model, or has no slope (rounding, argmax, a comparison). "
                  "Where a detach is meant, as in a baseline, say so with --detaches.")


def _loss_at(bench: Bench, parameters: Tensor, stats: Mapping[str, float]) -> float:
    vector_to_parameters(parameters, bench.model.parameters())
    return bench.step(stats=stats, backward=False).loss


class _Ways:
    """Other ways to take the same step, held against the whole one."""

    def __init__(self, bench: Bench, whole: Step) -> None:
        self.bench, self.whole = bench, whole
        self.off: dict[str, float] = dict.fromkeys(whole.sums, 0.0)     # worst errors of the named sums

    def check(self, name: str, explain: Callable[[Bench], str], *ways: dict[str, Any]) -> Check:
        """The clause `name`, by the worst error of loss and gradient over the ways."""
        worst = 0.0
        for way in ways:
            try:
                step = self.bench.step(**way)
            except Broken as broken:
                return _check(name, False, why=str(broken))
            worst = max(worst, _apart(step.loss, self.whole.loss), _apart_vectors(step.gradient, self.whole.gradient))
            for metric, value in self.whole.sums.items():
                self.off[metric] = max(self.off[metric], _apart(step.sums.get(metric, math.nan), value))
        return _check(name, worst <= EXACT, worst, EXACT, why="" if worst <= EXACT else explain(self.bench))

    def metrics(self) -> Check:
        """The named sums over all ways so far."""
        if not self.off:
            return _check("metrics", True, why="It reports nothing beside the loss.")
        worst = max(self.off, key=lambda name: self.off[name])
        wrong = [name for name, error in self.off.items() if not error <= EXACT]
        return _check("metrics", not wrong, self.off[worst], EXACT, why="" if not wrong else
                      f"{', '.join(wrong)}: return sums over the batch and no means, and name in `per` what a sum is "
                      "divided by where that is not the loss's denominator.")


def _apart(a: float, b: float) -> float:
    """Relative, of numbers about 1; infinite where one is not finite."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b), 1e-3)


def _apart_vectors(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        return math.inf
    error = float((a - b).norm() / b.norm())
    return error if math.isfinite(error) else math.inf


def _doubled(groups: Sequence[Group]) -> list[Group]:
    return [replace(g, branches=tuple(replace(r, weights=2 * r.weights) for r in g.branches)) for g in groups]


# ── what is probably wrong ───────────────────────────────────────────────────────────────────────────────────────────

COUNTS: dict[str, Callable[[Group], float]] = {
    "groups": lambda group: 1,
    "branches": lambda group: len(group.branches),
    "supervised tokens": lambda group: sum(r.supervised for r in group.branches),
    "token weights": lambda group: float(sum(r.weights.sum() for r in group.branches)),
}


def _explain_cut(bench: Bench) -> str:
    """A mean is told from other mixing by what it does: the whole's is the mean of the parts', each counted by size."""
    groups, divisor = bench.groups, bench.objective.denominator
    whole, part = bench.stats(groups), bench.stats(groups, budget=1)
    if any(_apart(part[name], value) > EXACT for name, value in whole.items()):
        return "`step_stats` returns means: return sums over the probes; the loop divides them as it does the loss."
    total, alone = bench.raw(groups), [bench.raw([group]) for group in groups]
    if not all(map(math.isfinite, alone)):
        return "The loss of a group alone is not finite, and a piece may hold one: a standard deviation over one, say."
    for name, count in COUNTS.items():
        sizes = [count(group) for group in groups]
        if _apart(total * sum(sizes), sum(n * loss for n, loss in zip(sizes, alone, strict=True))) <= EXACT:
            return (f"The loss is a mean over the batch's {name}: return the sum. The loop divides it by the {divisor} "
                    "total of the whole step (`denominator`).")
    return ("The loss of a group depends on which other groups are in the same piece: a mean, a normalisation or a "
            "comparison goes over the whole batch. Keep it within a group (`batch.group_of`, `batch.pairs`), or "
            "return sums for the whole step from `step_stats`.")


def _explain_sharing(bench: Bench) -> str:
    return ("The loss reads how the tokens are laid out (input_ids, predict_at, position_ids, forest), which sharing "
            "changes. Read `out`, `batch.targets`, `weights`, `branch_of`, `group_of` and `named` alone.")


def _explain_order(bench: Bench) -> str:
    return ("The loss depends on a group's place in the batch: an index, a roll or a running sum goes over the border "
            "of a group.")


def _explain_weights(bench: Bench) -> str:
    return ("With every weight doubled the loss is another one, although it is divided by their sum: multiply each "
            "token's loss by `batch.weights`, once, or choose another `denominator`.")
