"""What the modules of the command line share: the app, its panels and arguments, and how things are said."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.recipe import Recipe
    from tuneloop.record import RunFolder

app = typer.Typer(name="tuneloop", no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
                  pretty_exceptions_enable=False,
                  help="Fine-tune a language model on your examples, and prove whether the result is better.",
                  epilog="Exit codes: 0 done, goal met; 1 failed; 2 input wrong; 3 goal not met; 4 undecided.")
START, DATA, TRAIN, JUDGE, PEOPLE = "Start", "Data", "Train", "Judge", "People"
USE, BRIDGES = "Use", "Bridges"
console = Console(highlight=False, emoji=False)

RECIPE = typer.Argument(help="the recipe, then key=value overrides such as training.epochs=1", show_default=False)
Words = Annotated[list[str] | None, RECIPE]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON value, for machines")]
Runs = Annotated[Path, typer.Option("--runs", help="the folder that holds the runs")]
Kind = Annotated[str, typer.Argument(metavar="objective", help="the kind of thing: objective", show_default=False)]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="a run's folder or name, or 'latest'")]


def complain(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="red", markup=False, soft_wrap=True)


class Lines:
    """A watcher that only says."""

    def stage(self, name: str, total: int | None) -> None: ...
    def advance(self, units: int) -> None: ...
    def metric(self, entry: dict[str, Any]) -> None: ...
    def sample(self, entry: dict[str, Any]) -> None: ...

    def say(self, text: str) -> None:
        console.print(f"[dim]•[/] {escape(text)}")


def recipe_of(words: list[str] | None) -> Recipe:
    """`[RECIPE] [KEY=VALUE]...`; the recipe is recipe.yaml unless named."""
    from tuneloop.recipe import load

    words = words or []
    named = [w for w in words if not is_override(w)]
    if len(named) > 1:
        raise UserError(f"More than one recipe: {', '.join(named)}.", wanted="one recipe, then key=value overrides")
    return load(Path(named[0]) if named else Path("recipe.yaml"), [w for w in words if is_override(w)])


def is_override(word: str) -> bool:
    """Whether it is `key=value`; a query in a URL is none."""
    return re.match(r"[A-Za-z_]\w*(\.\w+)*=", word) is not None


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def find_run(name: str, runs: Path) -> RunFolder:
    """A run by its folder, its name under `runs`, or 'latest'."""
    from tuneloop.record import RunFolder, find_runs

    if name == "latest":
        found = find_runs(runs)
        if not found:
            raise UserError(f"There are no runs in {runs}.", fix="`tuneloop run recipe.yaml` makes one")
        return found[0]
    return RunFolder.open(Path(name) if Path(name).is_dir() else runs / name)
