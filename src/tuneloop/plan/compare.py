"""Methods × machines: every cell by the same job, one recommendation in words, and what each cost factor changes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.models.aliases import aliases
from tuneloop.models.outline import outlines, shape_named
from tuneloop.plan import auto, cost
from tuneloop.plan.cost import BLOCK, Cell
from tuneloop.plan.hardware import named

if TYPE_CHECKING:
    from tuneloop.methods.base import MethodSpec
    from tuneloop.models.shape import Shape
    from tuneloop.plan.hardware import Hardware
    from tuneloop.plan.job import Job
    from tuneloop.plan.make import Plan
    from tuneloop.plan.offers import Market
    from tuneloop.plan.spec import TrainingSpec

Here = Callable[["MethodSpec"], "Plan"]     # the plan for this machine; raises UserError


@dataclass(frozen=True)
class Question:
    """What is asked: a base, a job, and the machines and methods that might do it. `methods[0]` is the recipe's."""

    shape: Shape
    job: Job
    training: TrainingSpec
    methods: Sequence[MethodSpec]
    machines: Sequence[Hardware]
    case: auto.Circumstances
    planned: bool = False                   # the recipe leaves the method to the plan
    here: Here | None = None                # None where the rows are not packed: the base is a shape alone

    def cells(self) -> list[Cell]:
        """Every method on every machine, machine by machine."""
        return [self.cell(method, machine) for machine in self.machines for method in self.methods]

    def cell(self, method: MethodSpec, machine: Hardware, shape: Shape | None = None) -> Cell:
        """One method on one machine; of another shape where it is given."""
        shape = shape or self.shape
        if refused := _refusal(method, shape, elsewhere=machine.name != "here"):
            return Cell(method.kind, machine.name, "refused", refused, devices=machine.devices)
        if machine.name == "here" and self.here is not None and shape is self.shape:
            return self._planned_here(method, machine)
        return cost.cell(shape, method, machine, self.job, self.training)

    def _planned_here(self, method: MethodSpec, machine: Hardware) -> Cell:
        """From the plan that a run here would follow."""
        assert self.here
        try:
            plan = self.here(method)
        except UserError as error:
            return Cell(method.kind, machine.name, "refused", error.found)
        total, limit = plan.memory.total_bytes, plan.limit_bytes
        return Cell(
            method.kind, machine.name, cost.verdict(total, limit, plan.memory.error), parts=plan.memory.parts,
            total_bytes=total, limit_bytes=limit, error=plan.memory.error,
            checkpointing=plan["training.checkpointing"],
            token_budget=plan["training.token_budget"], seconds=plan.seconds, usd_per_hour=machine.usd_per_hour,
            price_as_of=machine.offer.as_of if machine.offer else "", watts=machine.total_watts,
            disk_bytes=cost.disk_bytes(self.shape, method, machine.dtype_bytes),
            trainable=method.memory(self.shape).trainable_parameters, assumed="as a run here would be planned")


def _refusal(method: MethodSpec, shape: Shape, *, elsewhere: bool) -> str:
    """Why this base cannot take the method; elsewhere packages that are missing here do not count."""
    try:
        method.check(shape)
    except UserError as error:
        bits = getattr(method, "bits", None)
        if not elsewhere or bits is None or shape.quantised is not None:
            return error.text.replace("\n", " ")
        if "bitsandbytes" in error.found:
            return _refusal(method.model_copy(update={"bits": None}), shape, elsewhere=True)
        return error.text.replace("\n", " ")
    return ""


def recommendation(question: Question, cells: Sequence[Cell]) -> str:
    """Which method on which machine, and why; else what to change so that something fits."""
    if not any(one.usable for one in cells):
        return "Nothing fits. " + " ".join(to_fit(question, cells))
    best, why = best_cell(question, cells)
    told = [f"Use {best.method} on {best.hardware}: {why}. It takes about {duration(best.total_seconds)}"
            f"{money(best)}, and {gigabytes(best)}."]
    if best.fits == "tight":
        told.append(f"That is tight: the peak is known to ±{best.error:.0%} only.")
    if best.devices_used > 1:
        told.append("That needs sharding, which `tuneloop run` does not do yet.")
    own = question.methods[0].kind
    mine = next((one for one in cells if one.method == own and one.hardware == best.hardware), None)
    if mine is not None and own != best.method and not question.planned:
        told.append(f"The recipe says {own}, which is kept: it {'fits there, too' if mine.usable else 'does not fit'}.")
    if not fits_somewhere(question, cells):
        told += to_fit(question, [one for one in cells if one.method == own])
    return " ".join(told)


