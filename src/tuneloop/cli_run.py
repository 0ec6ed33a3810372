"""`tuneloop run`: one run, or several that are put together. Registered in `cli`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Runs, Words, complain, console, find_run, print_json, recipe_of
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.data.leave_out import Cluster
    from tuneloop.recipe import Recipe
    from tuneloop.record import RunFolder
    from tuneloop.training.watch import Watcher

Seeds = Annotated[int | None, typer.Option(help="train so often, each time with another training.seed, and say what "
                                                "the recipe reaches", show_default=False)]
Clusters = Annotated[int | None, typer.Option(metavar="K", help="sort the rows into so many clusters of similar "
                                              "wording, train once without each, and say what the recipe reaches on "
                                              "kinds of rows that training did not see", show_default=False)]


def run(words: Words = None,
        until: Annotated[str, typer.Option(help="stop after: check, plan, baseline, train, evaluate")] = "evaluate",
        resume: Annotated[str | None, typer.Option(metavar="RUN", help="continue a run; with --leave-out-clusters, all "
                                                   "runs that belong to it")] = None,
        folder: Annotated[Path | None, typer.Option(help="the run's folder, instead of a new one under --runs")] = None,
        seeds: Seeds = None, leave_out_clusters: Clusters = None,
        runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Check, plan, baseline, train, evaluate, certify."""
    from tuneloop.loop import STAGES

    if until not in STAGES:
        raise UserError(f"'{until}' is no stage.", wanted=f"one of: {', '.join(STAGES)}")
    if (seeds is not None or leave_out_clusters is not None) and (folder or until != "evaluate"):
        raise UserError("--seeds and --leave-out-clusters make several whole runs.",
                        fix="leave out --folder and --until")
    if resume is not None and (words or folder or seeds):
        raise UserError("A resumed run keeps its recipe and its folder.", fix="leave out everything but --resume RUN")
    if leave_out_clusters is not None:
        if seeds is not None:
            raise UserError("--seeds and --leave-out-clusters are two questions.", fix="ask one of them at a time")
        _leave_out(words or [], leave_out_clusters, find_run(resume, runs) if resume else None, runs, as_json)
    if resume is not None:
        from tuneloop.recipe import load

        found = find_run(resume, runs)
        execute(load(found.file("recipe.yaml")), found, until, as_json, fresh=False)
        return
    if seeds is not None:
        _seeds(words or [], seeds, runs, as_json)
    recipe = recipe_of(words)
    execute(recipe, new_folder(recipe, runs, folder), until, as_json)


def new_folder(recipe: Recipe, runs: Path, folder: Path | None) -> RunFolder:
    """A folder that holds the recipe: `folder`, or one with a name of its own under `runs`."""
    from tuneloop.loop import begin
    from tuneloop.record import RunFolder

    made = RunFolder.create_at(folder) if folder else RunFolder.create(recipe.name, runs)
    begin(recipe, made)
    return made


def execute(recipe: Recipe, folder: RunFolder, until: str, as_json: bool, *, fresh: bool = True) -> None:
    """Run, show the verdict, and leave with its exit code."""
    from tuneloop.evaluation.certificate import exit_code
    from tuneloop.terminal import show_verdict

    result = _run(recipe, folder, f"run folder: {folder.path}", as_json, until=until, fresh=fresh)
    if as_json:
        print_json(result | {"folder": str(folder.path)})
    elif "verdict" in result:
        show_verdict(console, result)
        console.print(f"Report: [bold]{folder.file('report.html')}[/]")
    elif "not_needed" in result:
        console.print(escape(result["not_needed"]), soft_wrap=True)
        console.print("Nothing was trained, as training.only_if_needed asks.")
    else:
        console.print(f"Stopped after '{until}'. Continue: [bold]tuneloop run --resume {folder.path}[/]")
    if "verdict" in result:
        raise typer.Exit(exit_code(result["verdict"]))


