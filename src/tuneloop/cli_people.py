"""`tuneloop collect` and `tuneloop rank`: answers of models, and what people say of them. Registered in `cli`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, Runs, Words, console, print_json, recipe_of
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.ranking import Target

PORT = 8765
Only = Annotated[list[str] | None, typer.Option(help="for --export: take only what this annotator said; may be "
                                                "repeated", show_default=False)]
Without = Annotated[list[str] | None, typer.Option(help="for --export: leave out what this annotator said; may be "
                                                   "repeated", show_default=False)]
Target_ = Annotated[str, typer.Argument(metavar="FILE_OR_RUN", help="a file of collected answers, or any rows with "
                                        "several answers to a prompt; or a run, whose base and tuned model are judged "
                                        "blind for its certificate", show_default=False)]


# ── collect ──────────────────────────────────────────────────────────────────────────────────────────────────────────

def collect(words: Words = None,
            models: Annotated[str, typer.Option(help="who answers: base, runs, folders, URLs, with commas between")
                              ] = "base",
            n: Annotated[int, typer.Option("--n", min=1, max=64, help="answers of each model to each prompt")] = 4,
            temperature: Annotated[str, typer.Option(help="one, or several that are taken in turn: 0.7,1.0")] = "1.0",
            top_p: Annotated[float, typer.Option(min=0.01, max=1)] = 1.0,
            max_new_tokens: Annotated[int | None, typer.Option(min=1, help="evaluation.max_new_tokens unless given",
                                                               show_default=False)] = None,
            prompts: Annotated[int | None, typer.Option(min=1, help="so many prompts at random; all unless given",
                                                        show_default=False)] = None,
            source: Annotated[str | None, typer.Option("--from", help="take the prompts of this file or source, "
                                                       "instead of those that the recipe trains on",
                                                       show_default=False)] = None,
            out: Annotated[Path, typer.Option(help="a .jsonl file; one that is there is gone on with")
                           ] = Path("collected.jsonl"),
            name: Annotated[str, typer.Option(help="a name for the version of data that it becomes",
                                              show_default=False)] = "",
            key_env: Annotated[str, typer.Option(help="the environment variable with the key of servers",
                                                 show_default=False)] = "",
            runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Collect answers of one or several models to the training prompts of a recipe, for people to judge."""
    from tuneloop import cli_run, collecting
    from tuneloop.data.versions.store import Store
    from tuneloop.people.collect import Asking

    if out.suffix != ".jsonl":
        raise UserError(f"{out} is no .jsonl file.", fix=f"--out {out.with_suffix('.jsonl')}")
    recipe = recipe_of(words)
    how = Asking(n, _temperatures(temperature), top_p, max_new_tokens or recipe.evaluation.max_new_tokens, recipe.seed)
    with cli_run.watching(as_json) as watch:
        asked = collecting.prompts_of(recipe, source, prompts)
        for note in asked.notes:
            watch.say(note)
        opened = collecting.open_models(recipe, [part.strip() for part in models.split(",") if part.strip()], runs,
                                        key_env, watch)
        watch.say(f"{len(asked.prompts):,} prompts, {how.n} answers of each of {', '.join(opened)}")
        found = collecting.run(recipe, asked, opened, how, out, watch)
    version = collecting.keep(out, name, asked, opened, how, Store())
    if as_json:
        print_json(vars(found) | {"file": str(out), "version": version.id})
        return
    _say([*found.lines(), f"{out} is written, and is the version {version.shown}.", f"Next: tuneloop rank {out}"])


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (-1.0,)
    if any(not 0 <= one <= 10 for one in found) or len(set(found)) < len(found):
        raise UserError(f"--temperature {text} is no list of temperatures.",
                        wanted="different numbers from 0 to 10 with commas between, such as 0.7,1.0")
    return found


# ── rank ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