def fits_somewhere(question: Question, cells: Sequence[Cell]) -> bool:
    """Whether the recipe's method fits on a device of some machine that was asked about."""
    return any(one.usable and one.devices_used == 1 for one in cells if one.method == question.methods[0].kind)


def best_cell(question: Question, cells: Sequence[Cell]) -> tuple[Cell, str]:
    """By the rule of `auto` a method for each machine; of these the one here if it does within a day, else the
    cheapest, else the fastest. What needs several devices comes after all that needs one.
    """
    usable = [one for one in cells if one.usable and one.devices_used == 1] or [one for one in cells if one.usable]
    offers = [_best_on(question.case, [one for one in cells if one.hardware == name], usable)
              for name in dict.fromkeys(one.hardware for one in usable)]
    near = [found for found in offers if found[0].hardware.startswith("here")
            and found[0].total_seconds <= auto.LONGEST_HOURS * 3600]
    if near:
        return min(near, key=lambda found: found[0].total_seconds)
    priced = [found for found in offers if found[0].usd is not None]
    best, why = min(priced, key=lambda found: found[0].usd or 0.0) if priced else \
        min(offers, key=lambda found: found[0].total_seconds)
    if len(offers) > 1:
        among = "machines with a price" if priced else "machines asked about"
        why += f"; of the {among} it is the {'cheapest' if priced else 'fastest'}"
    return best, why


def _best_on(case: auto.Circumstances, cells: Sequence[Cell], usable: Sequence[Cell]) -> tuple[Cell, str]:
    """Of the cells of one machine."""
    can = {one.method: one for one in cells if one in usable}
    refused = {kind: "" if kind in can else _why_not(kind, cells) for kind in auto.KINDS}
    if set(can) & set(auto.KINDS):
        kind, why = auto.choose(refused, case)
        return can[kind], why
    one = min(can.values(), key=lambda cell: cell.total_seconds)
    return one, "it is what fits of the methods asked about"


def _why_not(kind: str, cells: Sequence[Cell]) -> str:
    one = next((one for one in cells if one.method == kind), None)
    if one is None:
        return f"{kind} was not asked about"
    return one.why or f"it needs {gigabytes(one)}"


def to_fit(question: Question, cells: Sequence[Cell]) -> list[str]:
    """What would make the first cell that does not fit fit: less to train, a smaller base, another machine."""
    failed = next((one for one in cells if one.fits == "no"), None)
    if failed is None:
        return [f"{one.method} on {one.hardware}: {one.why}." for one in cells[:1] if one.why]
    machine = next(m for m in question.machines if m.name == failed.hardware)
    told = [f"{failed.method} needs {gigabytes(failed)} on {failed.hardware}"
            f"{', with activations computed twice' if failed.checkpointing else ''}."]
    method = next(m for m in question.methods if m.kind == failed.method)
    ways = []
    for kind in ("lora", "qlora"):
        if kind != failed.method and question.cell(auto.method_named(kind), machine).usable:
            ways.append(f"method={kind}")
            break
    if base := _smaller_base(question, method, machine):
        ways.append(f"a smaller base, such as {base}")
    return told + ([f"To fit: {', or '.join(ways)}."] if ways else
                   ["No listed base and no smaller method fits there: name a larger machine with --on."])


def larger_machine(question: Question, market: Market) -> str:
    """The cheapest offer on which the recipe's method fits one device; "" where none does."""
    method = question.methods[0]
    machines = [named(name, market) for name in market.offers]
    found = [one for one in (question.cell(method, machine) for machine in machines if machine.kind != "tpu")
             if one.usable and one.devices_used == 1 and one.usd is not None]
    if not found:
        return ""
    best = min(found, key=lambda one: one.usd or 0.0)
    return (f"The cheapest machine on file where {method.kind} fits one device: {best.hardware}, about "
            f"{duration(best.total_seconds)}{money(best)}.")


def _smaller_base(question: Question, method: MethodSpec, machine: Hardware) -> str:
    """The largest known shape below this one that fits."""
    known = sorted(outlines(), key=lambda name: outlines()[name].parameters, reverse=True)
    for name in known:
        shape = shape_named(name)
        if shape.parameters < question.shape.parameters and (machine.name != "here" or name in aliases()) \
                and question.cell(method, machine, shape).usable:
            return name
    return ""