def _run(recipe: Recipe, folder: RunFolder, said: str, as_json: bool, *, until: str = "evaluate", fresh: bool = True,
         more: str = "") -> dict[str, Any]:
    """The loop; `more` is what else to type to go on after an interruption."""
    from tuneloop.loop import run as run_loop

    try:
        with watching(as_json) as watch:
            watch.say(said)
            return run_loop(recipe, folder, watch, until)
    except UserError:
        if fresh:
            folder.discard_if_nothing_was_done()
        raise
    except KeyboardInterrupt:
        complain(f"Interrupted. What was finished is kept; continue with `tuneloop run --resume {folder.path}{more}`.")
        raise typer.Exit(1) from None


# ── several runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

def _whole(result: dict[str, Any]) -> None:
    """Raise a UserError for a run that ended before training: several are put together by their certificates."""
    if "not_needed" in result:
        raise UserError(result["not_needed"], fix="leave out training.only_if_needed where several runs are made")


def _seeds(words: list[str], seeds: int, runs: Path, as_json: bool) -> NoReturn:
    """A run for each seed, and what they say together."""
    from tuneloop import several

    several.require_seeds(seeds)
    first = recipe_of(words).training_seed
    done = []
    for seed in range(first, first + seeds):
        recipe = recipe_of([*words, f"training.seed={seed}"])
        done.append(new_folder(recipe, runs, None))
        _whole(_run(recipe, done[-1], f"seed {seed}: {done[-1].path}", as_json))
    found = several.together(done)
    _tell(found, several.write(done, found), [found["sentence"]], as_json)


def _leave_out(words: list[str], count: int, resumed: RunFolder | None, runs: Path, as_json: bool) -> NoReturn:
    """A run without each cluster, and what they say together; of runs that began before, those that are not finished.
    """
    from tuneloop import leave_out

    leave_out.require_clusters(count)
    recipe_with = _recipe_of_run(resumed, count) if resumed else lambda more: recipe_of([*words, *more])
    with watching(as_json) as watch:
        plan = leave_out.plan(recipe_with, count, watch)
        for one in plan.clusters:
            watch.say(f"{one.name}: {one.train:,} training rows and {one.test:,} test rows")
        for small in plan.skipped:
            watch.say(f"not left out: {small.cluster.name}, as {small.why}")

    def run_without(cluster: Cluster) -> RunFolder:
        recipe = leave_out.recipe_without(recipe_with, count, cluster)
        known = leave_out.run_of(recipe, resumed) if resumed else None
        folder = known or new_folder(recipe, resumed.path.parent if resumed else runs, None)
        if not folder.has("certificate.json"):
            _whole(_run(recipe, folder, f"without {cluster.name}: {folder.path}", as_json, fresh=known is None,
                        more=f" --leave-out-clusters {count}"))
        return folder

    done, skipped = leave_out.run_each(plan, run_without)
    found = leave_out.together(done, skipped)
    _tell(found, leave_out.write(done, found), leave_out.lines(found), as_json)


def _recipe_of_run(run: RunFolder, count: int) -> Callable[[list[str]], Recipe]:
    """The recipe of a run of --leave-out-clusters `count`, with other overrides. Raises UserError for another run."""
    from tuneloop.recipe import load

    left = load(run.file("recipe.yaml")).data.split.leave_out
    if left is None or left.cluster is None or left.clusters != count:
        raise UserError(f"{run.path} is no run of --leave-out-clusters {count}.",
                        fix=f"--leave-out-clusters {left.clusters}" if left else "leave out --leave-out-clusters")
    return lambda more: load(run.file("recipe.yaml"), more)


def _tell(found: dict[str, Any], place: Path, lines: list[str], as_json: bool) -> NoReturn:
    """What several runs say together; leaves with the exit code of its verdict."""
    from tuneloop.evaluation.certificate import exit_code

    if as_json:
        print_json(found | {"file": str(place)})
    else:
        console.print(escape("\n".join([*lines, str(place)])), soft_wrap=True)
    raise typer.Exit(exit_code(found["verdict"]))


@contextmanager
def watching(as_json: bool) -> Iterator[Watcher]:
    """Progress on the terminal; nothing where one JSON value is wanted."""
    from tuneloop.terminal import Terminal
    from tuneloop.training.watch import Silent

    if as_json:
        yield Silent()
        return
    with Terminal(console) as terminal:
        yield terminal