def rank(target: Target_,
         ask: Annotated[str | None, typer.Option(help="compare (unless given): two answers; order: all answers of a "
                                                 "prompt; thumbs or stars: one answer", show_default=False)] = None,
         annotator: Annotated[str | None, typer.Option(help="who judges; the page asks unless given",
                                                       show_default=False)] = None,
         port: Annotated[int, typer.Option(min=0, max=65535, help="of the page; 0 takes a free one")] = PORT,
         terminal: Annotated[bool, typer.Option("--terminal", help="judge here and not on a page")] = False,
         per_prompt: Annotated[int | None, typer.Option(min=1, help="compare: so many pairs of each prompt; all unless "
                                                        "given", show_default=False)] = None,
         pairs: Annotated[int | None, typer.Option(min=1, help="of a run: so many blind pairs; 40 unless given",
                                                   show_default=False)] = None,
         checks: Annotated[float | None, typer.Option(help="tests of attention for each item, 0 for none; 0.1 unless "
                                                      "given, of a run 0.25", show_default=False)] = None,
         shared: Annotated[float, typer.Option(help="the share of items that everybody judges; of the others each is "
                                               "judged by one person")] = 1.0,
         judge: Annotated[str | None, typer.Option(help="have a model judge, beside people: any name that `tuneloop "
                                                   "eval` takes", show_default=False)] = None,
         rubric: Annotated[Path | None, typer.Option(help="for --judge: a text file that says what counts",
                                                     show_default=False)] = None,
         key_env: Annotated[str, typer.Option(help="for --judge: the environment variable with its server's key",
                                              show_default=False)] = "",
         status: Annotated[bool, typer.Option("--status", help="say how far the judging is, agreement, and who clicks "
                                              "at random")] = False,
         export: Annotated[str | None, typer.Option(help="write what was said as rows: preference, kto, ranked, sft, "
                                                    "rollouts", show_default=False)] = None,
         out: Annotated[Path | None, typer.Option(help="for --export: a new .jsonl file", show_default=False)] = None,
         only: Only = None, without: Without = None,
         source: Annotated[str, typer.Option(help="for --export: person, model or all")] = "person",
         each: Annotated[bool, typer.Option("--each", help="for --export: a row for each judgement, instead of what "
                                            "most people said")] = False,
         runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Have people judge answers blind, on a page of this machine or in the terminal; or export what they said."""
    from tuneloop.people.export import FORMATS
    from tuneloop.people.items import ASKS
    from tuneloop.ranking import Asked, open_target

    _check_modes({"--export": export, "--judge": judge, "--status": status, "--terminal": terminal})
    _check_needs("--export", export, {"--out": out, "--only": only, "--without": without, "--each": each})
    _check_needs("--judge", judge, {"--rubric": rubric, "--key-env": key_env})
    _one_of("--ask", ask, ASKS)
    _one_of("--export", export, FORMATS)
    _one_of("--source", source, ("person", "model", "all"))
    found = open_target(target, runs, Asked(ask, per_prompt, pairs, checks, shared))    # type: ignore[arg-type]
    try:
        if export is not None:
            whose = {"only": only or (), "without": without or (), "source": source, "each": each}
            _export(found, export, out, whose, as_json)
        elif judge is not None:
            _judge(found, judge, rubric, key_env, runs, as_json)
        elif status:
            _status(found, as_json)
        elif terminal:
            _in_terminal(found, annotator)
        else:
            _on_page(found, port, annotator)
    finally:
        found.store.close()


def _check_modes(modes: dict[str, object]) -> None:
    given = [mode for mode, value in modes.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} are different things.", fix="one of them at a time")


def _check_needs(mode: str, chosen: object, options: dict[str, object]) -> None:
    lost = [option for option, value in options.items() if value]
    if lost and not chosen:
        raise UserError(f"{', '.join(lost)} means nothing without {mode}.", fix=f"leave it out, or add {mode}")


def _one_of(option: str, given: str | None, known: Sequence[str]) -> None:
    if given is not None and given not in known:
        raise UserError(f"{option} is {given!r}.", wanted=f"one of: {', '.join(known)}")


def _export(target: Target, form: Any, out: Path | None, whose: dict[str, Any], as_json: bool) -> None:
    found, at_random = target.export(form, out, **whose)
    if as_json:
        print_json({"file": str(out), "rows": len(found.rows), "left_out": dict(found.left_out),
                    "at_random": at_random})
        return
    _say(found.lines(str(out), form))
    for name in at_random:
        console.print(escape(f"{name} seems to click at random, and what they said is in these rows; "
                             f"--without {shlex.quote(name)} leaves it out."), style="yellow", soft_wrap=True)


def _judge(target: Target, called: str, rubric: Path | None, key_env: str, runs: Path, as_json: bool) -> None:
    from tuneloop import cli_run

    with cli_run.watching(as_json) as watch:
        found = target.judge(called, rubric, key_env, runs, watch)
    standing = target.standing()
    if as_json:
        print_json({"judge": found.to_json(), **standing.to_json()})
        return
    _say([*found.lines(), *(one.sentence() for one in standing.judges if one.judge == found.judge)])


def _status(target: Target, as_json: bool) -> None:
    standing = target.standing()
    if as_json:
        print_json(standing.to_json())
    else:
        _say(standing.lines())


def _in_terminal(target: Target, annotator: str | None) -> None:
    from tuneloop.people.terminal import Terminal, edited

    desk = target.desk(annotator or typer.prompt("Your name"))
    Terminal(desk, console, typer.getchar, lambda what: str(typer.prompt(what, default="", show_default=False)),
             edited, target.standing).run()
    _say(target.next_steps)


def _on_page(target: Target, port: int, annotator: str | None) -> None:
    from tuneloop.people import page
    from tuneloop.people.desk import checked_name

    page.check_installed()
    name = checked_name(annotator) if annotator else None
    with page.listen(port) as sock:
        console.print(escape(f"{target.title}: {len(target.work.items):,} to judge at {page.address(sock, name)}\n"
                             "Open it in a browser; Ctrl-C ends it. Everything is kept at once."), soft_wrap=True)
        page.serve(page.Room(target.work, target.store, target.title, target.saved, target.next_steps), sock, name)
    _say([*target.standing().lines(), *(f"Next: {step}" for step in target.next_steps)])


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(escape(line), soft_wrap=True)
