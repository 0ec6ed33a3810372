"""The command line: thin, every command imports what it needs when it runs. Exit codes are in `errors` and DESIGN."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tuneloop import (
    cli_certify,
    cli_data,
    cli_eval,
    cli_mend,
    cli_people,
    cli_plan,
    cli_run,
    cli_search,
    cli_versions,
)
from tuneloop.cli_base import (
    BRIDGES,
    DATA,
    JUDGE,
    PEOPLE,
    START,
    TRAIN,
    USE,
    AsJson,
    Kind,
    RunName,
    Runs,
    app,
    complain,
    console,
    find_run,
    print_json,
)
from tuneloop.errors import TrainingFailed, UserError

if TYPE_CHECKING:
    from tuneloop.record import RunFolder

def main() -> None:
    """Entry point: a user error is printed, not a traceback."""
    _quieten()
    try:
        app()
    except UserError as error:
        complain(error.text)
        sys.exit(error.exit_code)


def _quieten() -> None:
    """Other libraries' advice to programmers is no help to whoever runs a command."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for name in ("transformers", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


# ── Start ────────────────────────────────────────────────────────────────────────────────────────────────────────────

@app.command(rich_help_panel=START)
def demo(overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
         runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """The whole loop on real film reviews, minutes on a CPU."""
    from tuneloop.demo import RECIPE as TEXT
    from tuneloop.demo import fetch_rows
    from tuneloop.recipe import parse

    with console.status("fetching the reviews (13 MB, once)"):
        rows = fetch_rows()
    if not as_json:
        console.print(f"[dim]{escape(TEXT)}[/]")
    recipe = parse(TEXT, shown="the demo's recipe", root=rows.parent, overrides=overrides or [])
    cli_run.execute(recipe, cli_run.new_folder(recipe, runs, None), "evaluate", as_json)


@app.command(rich_help_panel=START)
def init(data: Annotated[str, typer.Argument(help="a data file, a folder, or another source of rows")],
         base: Annotated[str, typer.Option(help="the model to start from")] = "smollm2-135m-instruct",
         out: Annotated[Path, typer.Option(help="where the recipe goes")] = Path("recipe.yaml")) -> None:
    """Look at a data file, show three rows as the model will see them, write a commented recipe."""
    from tuneloop.data.guess import guess, recipe_text, shown
    from tuneloop.record import write_atomic

    found = guess(data, os.path.relpath(data, out.parent) if Path(data).exists() else data)
    if out.exists():
        raise UserError(f"{out} exists already.", fix="choose another name with --out")
    try:
        write_atomic(out, recipe_text(found, base))
    except TrainingFailed as error:
        raise UserError(error.found, fix="choose another place with --out") from error
    console.print(f"[bold]{escape(found.file)}[/]: {found.rows} rows. {escape(found.sentence)}")
    for note in found.notes:
        console.print(f"[dim]•[/] {escape(note)}")
    for row in found.examples:
        console.rule(style="dim")
        for heading, text in shown(row):
            console.print(f"[bold]{heading}[/]: {escape(text[:600])}")
    console.rule(style="dim")
    console.print(f"{out} is written. Look at it, then: [bold]tuneloop check {out}[/], [bold]tuneloop run {out}[/]")


@app.command(rich_help_panel=START)
def models(action: Annotated[str, typer.Argument(metavar="[fetch]", show_default=False)] = "",
           name: Annotated[str, typer.Argument(metavar="[NAME]", show_default=False)] = "",
           as_json: AsJson = False) -> None:
    """Bases by their short names: size, licence, does it fit here. `models fetch NAME` downloads one."""
    from tuneloop.models.aliases import aliases

    if action == "fetch" and name:
        from tuneloop.models.resolve import resolve

        base = resolve(name, Path.cwd(), say=console.print)
        console.print(f"{base.name} is at {base.path}")
        return
    if action:
        raise UserError(f"'models {action} {name}' is no command.", wanted="models, or models fetch NAME")
    import psutil
    from rich.table import Table

    free = psutil.virtual_memory().available
    listed = [a.model_dump(exclude={"package"}) | {"fits": 4 * a.parameters + 600 * 2**20 < free}
              for a in aliases().values()]
    if as_json:
        print_json(listed)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "parameters", "licence", "fits here", "note"):
        table.add_column(column)
    for a in listed:
        table.add_row(a["name"], f"{a['parameters'] / 1e6:,.0f}M", a["licence"], "yes" if a["fits"] else "no",
                      "; ".join(filter(None, ["licence must be accepted on the hub" * a["gated"], a["warning"]])))
    console.print(table)


@app.command(rich_help_panel=START)
def doctor(as_json: AsJson = False) -> None:
    """This machine, versions, what will work here, and the command that mends the rest."""
    from dataclasses import asdict

    from tuneloop.doctor import examine

    findings = examine()
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        for f in findings:
            mark = {True: "[green]ok[/]  ", None: "[yellow]note[/]", False: "[red]bad[/] "}[f.ok]
            console.print(f"{mark} {f.name:<12} {escape(f.detail)}" + (f"\n     → {escape(f.fix)}" if f.fix else ""))
    if any(f.ok is False for f in findings):
        raise typer.Exit(1)


