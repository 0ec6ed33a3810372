"""`tuneloop mend`: what can be done about forgetting, what each remedy costs, and doing it. Registered in `cli`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, RunName, Runs, console, find_run, print_json
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.evaluation.intervals import Interval
    from tuneloop.record import RunFolder
    from tuneloop.remedies import Patient, Sweep
    from tuneloop.training.watch import Watcher

NOT_MET = 3


def mend(name: RunName,
         by: Annotated[str | None, typer.Option(help="scale, replay, kl or rate; the offers unless given",
                                                show_default=False)] = None,
         apply: Annotated[bool, typer.Option("--apply", help="do it, as a new run that is certified")] = False,
         max_forgetting: Annotated[float | None, typer.Option(
             min=0, max=1, help="how much may be forgotten, as a share; by the goal unless given",
             show_default=False)] = None,
         rows: Annotated[int, typer.Option(min=1, help="validation rows that choose the scale")] = 200,
         items: Annotated[int | None, typer.Option(min=1, help="ask at most so many items of each retention suite",
                                                   show_default=False)] = None,
         runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """A run forgot too much of what its base knew: what can be done, what it costs, and doing it."""
    from tuneloop.remedies import WAYS, Patient

    patient = Patient(find_run(name, runs))
    if by is None:
        if apply:
            raise UserError("--apply needs a remedy.", fix=f"name one: --by {' | '.join(WAYS)}")
        _offer(patient, as_json)
    elif by not in WAYS:
        raise UserError(f"'{by}' is no remedy.", wanted=f"one of: {', '.join(WAYS)}")
    elif by == "scale":
        _scale(patient, patient.bound(max_forgetting), rows, items, apply, as_json)
    else:
        _retrain(patient, by, max_forgetting, apply, as_json)


def _offer(patient: Patient, as_json: bool) -> None:
    offers, found, bound = patient.offers(), patient.forgotten, patient.recipe.goal.max_forgetting
    if as_json:
        print_json({"run": str(patient.folder.path), "forgetting": found.to_json() if found else None,
                    "max_forgetting": bound, "offers": [offer.to_json() for offer in offers]})
        return
    allowed = "" if bound is None else f"; the goal allows {100 * bound:g}"
    console.print(escape(f"Forgotten: {_points(found.drop)} points{allowed}." if found else
                         f"Forgetting was not measured in {patient.folder.path.name}{allowed}."), soft_wrap=True)
    for offer in offers:
        if offer.refused:
            console.print(f"[dim]{offer.by:<7} not for this run. {escape(offer.refused)}[/]", soft_wrap=True)
        else:
            console.print(f"[bold]{offer.by:<7}[/] {escape(f'{offer.what}: {offer.costs}')}", soft_wrap=True)
    console.print(f"Look closer: [bold]tuneloop mend {escape(str(patient.folder.path))} --by …[/]; "
                  "--apply makes a new run of it", soft_wrap=True)


def _scale(patient: Patient, bound: float, rows: int, items: int | None, apply: bool, as_json: bool) -> None:
    with _watching(as_json) as watch:
        sweep = patient.sweep(bound, watch, rows=rows, items=items)
    chosen = sweep.chosen
    if not as_json:
        _show(sweep)
    if apply and chosen is not None and chosen.scale < 1:
        made = patient.at_scale(sweep)
        _run(made.file("recipe.yaml"), made, as_json)
    if as_json:
        print_json(sweep.to_json())
    if apply and chosen is None:
        raise typer.Exit(NOT_MET)


def _show(sweep: Sweep) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("scale", f"{sweep.metric} on {sweep.rows:,} validation rows", "forgetting, points", ""):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for point in sweep.points:
        base = point.scale == 0
        lost = "" if base or point.forgetting is None else _points(point.forgetting.drop)
        mark = "the base" if base else "chosen" if point is sweep.chosen else (
            "" if point.within(sweep.bound) else "forgets too much")
        table.add_row(f"{point.scale:g}", f"{point.score.value:.3f} ({point.score.low:.3f} to {point.score.high:.3f})",
                      lost, mark)
    console.print(table)
    if sweep.chosen is None:
        said = f"At every scale more than {100 * sweep.bound:g} points are forgotten. Try replay, kl or rate."
    elif sweep.chosen.scale == 1:
        said = f"As it is, it forgets no more than {100 * sweep.bound:g} points, and no smaller scale does better."
    else:
        said = (f"Scale {sweep.chosen.scale:g} is the best that forgets no more than {100 * sweep.bound:g} points"
                + (", of which its interval is sure." if sweep.sure else "; its interval reaches further, so that the "
                   "certificate may be undecided."))
    console.print(escape(said), soft_wrap=True)


def _points(drop: Interval) -> str:
    return f"{100 * drop.value:+.1f} ({100 * drop.low:+.1f} to {100 * drop.high:+.1f})"


def _retrain(patient: Patient, by: str, max_forgetting: float | None, apply: bool, as_json: bool) -> None:
    path = patient.changed(by, max_forgetting)
    if apply:
        from tuneloop.loop import begin
        from tuneloop.recipe import load
        from tuneloop.record import RunFolder

        recipe = load(path)
        made = RunFolder.create(recipe.name, patient.folder.path.parent)
        begin(recipe, made)
        _run(path, made, as_json, mended_from={"run": patient.folder.path.name, "by": by})
    elif as_json:
        print_json({"recipe": str(path)})
    else:
        console.print(f"{escape(str(path))} is written. Run it: [bold]tuneloop run {escape(str(path))}[/]",
                      soft_wrap=True)


def _run(recipe: Path, folder: RunFolder, as_json: bool, **noted: Any) -> None:
    """To the certificate; leaves with the exit code of its verdict. `noted` goes into the record."""
    from tuneloop.evaluation.certificate import exit_code
    from tuneloop.loop import run as run_loop
    from tuneloop.recipe import load
    from tuneloop.terminal import show_verdict

    with _watching(as_json) as watch:
        watch.say(f"run folder: {folder.path}")
        try:
            certificate = run_loop(load(recipe), folder, watch)
        except UserError:
            folder.discard_if_nothing_was_done()
            raise
        finally:
            if noted and folder.has("record.json"):
                folder.update_record(**noted)
    if as_json:
        print_json(certificate | {"folder": str(folder.path)})
    else:
        show_verdict(console, certificate)
        console.print(f"Report: [bold]{escape(str(folder.file('report.html')))}[/]", soft_wrap=True)
    raise typer.Exit(exit_code(certificate["verdict"]))


def _watching(as_json: bool) -> Any:
    from tuneloop.terminal import Terminal
    from tuneloop.training.watch import Silent

    silent: Watcher = Silent()
    return nullcontext(silent) if as_json else Terminal(console)
