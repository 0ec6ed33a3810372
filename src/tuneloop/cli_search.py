"""`tuneloop search`: automatic fine-tuning, and how much data it takes. Registered in `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Runs, Words, complain, console, print_json, recipe_of
from tuneloop.cli_run import watching
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.search import Ahead, Limits
    from tuneloop.training.watch import Watcher

Minutes = Annotated[float | None, typer.Option(min=0.1, help="stop after so many minutes, the runs at the end included",
                                               show_default=False)]
Tokens = Annotated[int | None, typer.Option(min=1, help="stop after training on so many tokens", show_default=False)]
Usd = Annotated[float | None, typer.Option(min=0.01, help="stop when so much is spent, by the machine's price in "
                                                       "evaluation.price", show_default=False)]
Trials = Annotated[int | None, typer.Option(min=1, help="try at most so many recipes; 20 where nothing bounds them",
                                            show_default=False)]
Data = Annotated[bool, typer.Option("--data", help="ask how much data it takes instead: train on parts of the rows, "
                                                   "and say what more of them would bring")]

Resume = Annotated[str | None, typer.Option(metavar="STUDY", help="go on with a search that was cut off, or give it "
                                                                  "more", show_default=False)]


def search(words: Words = None, minutes: Minutes = None, tokens: Tokens = None, usd: Usd = None, trials: Trials = None,
           workers: Annotated[int, typer.Option(min=1, help="processes that try recipes at the same time")] = 1,
           resume: Resume = None,
           data: Data = False, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Automatic fine-tuning: try recipes on the validation rows within a budget, prove the best on the test rows."""
    if resume is not None and words:
        raise UserError("A resumed search keeps its recipe.",
                        fix="leave out everything but --resume STUDY and a budget")
    bounds = {"minutes": minutes, "tokens": tokens, "usd": usd}
    given = {name: value for name, value in bounds.items() if value is not None}
    if data:
        if given or trials or workers > 1:
            raise UserError("--data trains on parts of the rows, which needs no budget.",
                            fix="leave out --minutes, --tokens, --usd, --trials and --workers")
        _data(words, resume, runs, as_json)
    else:
        from tuneloop.search import Limits

        _search(words, resume, runs, Limits(given, trials, workers), as_json)


def _search(words: list[str] | None, resumed: str | None, runs: Path, limits: Limits, as_json: bool) -> None:
    from tuneloop import search as searches
    from tuneloop.evaluation.certificate import exit_code

    folder: Path | None = None
    try:
        with watching(as_json) as watch:
            if resumed is None:
                ahead = searches.look_ahead(recipe_of(words), watch)
                folder = searches.begin(ahead, runs)
            else:
                folder, ahead = searches.resume(resumed, runs, watch)
            _announce(ahead, folder, watch)
            result = searches.search(folder, ahead, limits, watch)
    except KeyboardInterrupt:
        _interrupted(folder)
    if as_json:
        print_json(result | {"folder": str(folder)})
    else:
        for line in searches.lines(result, folder):
            console.print(escape(line), soft_wrap=True)
    raise typer.Exit(exit_code(result["verdict"]))


def _data(words: list[str] | None, resumed: str | None, runs: Path, as_json: bool) -> None:
    from tuneloop import search_data

    folder: Path | None = None
    try:
        with watching(as_json) as watch:
            begun = search_data.begin(recipe_of(words), runs, watch) if resumed is None else \
                search_data.resume(resumed, runs, watch)
            folder, ready = begun
            result = search_data.run(folder, ready, watch)
    except KeyboardInterrupt:
        _interrupted(folder, " --data")
    if as_json:
        print_json(result | {"folder": str(folder)})
        return
    for line in result["advice"]:
        console.print(escape(line), soft_wrap=True)
    console.print(f"Everything: {escape(str(folder / search_data.RESULT))}", soft_wrap=True)


def _announce(ahead: Ahead, folder: Path, watch: Watcher) -> None:
    """What is going to be tried."""
    from tuneloop.evaluation.text import duration

    watch.say(f"folder of the search: {folder}")
    for branch in ahead.space.branches:
        chosen = [str(value) for value in (branch.method, branch.objective) if value is not None]
        watch.say(": ".join([" and ".join(chosen), ", ".join(map(str, branch.dimensions))] if chosen else
                            [f"tries {', '.join(map(str, branch.dimensions))}"]))
    trial, end = map(duration, ahead.seconds)
    watch.say(f"a trial will take about {trial} unless it is stopped early, the runs at the end {end}")
    on_the_way = ", on their way by the validation loss" if ahead.by_loss else ""
    watch.say(f"trials are compared by {ahead.metric} on {len(ahead.ready.test):,} validation rows{on_the_way}; the "
              f"best and the defaults on {ahead.ready.test_rows:,} test rows, {ahead.recipe.search.seeds} seeds each")


def _interrupted(folder: Path | None, more: str = "") -> NoReturn:
    complain("Interrupted." if folder is None else f"Interrupted. What was finished is kept; continue with `tuneloop "
             f"search{more} --resume {folder}`.")
    raise typer.Exit(1) from None
