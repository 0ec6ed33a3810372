"""`tuneloop eval URL --garak PROBES`: a scan by garak, which runs in an environment of its own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from rich.markup import escape

from tuneloop.cli_base import console, print_json
from tuneloop.errors import UserError

OPTIONS = frozenset({"models", "garak", "garak_python", "key_env", "seed", "out", "as_json"})
"""Parameters of `eval` that mean something here."""


def attack(context: typer.Context) -> None:
    """Have garak attack the model that is named, and show how many of its answers passed each detector."""
    from tuneloop.evaluation.safety.garak import Endpoint, run_garak
    from tuneloop.inference.remote import Remote
    from tuneloop.judge_files import RESULT, check_out
    from tuneloop.record import write_json

    given = context.params
    called, probes = _asked(context)
    out = Path(given["out"]) if given["out"] else None
    check_out(out)
    url, _, model = called.partition("#")
    remote = Remote(url, model, given["key_env"])
    remote.check()
    with _folder(out) as folder:
        result = run_garak(Endpoint(remote.url, remote.model), probes, Path(folder),
                           python=given["garak_python"] or "python", key=os.environ.get(given["key_env"], ""),
                           seed=given["seed"])
    if out:
        write_json(out / RESULT, result)
    if given["as_json"]:
        print_json(result)
    else:
        _show(result, out)


def _asked(context: typer.Context) -> tuple[str, list[str]]:
    """The server's URL and the probes. Raises a UserError for whatever garak has no use for."""
    given = context.params
    if context.info_name != "eval":
        raise UserError("garak attacks one model.", fix=f"tuneloop eval URL#MODEL --garak {given['garak']}")
    called, *more = given["models"]
    probes = [name.strip() for name in (given["garak"] or "").split(",") if name.strip()]
    if not probes:
        raise UserError("No probe of garak is named.", wanted="such as --garak dan.Ablation_Dan_11_0,encoding")
    if more:
        raise UserError("eval takes one model.", fix="attack one after the other")
    if not called.startswith(("http://", "https://")):
        raise UserError(f"garak asks a model through a server, and {called} is none.",
                        wanted="a server behind the OpenAI API, such as http://127.0.0.1:8000/v1#MODEL")
    idle = [parameter.opts[-1] for parameter in context.command.params
            if parameter.name and parameter.name not in OPTIONS and _is_given(context, parameter.name)]
    if idle:
        raise UserError(f"{', '.join(idle)} means nothing for --garak, which brings prompts of its own.",
                        fix="leave it out")
    return called, probes


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _folder(out: Path | None) -> AbstractContextManager[Path | str]:
    return nullcontext(out) if out else TemporaryDirectory(prefix="tuneloop-garak-")


def _show(result: dict[str, Any], out: Path | None) -> None:
    from rich.table import Table

    console.print(f"[bold]{escape(result['model'])}[/] at {escape(result['url'])}: answers to garak's attacks that "
                  "passed its detectors", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("probe", "detector"):
        table.add_column(column, overflow="fold")
    for column in ("passed", "share", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in result["probes"]:
        rate = one["rate"]
        table.add_row(escape(one["probe"]), escape(one["detector"]), f"{one['passed']:,} of {one['judged']:,}",
                      *((f"{rate['value']:.3f}", f"{rate['low']:.3f} to {rate['high']:.3f}") if rate else ("", "")))
    console.print(table)
    for note in result["notes"]:
        console.print(f"[dim]•[/] {escape(note)}", soft_wrap=True)
    if out:
        console.print(f"garak's own report: [bold]{escape(str(out))}[/]", soft_wrap=True)