def sensitivity(question: Question, cells: Sequence[Cell]) -> list[dict[str, str]]:
    """One line for each cost factor: what it would change of the recipe's method on the first machine that takes it."""
    own = question.methods[0]
    mine = next((one for one in cells if one.method == own.kind and one.usable), None)
    if mine is None:
        return []
    machine = next(m for m in question.machines if m.name == mine.hardware)
    deep = deeper(question.shape)
    twice, once = (cost.cell(shape, own, machine, question.job, question.training) for shape in (deep, question.shape))
    times = f"{twice.total_seconds / max(1e-9, once.total_seconds):.2g} times the time, " \
            f"{twice.total_bytes / max(1, once.total_bytes):.2g} times the memory"
    rows = question.job.rows
    others = [one for one in cells if one.hardware == mine.hardware and one.method != mine.method and one.usable]
    elsewhere = [one for one in cells if one.method == mine.method and one.hardware != mine.hardware and one.usable]
    training = mine.seconds["training"]
    return [
        {"factor": "model size", "line": f"twice the blocks ({deep.parameters / 1e9:.3g}B parameters): {times}"
                                         f"{'' if twice.usable else ', and it does not fit then'}"},
        {"factor": "method", "line": "; ".join(_against(one, mine, one.method) for one in others)
         or "no other that was asked about fits here"},
        {"factor": "rows", "line": f"twice as many ({2 * rows:,}): training takes {duration(2 * training)} instead of "
                                   f"{duration(training)}{_more(mine, training)}, with the same memory"},
        {"factor": "epochs", "line": f"one more ({question.job.epochs + 1:g}): "
                                     f"{duration(training / question.job.epochs)} more"
                                     f"{_more(mine, training / question.job.epochs)}"},
        {"factor": "hardware", "line": "; ".join(_against(one, mine, one.hardware) for one in elsewhere)
         or "name others with --on, such as --on a100-80gb,aws-p4d"},
    ]


def _against(one: Cell, mine: Cell, name: str) -> str:
    times = one.total_seconds / max(1e-9, mine.total_seconds)
    return f"{name} takes {times:.2g} times the time, {one.total_bytes / max(1, mine.total_bytes):.2g} times the " \
           f"memory{money(one)}"


def _more(cell: Cell, seconds: float) -> str:
    return "" if cell.usd_per_hour is None else f", ${seconds / 3600 * cell.usd_per_hour:,.2f} more"


def deeper(shape: Shape) -> Shape:
    """The same base with every block twice."""
    blocks = {name: size for name, size in shape.weights.items() if BLOCK.search(name)}
    again = {re.sub(BLOCK, lambda found: found[0].replace(found[1], str(int(found[1]) + shape.layers)), name): size
             for name, size in blocks.items()}
    added = sum(map(math.prod, blocks.values()))
    return replace(shape, layers=2 * shape.layers, parameters=shape.parameters + added,
                   stored_bytes=shape.stored_bytes * (shape.parameters + added) // max(1, shape.parameters),
                   linears=tuple((name, i, o, 2 * n) for name, i, o, n in shape.linears),
                   weights=dict(shape.weights) | again)


def duration(seconds: float) -> str:
    """In the unit that people would use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 72 * 3600 else f"{seconds / 86400:.3g} days"


def money(cell: Cell) -> str:
    """`, about $12`, with the month of the price; nothing without a price."""
    if cell.usd is None:
        return ""
    dated = f" at the price of {cell.price_as_of}" if cell.price_as_of else ""
    return f", about ${cell.usd:,.2f}{dated}"


def gigabytes(cell: Cell) -> str:
    """The peak with its bar, of what there is."""
    return (f"{cell.total_bytes / 1e9:.1f} GB of {cell.limit_bytes / 1e9:.1f} GB (±{cell.error:.0%})")


def to_json(question: Question, cells: Sequence[Cell], market: Market | None = None) -> dict[str, Any]:
    """The comparison as `tuneloop plan --json` prints it."""
    told = recommendation(question, cells)
    if market is not None and not fits_somewhere(question, cells):
        told = " ".join(filter(None, [told, larger_machine(question, market)]))
    return {"job": asdict(question.job), "cells": [one.to_json() for one in cells], "recommendation": told,
            "sensitivity": sensitivity(question, cells)}
