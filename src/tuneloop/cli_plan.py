"""`tuneloop plan`: what a run will do and take, here and elsewhere. Registered in `cli`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Lines, Words, console, is_override, print_json, recipe_of
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.plan.auto import BaseAdvice
    from tuneloop.plan.compare import Question
    from tuneloop.plan.hardware import Hardware
    from tuneloop.plan.make import Plan
    from tuneloop.plan.offers import Market
    from tuneloop.recipe import Recipe
    from tuneloop.training.watch import Watcher

On = Annotated[str | None, typer.Option("--on", metavar="NAMES", show_default=False,
                                        help="machines, comma between: here, an accelerator (a100-80gb), an offer "
                                             "(aws-p4d)")]
Methods = Annotated[str | None, typer.Option("--methods", metavar="NAMES", show_default=False,
                                             help="methods to compare; the recipe's, lora, qlora and full if not "
                                                  "given")]
Price = Annotated[float | None, typer.Option("--price", min=0, metavar="USD", show_default=False,
                                             help="what an hour of the machine costs you")]
Offers = Annotated[Path | None, typer.Option("--offers", metavar="FILE", show_default=False,
                                             help="prices and machines of your own, on top of the dated examples")]
Calibrate = Annotated[bool, typer.Option("--calibrate", help="first measure two micro-batches here, in a process of "
                                         "their own; later plans use it")]
LaunchFile = Annotated[Path | None, typer.Option("--launch", metavar="FILE", show_default=False,
                                                 help="write a launch file for the one machine of --on")]


def plan(words: Words = None, on: On = None, methods: Methods = None, price: Price = None, offers: Offers = None,
         launch: LaunchFile = None, calibrate: Calibrate = False, as_json: AsJson = False) -> None:
    """Every setting with its reason; methods × machines with memory, time and cost; advice. Needs no torch, but for
    --calibrate.
    """
    from tuneloop.plan import compare
    from tuneloop.plan.offers import read_market
    from tuneloop.training.watch import Silent

    recipe = recipe_of(words)
    market = read_market(offers)
    asked = _Asked(recipe, _names(on), _names(methods), market, price)
    asked.check_launch(launch)
    if calibrate:
        _calibrate(recipe, as_json)
    found = _look(asked, Silent() if as_json else Lines())
    cells = found.question.cells()
    told = compare.to_json(found.question, cells, market if on or found.plan is None else None)
    written = found.plan.to_json() if found.plan else {}
    if as_json:
        print_json(written | {"base": found.base, "comparison": told, "bases": [one.to_json() for one in found.bases],
                              "base_advice": found.base_sentence})
    else:
        _show(found, written, told)
    if launch is not None:
        _launch(words or [], found, launch, as_json)


def _calibrate(recipe: Recipe, as_json: bool) -> None:
    from tuneloop import calibrate
    from tuneloop.cli_run import watching

    with watching(as_json) as watch:
        for line in calibrate.calibrate(recipe, watch):
            watch.say(line)


def _names(given: str | None) -> list[str]:
    return [name.strip() for name in (given or "").split(",") if name.strip()]


@dataclass(frozen=True)
class _Asked:
    """What the command line asks."""

    recipe: Recipe
    on: list[str]
    methods: list[str]
    market: Market
    price: float | None

    def check_launch(self, launch: Path | None) -> None:
        if launch is not None and (len(self.on) != 1 or self.on[0] == "here"):
            raise UserError("--launch writes the file for one machine that is not here.",
                            fix="name it: --on aws-p4d --launch job.yaml")

    @property
    def is_here(self) -> bool:
        return not self.on or "here" in self.on

    def machines(self, here: Hardware) -> list[Hardware]:
        """Those of --on, else this one and its GPU, with the price of an hour where it is known."""
        from tuneloop.plan.hardware import gpu_here, named

        gpu = gpu_here(self.market) if not self.on else None
        found = [here if name == "here" else named(name, self.market) for name in self.on] or \
            [here, *([gpu] if gpu else [])]
        if self.price is not None:
            if len(self.on) > 1:
                raise UserError("--price is for one machine, and --on names several.",
                                fix="name one, or write the prices into a file for --offers")
            return [priced(machine, self.price, "--price") for machine in found]
        rent = self.recipe.evaluation.price
        if rent is not None and rent.machine_usd_per_hour is not None:
            return [priced(machine, rent.machine_usd_per_hour, "evaluation.price") if machine.name.startswith("here")
                    else machine for machine in found]
        return found

    def specs(self) -> list[Any]:
        """The recipe's method first, with its options; others by name with their defaults."""
        from tuneloop.plan.auto import KINDS, method_named

        own = self.recipe.method
        wanted = dict.fromkeys(self.methods or [own.kind, *KINDS])
        first = [own.kind] if own.kind in wanted else []
        return [own if kind == own.kind else method_named(kind) for kind in dict.fromkeys([*first, *wanted])]


