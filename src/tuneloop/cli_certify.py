"""`tuneloop certify` and `tuneloop replay`: make, sign and verify a certificate. Registered in `cli`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tuneloop.cli_base import AsJson, RunName, Runs, complain, console, find_run, print_json
from tuneloop.errors import UserError

if TYPE_CHECKING:
    from tuneloop.record import RunFolder


def certify(name: RunName,
            verify: Annotated[bool, typer.Option("--verify", help="check the certificate instead: signature, files, "
                                                 "scores, goal; 1 where something is wrong")] = False,
            key: Annotated[Path | None, typer.Option("--key", help="a file with the public key of who should have "
                                                     "signed, for --verify")] = None,
            pairs: Annotated[int | None, typer.Option("--pairs", min=1, help="write so many blind pairs for people to "
                                                      "judge, instead", show_default=False)] = None,
            runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Judge a finished run anew from its kept answers and what people said of its blind pairs, and sign the
    certificate; or --verify one."""
    folder = find_run(name, runs)
    if pairs is not None:
        _write_pairs(folder, pairs)
    elif verify:
        _verify(folder, key, as_json)
    elif key:
        raise UserError("--key is for --verify.", fix="certify with TUNELOOP_KEYS set, to sign with another key")
    else:
        _certify(folder, as_json)


def replay(name: RunName,
           steps: Annotated[int, typer.Option(min=1, help="optimizer steps to do again")] = 20,
           tolerance: Annotated[float | None, typer.Option(
               min=0, help="relative difference that passes; unless given, none on the machine and versions of the "
                           "run, 0.001 on others", show_default=False)] = None,
           runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Train the first steps of a run again from its record, and compare the losses; 1 where they differ."""
    from tuneloop.replay import replay as replay_run
    from tuneloop.terminal import Terminal
    from tuneloop.training.watch import Silent

    folder = find_run(name, runs)
    with nullcontext(Silent()) if as_json else Terminal(console) as watch:
        found = replay_run(folder, steps, tolerance, watch)
    if as_json:
        print_json(found.to_json())
    else:
        for line in found.lines():
            console.print(escape(line), soft_wrap=True)
    raise typer.Exit(0 if found.equal else 1)


def _write_pairs(folder: RunFolder, count: int) -> None:
    from tuneloop.evaluation.blind import FOLDER, JUDGEMENTS, PAIRS, VERDICTS, ask_for

    made = len(ask_for(folder, count))
    console.print(escape(
        f"{made} pairs are in {folder.file(FOLDER, PAIRS)}. Judge them on a page: tuneloop rank {folder.path}\n"
        f"Or write a line for each into {folder.file(FOLDER, JUDGEMENTS)}:\n"
        f'{{"pair": "…", "verdict": "{" | ".join(VERDICTS)}", "annotator": "your name"}}\n'
        f"Then: tuneloop certify {folder.path}"), soft_wrap=True)


def _verify(folder: RunFolder, key: Path | None, as_json: bool) -> None:
    from tuneloop.evaluation.signing import verify

    found = verify(folder.path, key)
    if as_json:
        print_json(found.to_json())
    else:
        for good, text in found.lines():
            mark = {True: "[green]ok[/]   ", False: "[red]WRONG[/]", None: "[dim]note[/] "}[good]
            console.print(f"{mark} {escape(text)}", soft_wrap=True)
    raise typer.Exit(0 if found.ok else 1)


def _certify(folder: RunFolder, as_json: bool) -> None:
    """By the loop, which asks no model again whose answers are kept."""
    from tuneloop.evaluation.certificate import exit_code
    from tuneloop.evaluation.signing import verify
    from tuneloop.loop import run as run_loop
    from tuneloop.recipe import load
    from tuneloop.terminal import Terminal, show_verdict
    from tuneloop.training.watch import Silent

    if not folder.has("evaluation", "tuned.json"):
        raise UserError(f"{folder.path} is not finished: it has no answers of the tuned model.",
                        fix=f"tuneloop run --resume {folder.path}")
    if folder.has("certificate.json"):
        before = verify(folder.path)
        for file in [*before.changed, *before.missing]:
            complain(f"{file} is not what the certificate was made from; the new one speaks of what is there now.")
    with nullcontext(Silent()) if as_json else Terminal(console) as watch:
        certificate = run_loop(load(folder.file("recipe.yaml")), folder, watch)
    if as_json:
        print_json(certificate)
    else:
        show_verdict(console, certificate)
        signature = certificate["signature"]
        console.print(escape(f"Signed with {signature['public_key']}." if signature["algorithm"] else
                             f"Unsigned. {signature['why']}"), soft_wrap=True)
    raise typer.Exit(exit_code(certificate["verdict"]))