# ── Data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

app.command(rich_help_panel=DATA)(cli_data.check)
app.command(rich_help_panel=DATA)(cli_data.convert)
app.add_typer(cli_versions.data, name="data", rich_help_panel=DATA)


# ── Train ────────────────────────────────────────────────────────────────────────────────────────────────────────────

app.command(rich_help_panel=TRAIN)(cli_plan.plan)
app.command(rich_help_panel=TRAIN)(cli_run.run)
app.command(rich_help_panel=TRAIN)(cli_search.search)


# ── Judge ────────────────────────────────────────────────────────────────────────────────────────────────────────────

app.command("eval", rich_help_panel=JUDGE, help=cli_eval.EVAL)(cli_eval.judge_models)
app.command("compare", rich_help_panel=JUDGE, help=cli_eval.COMPARE)(cli_eval.judge_models)
app.command(rich_help_panel=JUDGE)(cli_certify.certify)
app.command(rich_help_panel=JUDGE)(cli_certify.replay)
app.command(rich_help_panel=JUDGE)(cli_mend.mend)


@app.command("runs", rich_help_panel=JUDGE)
def runs_(action: Annotated[str, typer.Argument(metavar="[show]", show_default=False)] = "",
          name: Annotated[str, typer.Argument(metavar="[RUN]", show_default=False)] = "latest",
          runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs; `runs show RUN` shows one."""
    if action == "show":
        _show_run(find_run(name, runs), as_json)
        return
    if action:
        raise UserError(f"'runs {action}' is no command.", wanted="runs, or runs show RUN")
    from tuneloop.record import find_runs

    listed = [_summary(folder) for folder in find_runs(runs)]
    if as_json:
        print_json(listed)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "base", "method", "objective", "verdict", "what"):
        table.add_column(column, no_wrap=column == "run", overflow="fold")
    for entry in listed:
        table.add_row(*(escape(str(v)) for v in entry.values()))
    console.print(table if listed else f"There are no runs in {runs}. `tuneloop demo` makes one.")


# ── People ───────────────────────────────────────────────────────────────────────────────────────────────────────────

app.command(rich_help_panel=PEOPLE)(cli_people.collect)
app.command(rich_help_panel=PEOPLE)(cli_people.rank)


# ── Use ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

@app.command(rich_help_panel=USE)
def chat(name: RunName,
         message: Annotated[str | None, typer.Option("--message", "-m", help="ask once and leave")] = None,
         raw: Annotated[bool, typer.Option("--raw", help="send what you type without the recipe's prompt")] = False,
         temperature: Annotated[float, typer.Option(min=0)] = 0.0,
         max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
         runs: Runs = Path("runs")) -> None:
    """Talk to the tuned model of a run."""
    from tuneloop.chat import talk

    talk(find_run(name, runs), console, message=message, raw=raw, temperature=temperature,
         max_new_tokens=max_new_tokens)


@app.command(rich_help_panel=USE)
def export(name: RunName,
           to: Annotated[str, typer.Option(help="merged: a plain Hugging Face model folder; adapter: a PEFT folder; "
                                                "gguf: a file for llama.cpp and Ollama")] = "merged",
           dtype: Annotated[str | None, typer.Option(help="merged: float32, float16 or bfloat16; as the base's files "
                                                          "unless given", show_default=False)] = None,
           quantise: Annotated[str | None, typer.Option(help="gguf: f16, q8_0 or q4_0; q8_0 unless given",
                                                        show_default=False)] = None,
           out: Annotated[Path | None, typer.Option(help="the folder it goes to; RUN/merged, RUN/exports/adapter or "
                                                         "RUN/gguf unless given", show_default=False)] = None,
           runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Write the result for other tools, after checking that it answers the same."""
    from tuneloop.export import export as write_export
    from tuneloop.export import sentences

    folder = find_run(name, runs)
    target = out or folder.file(*(("exports", "adapter") if to == "adapter" else (to,)))    # RUN/adapter is its own
    with console.status("writing and comparing") if not as_json else nullcontext():
        report = write_export(folder, to, target, dtype=dtype, quantise=quantise)
    if as_json:
        print_json(report)
        return
    for line in sentences(report):
        console.print(escape(line), soft_wrap=True)


@app.command(rich_help_panel=USE)
def combine(names: Annotated[list[str], typer.Argument(metavar="RUN_OR_FOLDER...", show_default=False,
                                                       help="runs, or folders of LoRA adapters, of one base")],
            weights: Annotated[str, typer.Option(help="one for each, such as 0.5,0.5")],
            out: Annotated[Path, typer.Option(help="the folder that gets the new adapter")],
            how: Annotated[str, typer.Option(help="linear, cat, svd, ties, dare_linear, dare_ties, ...")] = "ties",
            density: Annotated[float, typer.Option(help="ties, dare: the share of entries that are kept")] = 0.5,
            seed: Annotated[int, typer.Option(help="dare drops entries at random")] = 0,
            base: Annotated[str | None, typer.Option(help="the base, where no run or folder names it",
                                                     show_default=False)] = None,
            runs: Runs = Path("runs")) -> None:
    """Make one LoRA adapter from several."""
    from tuneloop.adapters import HOW, find_adapters, write_combined

    try:
        numbers = [float(part) for part in weights.split(",")]
    except ValueError:
        raise UserError(f"--weights {weights} are no numbers.", wanted="one for each, such as 0.5,0.5") from None
    if how not in HOW:
        raise UserError(f"'{how}' is no way to combine adapters.", wanted="one of " + ", ".join(HOW))
    root, folders = find_adapters(names, runs, base)
    with console.status("combining"):
        write_combined(root, folders, numbers, how, out, density=density, seed=seed)
    console.print(f"{out} combines {len(folders)} adapters by {how}. It is a PEFT adapter for the same base.")


# ── Bridges ──────────────────────────────────────────────────────────────────────────────────────────────────────────

@app.command(rich_help_panel=BRIDGES)
def schema() -> None:
    """JSON schema of the recipe, for editors."""
    from tuneloop.recipe import schema as recipe_schema

    print_json(recipe_schema())


@app.command(rich_help_panel=BRIDGES)
def new(kind: Kind, name: Annotated[str, typer.Argument(help="what to call it, such as my_loss")],
        into: Annotated[Path, typer.Option(help="the folder that gets the two files")] = Path()) -> None:
    """Start an objective of your own: a loss that works, with comments, and its test."""
    from tuneloop.new import write_objective

    _only_objective("new", kind)
    code, test, reference = write_objective(name, into)
    console.print(f"{escape(str(code))} and {escape(str(test))} are written, and work as they are. Next:")
    for command, why in ((f"tuneloop test objective {reference}", "does it keep the contract"),
                         (f"python -m pytest {test}", "its own test, by hand"),
                         (f"tuneloop run recipe.yaml objective={code.resolve()}:{reference.rpartition(':')[2]}",
                          "train with it")):
        console.print(f"  [bold]{escape(command)}[/]  [dim]{why}[/]", soft_wrap=True)


@app.command("test", rich_help_panel=BRIDGES)
def try_out(kind: Kind, name: Annotated[str, typer.Argument(help="./my_loss.py:MyLoss, or the name of a built-in one")],
            options: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
            detaches: Annotated[bool, typer.Option("--detaches", help="the loss cuts gradients off on purpose: leave "
                                                   "out the comparison with finite differences")] = False,
            as_json: AsJson = False) -> None:
    """Try an objective on a tiny model: its gradient, its sums, its needs. Seconds; 1 where a check fails."""
    from tuneloop.recipe import objective_of

    _only_objective("test", kind)
    objective = objective_of(name, options or [], Path.cwd())
    with console.status("trying it") if not as_json else nullcontext():
        from tuneloop.prove import prove

        checks = prove(objective, detaches=detaches)
    good = all(check.ok for check in checks)
    if as_json:
        print_json({"objective": name, "ok": good, "checks": [check.to_json() for check in checks]})
    else:
        from tuneloop.terminal import show_checks

        show_checks(console, name, checks)
    raise typer.Exit(0 if good else 1)


def _only_objective(command: str, kind: str) -> None:
    if kind != "objective":
        raise UserError(f"'tuneloop {command} {kind}' is no command.", wanted=f"tuneloop {command} objective NAME")


# ── shared by the commands ───────────────────────────────────────────────────────────────────────────────────────────

def _summary(folder: RunFolder) -> dict[str, str]:
    try:
        record = folder.read("record.json") if folder.has("record.json") else {}
        certificate = folder.read("certificate.json") if folder.has("certificate.json") else {}
    except UserError as error:      # one broken run must not hide the others
        record, certificate = {}, {"verdict": "unreadable", "sentence": error.found}
    kinds = {part: record.get(part, {}).get("kind", "?") for part in ("method", "objective")}
    return {"run": folder.path.name, "base": record.get("base", {}).get("name", "?"), **kinds,
            "verdict": certificate.get("verdict", "unfinished"), "what": certificate.get("sentence", "")}


def _show_run(folder: RunFolder, as_json: bool) -> None:
    from tuneloop import truth
    from tuneloop.terminal import plan_table, show_verdict

    record = folder.read("record.json") if folder.has("record.json") else {}
    certificate = folder.read("certificate.json") if folder.has("certificate.json") else None
    if as_json:
        print_json({"record": record, "certificate": certificate})
        return
    console.print(f"[bold]{folder.path}[/]")
    if folder.has("plan.json"):
        console.print(plan_table(folder.read("plan.json")))
    for line in truth.lines(record.get("plan_truth", {})):
        console.print(f"  {line}", soft_wrap=True)
    for name, seconds in record.get("timings_seconds", {}).items():
        console.print(f"  {name}: {seconds:.0f} s")
    if certificate:
        show_verdict(console, certificate)
    else:
        console.print(f"Unfinished. Continue: [bold]tuneloop run --resume {folder.path}[/]")