@dataclass(frozen=True)
class _Found:
    """What was looked at. `plan` is that of a run here; None where only other machines are asked about."""

    name: str                   # the recipe's
    question: Question
    plan: Plan | None
    base: dict[str, Any]
    bases: list[BaseAdvice]
    base_sentence: str


def priced(machine: Hardware, usd_per_hour: float, source: str) -> Hardware:
    """The machine at a price that the user names, today."""
    import datetime

    from tuneloop.plan.offers import Offer

    today = datetime.date.today().isoformat()
    known = machine.offer.model_dump() if machine.offer else {"accelerator": machine.name}
    own = {"usd_per_hour": usd_per_hour, "purchase_usd": None, "as_of": today, "source": source}
    return replace(machine, offer=Offer(**known | own))


def _look(asked: _Asked, watch: Watcher) -> _Found:
    """Rows, tokens and plan of a base with weights; of a shape the rows alone."""
    from tuneloop.models.outline import outline_of, remote_outline

    recipe = asked.recipe
    shape = outline_of(recipe.base, recipe.root)
    if shape is None and not asked.is_here:     # nobody wants to download what will train elsewhere
        shape = remote_outline(recipe.base, recipe.root)
    return _of_rows(asked, watch) if shape is None else _of_shape(asked, shape, watch)


def _of_rows(asked: _Asked, watch: Watcher) -> _Found:
    from tuneloop.plan.hardware import bandwidth_here
    from tuneloop.prepared import Prepared

    alone = asked.on in ([], ["here"])
    ready = Prepared(asked.recipe, watch, choose=alone)
    plan = None
    try:
        plan = ready.plan() if asked.is_here else None
    except UserError:       # among other machines, the cell of this one says so
        if alone:
            raise
    asked = replace(asked, recipe=ready.recipe)
    machine = replace(ready.machine, bandwidth_bytes_per_second=bandwidth_here())
    base = {"name": asked.recipe.base, "parameters": ready.shape.parameters, "by_shape": False}
    return _found(asked, ready.shape, ready.job(), machine, base, plan_for=ready.plan_for, plan=plan,
                  labels=ready.rows.task == "labels", planned=ready.recipe.auto or ready.chosen is not None)


def _of_shape(asked: _Asked, shape: Any, watch: Watcher) -> _Found:
    from tuneloop.outlined import job_of_recipe
    from tuneloop.plan.hardware import bandwidth_here, here

    job, labels = job_of_recipe(asked.recipe)
    base = {"name": asked.recipe.base, "parameters": shape.parameters, "by_shape": True}
    watch.say(f"{asked.recipe.base} is a shape of {shape.parameters / 1e9:,.3g}B parameters: it can be planned and not "
              f"trained; {job.counted}")
    machine = replace(here(), bandwidth_bytes_per_second=bandwidth_here())
    return _found(asked, shape, job, machine, base, labels=labels, planned=asked.recipe.auto)


