"""The commands about rows: check, convert, and the versions of data. Registered in `cli`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from tuneloop.cli_base import AsJson, Lines, console, is_override, print_json, recipe_of
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.check import Subject
    from tuneloop.data.examine import Examined
    from tuneloop.data.findings import Finding
    from tuneloop.recipe import Recipe

RECIPES = (".yaml", ".yml")
WHAT = typer.Argument(help="a recipe, or data: a file, a folder, - for standard input, hub:OWNER/NAME, an SQLAlchemy "
                           "URL and #SELECT …; then key=value overrides", show_default=False)
COLOURS = {"blocks": "red", "fix": "yellow", "note": "dim"}
SHOWN_EXAMPLES = 2
EXAMPLE_WIDTH = 150
NARROWEST = 30


def check(words: Annotated[list[str] | None, WHAT] = None,
          base: Annotated[str | None, typer.Option(help="of data files: prove the loss mask with this base's chat "
                                                   "template")] = None,
          against: Annotated[list[str] | None, typer.Option(
              help="an evaluation set whose rows must not be among these; may be repeated")] = None,
          only: Annotated[str | None, typer.Option(help="these checks alone: duplicates,personal")] = None,
          deep: Annotated[bool, typer.Option("--deep", help="ask the base too: answers that surprise it, on a sample "
                                                            "of 500 rows; needs torch")] = False,
          html: Annotated[Path | None, typer.Option(help="write the report as a page too")] = None,
          as_json: AsJson = False) -> None:
    """What is wrong with rows, by file and line; of a recipe also the proof of its loss mask. Needs no torch.

    Exit codes: 0 ready, 3 fix first, 2 will not train.
    """
    from tuneloop.check import check as look
    from tuneloop.data.examine import refused
    from tuneloop.data.findings import EXIT_CODES
    from tuneloop.data.page import write_page

    named = [word for word in words or [] if not is_override(word)]
    of_recipe = not named or named[0].lower().endswith(RECIPES)
    if of_recipe and base:
        raise UserError("--base is for data files; a recipe names its base itself.", fix="leave --base out")
    recipe = recipe_of(words) if of_recipe else _recipe_around(words or [], named)
    if deep and not (of_recipe or base):
        raise UserError("--deep asks a base, and none is named.", fix="name one with --base")
    subject = _subject(recipe, recipe.base if of_recipe else base, of_recipe, against or [], deep)
    names = [name.strip() for name in only.split(",")] if only else None
    examined = look(subject, names=names, first_look=None if as_json else _show_first)
    if not as_json:
        _show(examined)
    report: dict[str, Any] = {}
    if of_recipe and examined.verdict != "will not train":
        try:
            report = _prepared(recipe, as_json)
        except UserError as error:      # of all rows together: too few, one label
            examined = examined.but(refused(error))
            if not as_json:
                _show_finding(examined.findings[0])
    if html:
        write_page(examined, html)
    if as_json:
        print_json(report | examined.to_json())
    else:
        _show_verdict(examined, html)
    raise typer.Exit(EXIT_CODES[examined.verdict])


def convert(source: Annotated[str, typer.Argument(help="a file, a folder, or another source of rows")],
            out: Annotated[Path, typer.Argument(help=".jsonl, .json, .csv or .parquet; it must not exist")],
            to: Annotated[str, typer.Option(help="chat, alpaca, sharegpt, prompt-completion, text, preference, "
                                                 "openai-preference, kto, ranked, rollouts, gemini, eval")],
            lossy: Annotated[bool, typer.Option("--lossy", help="leave out what cannot be read, and what the "
                                                                "format cannot hold; say what that was")] = False,
            prompt: Annotated[str | None, typer.Option(help="a template over plain columns, as in a recipe")] = None,
            answer: Annotated[str | None, typer.Option(help="the same for the answer")] = None) -> None:
    """Rows of any format as rows of another that can hold them."""
    from tuneloop.data.convert import convert_rows
    from tuneloop.data.examine import Reading, samples_of

    if out.exists():
        raise UserError(f"{out} exists already.", fix="choose another name, or remove it first")
    losses = Counter[str]() if lossy else None
    samples = samples_of(source, Reading(Path.cwd(), prompt=prompt, answer=answer), unread=losses)
    rows = convert_rows(samples, out, to, losses)
    console.print(f"{escape(str(out))} holds {rows:,} {to} rows.")
    for what, count in (losses or {}).items():
        console.print(f"[yellow]left out[/] of {count:,} rows: {escape(what)}", soft_wrap=True)


def _recipe_around(words: list[str], named: list[str]) -> Recipe:
    """A recipe with nothing but the file, so that overrides such as data.prompt mean what they mean in recipes."""
    import yaml

    from tuneloop.recipe import parse

    if len(named) > 1:
        raise UserError(f"More than one thing to look at: {', '.join(named)}.",
                        wanted="one source; data.test=FILE and data.validation=FILE name the files of the other parts")
    text = yaml.safe_dump({"base": "none", "data": {"train": named[0]}})
    return parse(text, shown="the command", root=Path.cwd(), overrides=[w for w in words if is_override(w)])


def _subject(recipe: Recipe, base: str | None, of_recipe: bool, against: list[str],
             deep: bool) -> Subject:
    from tuneloop.check import Subject
    from tuneloop.models.resolve import resolve
    from tuneloop.models.tokenizer import ChatTokenizer

    path = resolve(base, recipe.root, say=Lines().say).path if base else None
    sets = (*recipe.data.evaluation_sets, *(os.path.relpath(name, recipe.root) if Path(name).exists() else name
                                            for name in against))
    return Subject(recipe.data.model_copy(update={"evaluation_sets": sets}), recipe.root,
                   recipe.row_kind if of_recipe else None, ChatTokenizer(path) if path else None,
                   deep=path if deep else None, runs=Path("runs"))


def _prepared(recipe: Recipe, as_json: bool) -> dict[str, Any]:
    """What training would be given: the parts after everything that is removed. Said, or as JSON."""
    from tuneloop.prepared import Prepared
    from tuneloop.training.watch import Silent

    ready = Prepared(recipe, Silent() if as_json else Lines())
    if not as_json:
        for line in [*ready.base.notes, *ready.tokenizer.notes, *ready.rows.report.lines(), *ready.leaks]:
            console.print(escape(line))
    return ready.rows.report.to_json()


def _show_first(rows: int, findings: list[Finding]) -> None:
    """What the first rows show, for whoever waits for the rest."""
    console.print(f"[dim]A first look at {rows:,} rows; now all of them:[/]")
    for finding in findings:
        _show_finding(finding)
    console.rule(style="dim")


def _show(examined: Examined) -> None:
    for file in examined.files:
        _hang(f"{file.part}: ", f"[bold]{escape(file.file)}[/], {escape(file.about)}")
        for note in file.notes:
            _hang("  [dim]note:[/] ", f"[dim]{escape(note)}[/]")
    for finding in examined.findings:
        _show_finding(finding)
    if "loss_mask" in examined.facts and not any(f.check == "proof" and f.severity == "blocks"
                                                 for f in examined.findings):
        console.print("[green]Every row renders, and its loss mask covers exactly the answer and its end of turn.[/]")


def _show_finding(finding: Finding) -> None:
    colour = COLOURS[finding.severity]
    _hang(f"[{colour}]{finding.severity:>6}[/] ", f"[dim]{finding.check}[/]  {escape(str(finding))}")
    file = next(iter(finding.places.files)) if len(finding.places.files) == 1 else ""
    for example in finding.examples[:SHOWN_EXAMPLES]:       # a file that is named above is not named again
        _hang("         ", f"[dim]{escape(_short(example.replace(f'{file} line ', 'line ') if file else example))}[/]")
    if "tuneloop " in finding.fix:      # is copied, which line ends would spoil
        console.print(f"         → {escape(finding.fix)}", soft_wrap=True)
    elif finding.fix:
        _hang("         → ", escape(finding.fix))


def _hang(first: str, text: str) -> None:
    """`text` behind `first`; in a terminal words stay whole, and further lines begin below its first word."""
    if not console.is_terminal:         # lines of a file are searched and counted
        console.print(first + text, soft_wrap=True)
        return
    start = Text.from_markup(first)
    lines = Text.from_markup(text).wrap(console, max(console.width - start.cell_len, NARROWEST))
    for number, line in enumerate(lines):
        console.print((start if number == 0 else Text(" " * start.cell_len)) + line, soft_wrap=True)


def _show_verdict(examined: Examined, page: Path | None) -> None:
    colour = {"ready": "green", "fix first": "yellow", "will not train": "red"}[examined.verdict]
    counts = Counter[str](finding.severity for finding in examined.findings)
    said = {"blocks": "to stop training", "fix": "to fix first", "note": "worth knowing"}
    told = ", ".join(f"{counts[severity]} {what}" for severity, what in said.items() if counts[severity])
    console.print(f"[bold {colour}]{examined.verdict}[/]: {told or 'nothing was found'} "
                  f"[dim]({_count(examined.rows, 'row')}, {_count(len(examined.looked_for), 'check')}, "
                  f"{examined.seconds:.0f} s)[/]")
    if page:
        console.print(f"Report: [bold]{escape(str(page))}[/]")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXAMPLE_WIDTH else line[:EXAMPLE_WIDTH - 1] + "…"
