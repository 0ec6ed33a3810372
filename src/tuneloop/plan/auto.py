"""`method: auto`, and which base: rules over what fits, how many rows there are, and what the goal and deployment ask.

The rules follow the literature and docs/methods.md; they are no measurement of these rows. `tuneloop search` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.catalog import Catalog
from tuneloop.errors import UserError
from tuneloop.models.aliases import aliases
from tuneloop.models.outline import shape_named
from tuneloop.plan.cost import Cell, cell
from tuneloop.plan.serve import serving

if TYPE_CHECKING:
    from tuneloop.methods.base import MethodSpec
    from tuneloop.plan.hardware import Hardware
    from tuneloop.plan.job import Job
    from tuneloop.plan.spec import DeploySpec, TrainingSpec

METHODS = Catalog("method", "tuneloop.methods", "Method")
KINDS = ("lora", "qlora", "full")
"""What auto chooses from: the methods that did best on docs/methods.md's task, and differ most in what they take."""
ALL_WEIGHTS_FROM_ROWS = 50_000
LONGEST_HOURS = 24          # a base that trains longer here is not recommended
LEARNS_LESS = "arXiv 2405.09673"


@dataclass(frozen=True)
class Circumstances:
    """What the choice depends on beside memory."""

    rows: int
    bounds_forgetting: bool
    deploy: DeploySpec


def method_named(kind: str) -> MethodSpec:
    """A method with its defaults. Raises UserError for an unknown one."""
    made: MethodSpec = METHODS.get(kind)(kind=kind)
    return made


def choose(refused: Mapping[str, str], case: Circumstances) -> tuple[str, str]:
    """The method, and why. `refused`: of every one of KINDS why it cannot be had, "" where it can. Raises UserError."""
    can = [kind for kind in KINDS if not refused[kind]]
    if not can:
        raise UserError("No method can train this base here: " + "; ".join(
            f"{kind}: {why.rstrip('.')}" for kind, why in refused.items()) + ".",
            fix="choose a smaller base (`tuneloop models`), shorter rows, or another machine (`tuneloop plan --on`)")
    small = _why_small(case)
    if "full" in can and not small:
        return "full", (f"{case.rows:,} training rows are enough to move all weights, they fit, and full fine-tuning "
                        f"learns more from many rows ({LEARNS_LESS})")
    if "lora" in can:
        return "lora", small or f"full fine-tuning cannot be had ({refused['full'].rstrip('.')}), and lora fits"
    if "qlora" in can:
        return "qlora", f"lora cannot be had ({refused['lora'].rstrip('.')}), and it fits with the base in 4 bits"
    return "full", f"neither lora nor qlora can be had ({refused['lora'].rstrip('.')})"


def _why_small(case: Circumstances) -> str:
    """Why a small update is better than all weights; "" where it is not."""
    if case.deploy.format == "adapter":
        return "deploy.format is adapter, and full fine-tuning leaves a whole model"
    if case.bounds_forgetting:
        return f"the goal bounds forgetting, and updates of low rank forget less ({LEARNS_LESS})"
    if case.rows < ALL_WEIGHTS_FROM_ROWS:
        return (f"{case.rows:,} training rows, fewer than {ALL_WEIGHTS_FROM_ROWS:,}: a small update learns them about "
                f"as well as all weights would, in less memory, and forgets less ({LEARNS_LESS})")
    return ""


@dataclass(frozen=True)
class BaseAdvice:
    """A listed base for this job: how it would train on a machine and be served."""

    name: str
    parameters: int
    best: Cell | None           # the cheapest method that fits; None where none does
    misses: list[str]           # of `deploy`

    @property
    def fits(self) -> bool:
        return self.best is not None and not self.misses and self.best.total_seconds <= LONGEST_HOURS * 3600

    def to_json(self) -> dict[str, Any]:
        best = self.best
        return {"name": self.name, "parameters": self.parameters, "fits": self.fits,
                "method": best.method if best else None, "seconds": round(best.total_seconds) if best else None,
                "total_bytes": best.total_bytes if best else None, "misses": self.misses}


def bases(job: Job, machine: Hardware, served_on: Hardware, training: TrainingSpec,
          deploy: DeploySpec) -> list[BaseAdvice]:
    """Every listed base, by size. Tokens are counted by the recipe's own base; another would count a few others."""
    found = []
    for name in aliases():
        shape = shape_named(name)
        cells = [cell(shape, method_named(kind), machine, job, training) for kind in ("lora", "qlora")]
        found.append(BaseAdvice(name, shape.parameters, next((one for one in cells if one.usable), None),
                                serving(shape, deploy, job, served_on).misses(deploy)))
    return sorted(found, key=lambda base: base.parameters)


def base_sentence(advice: list[BaseAdvice], where: str, labels: bool) -> str:
    """One recommendation in words; `where` is the machine that trains."""
    fitting = [base for base in advice if base.fits]
    if not fitting:
        return (f"Base: none of `tuneloop models` trains on {where} within {LONGEST_HOURS} hours and keeps to deploy; "
                "name another machine with --on, or ask less of deploy.")
    largest = fitting[-1]
    assert largest.best
    told = (f"Base: the largest of `tuneloop models` that trains on {where} within {LONGEST_HOURS} hours and keeps to "
            f"deploy is {largest.name}, with {largest.best.method}")
    if labels and len(fitting) > 1:
        told += f"; for labels {fitting[0].name} may do, and is the first to try"
    return told + "."
