"""`tuneloop data …`: versions of rows, what fixes make of them, and what a row leaves behind. Registered in `cli`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Runs, console, print_json
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from tuneloop.data.fixes.base import Again, Tools

data = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", add_completion=False,
                   help="Versions of rows: kept by content, with what they were made from. A recipe names one as "
                        "data:NAME or data:ID.")
Version = Annotated[str, typer.Argument(metavar="VERSION", help="a name, or 4 digits or more of an id")]
From = Annotated[str, typer.Argument(metavar="SOURCE", help="a file, a folder, or another source; or data:VERSION")]
Named = Annotated[str, typer.Option("--name", help="a name for the new version")]
Model = Annotated[str | None, typer.Option("--model", help="a base: it writes for augment by=paraphrase or "
                                           "self_instruct, and counts tokens for split_long and drop checks=proof")]
Template = Annotated[str | None, typer.Option(help="a template over the columns, as in a recipe")]


@data.command("list")
def list_(as_json: AsJson = False) -> None:
    """All versions, the newest first."""
    from rich.table import Table

    from tuneloop.data.versions.store import Store

    versions = [version for version in Store().versions() if not version.purged_into]
    if as_json:
        print_json([version.to_json() for version in versions])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("version", "names", "rows", "made", "from"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for version in versions:
        made_by = ", ".join(step["what"] for step in version.steps)
        origin = f"{made_by} of data:{version.parents[0][:16]}" if version.parents else version.source
        table.add_row(version.short, ", ".join(version.names), f"{version.rows:,}", version.created[:10],
                      escape(origin))
    console.print(table if versions else "There are no versions. `tuneloop data add FILE` makes one.")


@data.command()
def show(version: Version, as_json: AsJson = False) -> None:
    """A version, its parents, and every operation between them."""
    from tuneloop.data.commands import describe
    from tuneloop.data.versions.store import Store

    store = Store()
    if as_json:
        print_json(store.find(version).to_json())
        return
    _say(describe(store, version))


@data.command()
def add(source: From, name: Named = "", as_json: AsJson = False) -> None:
    """Keep the rows of a source as a version."""
    from tuneloop.data.commands import add as keep
    from tuneloop.data.versions.store import Store

    made = keep(source, Path.cwd(), Store(), name=name)
    if as_json:
        print_json(made.to_json())
    else:
        _say(made.lines())


@data.command()
def fix(source: From,
        fixes: Annotated[list[str], typer.Argument(metavar="FIX [KEY=VALUE]...", help="fixes in their order, each with "
                                                   "its options: deduplicate redact kinds=email", show_default=False)],
        name: Named = "", prompt: Template = None, answer: Template = None, model: Model = None,
        as_json: AsJson = False) -> None:
    """A new version with the rows mended, and a log of what was changed and why. The source stays as it is."""
    from tuneloop.data.commands import fix as mend
    from tuneloop.data.fix import parse_words
    from tuneloop.data.versions.store import Store

    made = mend(source, parse_words(fixes), Path.cwd(), Store(), name=name, prompt=prompt, answer=answer,
                tools=lambda again: _tools(again, model))
    if as_json:
        print_json(made.to_json())
    else:
        _say(made.lines())


@data.command()
def ground(documents: Annotated[str, typer.Argument(help="a document, or docs:FOLDER for a folder of them")],
           out: Annotated[Path, typer.Argument(help="a .jsonl file, which must not exist")],
           model: Annotated[str, typer.Option(help="a base that writes questions and answers")],
           per_passage: Annotated[int, typer.Option(min=1, max=20)] = 2) -> None:
    """Questions and answers about documents, each with the passage that it cites; unsupported ones are refused."""
    from tuneloop.answering import generator
    from tuneloop.data.documents.grounded import grounded_rows
    from tuneloop.data.read import open_source
    from tuneloop.record import write_atomic

    if out.exists():
        raise UserError(f"{out} exists already.", fix="choose another name, or remove it first")
    with console.status("reading and asking"):
        made = grounded_rows(open_source(documents, Path.cwd()).rows(), generator(model, Path.cwd()), per_passage)
    _say(made.refused.lines())
    if not made.rows:
        raise UserError(f"{model} wrote no question whose answer a passage supports.",
                        fix="a larger base: bases of some 100 million parameters rarely manage")
    write_atomic(out, "".join(json.dumps(row.values, ensure_ascii=False) + "\n" for row in made.rows))
    console.print(f"{escape(str(out))} holds {len(made.rows):,} rows. Read some before you train on them.")


@data.command()
def fixes(as_json: AsJson = False) -> None:
    """What can be mended, and with which options."""
    from tuneloop.data.fix import FIXES

    kinds = {name: FIXES.get(name) for name in FIXES.names}
    if as_json:
        print_json({name: kind.model_json_schema() for name, kind in kinds.items()})
        return
    for name, kind in kinds.items():
        console.print(f"[bold]{name}[/]: {escape(kind.about)}")
        for key, field in kind.model_fields.items():
            if key != "kind":
                console.print(f"  {key}{escape(_default(field))}  [dim]{escape(field.description or '')}[/]",
                              soft_wrap=True)


@data.command()
def diff(before: Version, after: Version, as_json: AsJson = False) -> None:
    """Rows that one version has and another has not, and rows that were changed."""
    from tuneloop.data.versions.diff import diff as compare
    from tuneloop.data.versions.store import Store

    store = Store()
    found = compare(store, store.find(before), store.find(after))
    if as_json:
        print_json(found.to_json())
    else:
        _say(found.lines())


@data.command()
def export(version: Version, out: Annotated[Path, typer.Argument(help=".jsonl, .csv or .parquet")]) -> None:
    """Write the rows of a version to a file."""
    from tuneloop.data.versions.export import export as write
    from tuneloop.data.versions.store import Store

    store = Store()
    found = store.find(version)
    write(store, found, out)
    console.print(f"{escape(str(out))} holds the {found.rows:,} rows of {found.shown}.")


@data.command()
def verify(as_json: AsJson = False) -> None:
    """Read everything that is kept, and say what is damaged; 1 where something is."""
    from tuneloop.data.versions.store import Store

    problems = Store().verify()
    if as_json:
        print_json(problems)
    else:
        _say(problems or ["Every version is whole."])
    raise typer.Exit(1 if problems else 0)


@data.command()
def purge(row: Annotated[str, typer.Argument(metavar="ROW", help="FILE:LINE, VERSION:NUMBER, or a row's hash")],
          yes: Annotated[bool, typer.Option("--yes", help="remove what can be removed, for good")] = False,
          runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Every version, run, cache, log and adapter that has seen a row; with --yes what can be removed is removed."""
    from tuneloop.data.versions.purge import Places
    from tuneloop.data.versions.purge import purge as find_and_remove
    from tuneloop.data.versions.store import Store
    from tuneloop.evaluation.report import write_report
    from tuneloop.models import cache
    from tuneloop.record import RunFolder

    done = find_and_remove(row, Store(), Places(Path.cwd(), runs, cache.root()),
                           lambda folder: write_report(RunFolder.open(folder)), yes=yes)
    if as_json:
        print_json(done.to_json())
    else:
        _say(done.lines())


def _default(field: FieldInfo) -> str:
    """What an option is unless given, as one types it."""
    if field.is_required():
        return "=…"
    value = field.get_default(call_default_factory=True)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"={text}" if value not in (None, (), {}) else ""


def _tools(again: Again, model: str | None) -> Tools:
    from tuneloop.answering import generator
    from tuneloop.data.fixes.base import Tools
    from tuneloop.data.proof import with_tokenizer
    from tuneloop.models.resolve import resolve
    from tuneloop.models.tokenizer import ChatTokenizer

    if model is None:
        return Tools(again)
    return with_tokenizer(Tools(again, generator(model, Path.cwd())), ChatTokenizer(resolve(model, Path.cwd()).path))


def _say(lines: list[str]) -> None:
    for line in lines:
        console.print(escape(line), soft_wrap=True)
