"""What a run looks like in a terminal: stages with progress, the loss as it falls, answers to read along."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tuneloop.prove import Check

GIB = 2**30


class Terminal:
    """A watcher that draws one live line per stage and prints everything worth keeping above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(TextColumn("[bold]{task.description:<11}"), BarColumn(bar_width=24),
                                 MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.now = Text(style="dim")        # the last step in numbers, below the bars
        self.live = Live(Group(self.progress, self.now), console=console, refresh_per_second=4)
        self.task: Any = None
        self.validation_loss: float | None = None

    def __enter__(self) -> Terminal:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.now.plain = ""
        self.live.stop()

    def stage(self, name: str, total: int | None) -> None:
        self.now.plain = ""
        self.task = self.progress.add_task(name, total=total)

    def advance(self, units: int) -> None:
        self.progress.advance(self.task, units)

    def metric(self, entry: dict[str, Any]) -> None:
        if entry["event"] == "validation":
            self.validation_loss = entry["loss"]
            mark = "[green]best so far[/]" if entry["best"] else "not better"
            self.console.print(f"  step {entry['step']:>5}  validation loss {entry['loss']:.4f}  {mark}")
            return
        if entry["event"] == "memory":
            self.say(f"step {entry['step']}: {entry['why']}; from now on at most {entry['token_budget']} tokens at "
                     "once, with the same result")
            return
        validation = "" if self.validation_loss is None else f"  validation {self.validation_loss:.4f}"
        self.progress.update(self.task, completed=entry["step"])
        self.now.plain = (f"step {entry['step']}  loss {entry['loss']:.4f}{validation}  "
                          f"rate {entry['learning_rate']:.1e}  {entry['tokens_per_second']:.0f} tokens/s  "
                          f"{entry['memory_bytes'] / GIB:.1f} GiB")

    def sample(self, entry: dict[str, Any]) -> None:
        prompt = _short(entry["prompt"], 60)
        self.console.print(f"  [dim]{escape(prompt)}[/] → {escape(_short(entry['answer'], 40))} "
                           f"[dim](wanted: {escape(_short(entry['reference'], 40))})[/]")

    def say(self, text: str) -> None:
        self.console.print(f"[dim]•[/] {escape(text)}")


IN_SHORT = ("few_shot", "judge", "forgetting", "safety", "slices", "cost", "next")
"""The questions that a terminal answers; the report answers all of them."""

_COLOURS = {"good": "green", "bad": "red", "open": "yellow", "": "default"}


def show_verdict(console: Console, certificate: dict[str, Any]) -> None:
    """The certificate on one screen: the verdict, the scores it was decided on, and what else decides."""
    from tuneloop.evaluation.findings import findings

    colour = {"met": "green", "not met": "red"}.get(certificate["verdict"], "yellow")
    console.print()
    console.print(f"[bold {colour}]{escape(certificate['sentence'])}[/]")
    console.print(scores_table(certificate))
    table = Table.grid(padding=(0, 2))
    for one in findings(certificate):
        if one.key in IN_SHORT:
            answer = f"[{_COLOURS[one.tone]}]{escape(one.answer.lower())}[/]: " if one.answer else ""
            table.add_row(f"[dim]{escape(one.topic)}[/]", answer + escape(one.text))
    console.print(table)
    for note in certificate.get("notes", ()):
        console.print(f"[dim]{escape(note)}[/]")


def scores_table(certificate: dict[str, Any]) -> Table:
    """Scores of every model in the metric of the goal, with their 95 % intervals."""
    from tuneloop.evaluation.findings import leading
    from tuneloop.evaluation.text import called, in_order, metric_name, score, span

    scores, metric = certificate["scores"], leading(certificate)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(metric_name(metric))
    table.add_column("score", justify="right")
    table.add_column("95 % interval", style="dim")
    for name in in_order(scores):
        if of := scores[name].get(metric):
            table.add_row(escape(called(name)), score(metric, of["value"]), span(of, partial(score, metric)))
    return table


def plan_table(plan: dict[str, Any]) -> Table:
    """Every resolved value, where it came from and why."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("setting", "value", "origin", "why"):
        table.add_column(column)
    for key, value in plan["values"].items():
        shown = f"{value['value']:g}" if isinstance(value["value"], float) else str(value["value"])
        table.add_row(key, shown, value["origin"], value.get("why", ""))
    return table


def comparison_table(cells: Sequence[dict[str, Any]]) -> Table:
    """Methods × machines: does it fit, the peak of a device, time, money, power and disk."""
    from tuneloop.plan.compare import duration

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("machine", "method", "fits", "peak GB", "of", "time", "cost", "kWh", "disk GB"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("machine", "method", "fits") else "right")
    for one in cells:
        if one["fits"] == "refused":
            table.add_row(one["hardware"], one["method"], "[yellow]refused[/]")
            continue
        memory, colour = one["memory"], {"yes": "green", "tight": "yellow", "no": "red"}[one["fits"]]
        sharded = one["devices_used"] > 1
        table.add_row(one["hardware"], one["method"], f"[{colour}]{one['fits']}[/]" + (
                          f", over {one['devices_used']}" if sharded else ""),
                      f"{_gb(memory['total_bytes'])} ±{memory['error']:.0%}", _gb(memory["limit_bytes"]),
                      duration(one["seconds"]["total"]), "" if one["usd"] is None else f"${one['usd']:,.2f}",
                      "" if one["kwh"] is None else f"{one['kwh']:.2g}", _gb(one["disk_bytes"]))
    return table


def comparison_lines(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What stands below the table: each peak by part, what the figures rest on, and why a machine is refused."""
    lines, rest = [], dict[tuple[str, str], list[str]]()
    for one in cells:
        if parts := one["memory"]["parts"]:
            told = ", ".join(f"{name} {_gb(size)}" for name, size in parts.items())
            lines.append(f"{one['method']} on {one['hardware']}: {told} GB"
                         + ("; activations computed twice" if one["checkpointing"] else ""))
        rest.setdefault((one["hardware"], one["assumed"] or one["why"]), []).append(one["method"])
    return lines + [f"{hardware} ({', '.join(methods)}): {why}" for (hardware, why), methods in rest.items() if why]


def _gb(size: int) -> str:
    return f"{size / 1e9:,.0f}" if size >= 1e11 else f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"


def show_checks(console: Console, name: str, checks: Sequence[Check]) -> None:
    """What was tried on an objective, with the error that was measured, and below it what is wrong."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "check", "", "error", "at most"):
        table.add_column(column, justify="right" if column in ("error", "at most") else "left")
    for check in checks:
        mark = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "[dim]–[/]"}[check.ok]
        error, limit = ("" if x is None else f"{x:.1e}" for x in (check.error, check.limit))
        table.add_row(mark, check.name, check.what if check.ok is not None else f"[dim]{check.what}: not measured[/]",
                      error, limit)
    console.print(table)
    for check in checks:
        if check.why:
            console.print(f"[{'red' if check.ok is False else 'dim'}]{check.name}:[/] {escape(check.why)}")
    if all(check.ok for check in checks):
        console.print(f"[green]{escape(name)} keeps the contract of an objective.[/]")


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width - 1] + "…"