def _found(asked: _Asked, shape: Any, job: Any, here: Hardware, base: dict[str, Any], *, labels: bool, planned: bool,
           plan: Plan | None = None, plan_for: Any = None) -> _Found:
    from tuneloop.plan import auto
    from tuneloop.plan.compare import Question
    from tuneloop.plan.hardware import named

    recipe = asked.recipe
    machines = asked.machines(here)
    case = auto.Circumstances(job.rows, recipe.goal.max_forgetting is not None, recipe.deploy)
    question = Question(shape, job, recipe.training, asked.specs(), machines, case, planned=planned,
                        here=plan_for)
    where = recipe.deploy.on
    served = here if where in (None, "here") else named(str(where), asked.market)
    trained_on = next((m for m in machines if m.kind != "tpu"), here)
    bases = auto.bases(job, trained_on, served, recipe.training, recipe.deploy)
    return _Found(recipe.name, question, plan, base, bases, auto.base_sentence(bases, trained_on.name, labels))


def _show(found: _Found, written: dict[str, Any], told: dict[str, Any]) -> None:
    from tuneloop.terminal import comparison_lines, comparison_table, plan_table

    if written:
        console.print(plan_table(written))
        memory = written["memory"]
        known = f"calibrated {written['calibrated']}" if written["calibrated"] else "by arithmetic"
        console.print(f"peak memory about {memory['total_bytes'] / 2**30:.1f} GiB "
                      f"({memory['low_bytes'] / 2**30:.1f} to {memory['high_bytes'] / 2**30:.1f}, {known}) of "
                      f"{memory['available_bytes'] / 2**30:.1f} GiB free; prefix sharing saves "
                      f"{1 - 1 / written['sharing']:.0%} of the tokens; {written['steps']} steps")
        console.print("time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in written["seconds"].items()))
        for stage, parts in written["seconds_by"].items():
            if long := ", ".join(f"{part} {seconds:.0f} s" for part, seconds in parts.items() if seconds >= 1):
                console.print(f"  [dim]{stage}: {long}[/]", soft_wrap=True)
        for note in written["notes"]:
            console.print(f"[yellow]{escape(note)}[/]")
        console.print()
    console.print(comparison_table(told["cells"]))
    for line in [*comparison_lines(told["cells"]), *_remarks(told["cells"])]:
        console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)
    console.print(f"\n[bold]{escape(told['recommendation'])}[/]", soft_wrap=True)
    console.print(escape(found.base_sentence), soft_wrap=True)
    for one in told["sensitivity"]:
        console.print(f"  [dim]{one['factor']}:[/] {escape(one['line'])}", soft_wrap=True)


def _remarks(cells: list[dict[str, Any]]) -> list[str]:
    """What whoever reads the table must know."""
    from tuneloop.plan.cost import TIME_FACTOR

    told = []
    if any(not one["hardware"].startswith("here") for one in cells):
        told.append(f"Elsewhere nothing was measured: memory is arithmetic, and a time may be off by a factor of "
                    f"{TIME_FACTOR:g}. GB are 10^9 bytes, of one device.")
    if any(one["price_as_of"] for one in cells):
        told.append("Prices are dated, and those that come with tuneloop are examples: check them, or give yours with "
                    "--price or --offers. Setting up and idling are not in them.")
    return told


def _launch(words: list[str], found: _Found, file: Path, as_json: bool) -> None:
    """For the recipe's method on the one machine."""
    import shlex

    from tuneloop.plan.launch import Launch, write

    question = found.question
    named = [Path(word).name for word in words if not is_override(word)] or ["recipe.yaml"]
    recipe = shlex.join([*named, *filter(is_override, words)])
    machine = question.machines[0]
    for line in write(Launch(found.name, recipe, machine, question.cell(question.methods[0], machine)), file):
        if not as_json:
            console.print(escape(line), soft_wrap=True)
