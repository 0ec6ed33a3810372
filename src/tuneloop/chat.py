"""Talking to a tuned model in the terminal, word by word."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from tuneloop.record import RunFolder
from tuneloop.types import Message, Request, Sampling

if TYPE_CHECKING:
    from tuneloop.inference.local import Local


def talk(folder: RunFolder, console: Console, *, message: str | None, raw: bool, temperature: float,
         max_new_tokens: int) -> None:
    """Answer one `message`, or read from the terminal until /exit.

    Where the recipe's prompt has a single column, what is typed takes its place, since that is what the model was
    trained on; every message then stands alone. `raw` sends it as it is, with the conversation so far.
    """
    from tuneloop.inference.local import Local, in_use
    from tuneloop.recipe import load
    from tuneloop.session import open_run

    data = load(folder.file("recipe.yaml"), run_own_code=False).data
    pieces = _pieces(data.prompt)
    column = None if raw else _only_column(pieces)
    with console.status("loading the model"):
        model, tokenizer = open_run(folder)
        local = Local(model, tokenizer, name=folder.path.name, adapter=in_use(model))
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    system = [Message("system", data.system)] if data.system else []
    if message is None and column:
        console.print(f"[dim]What you type takes the place of {{{column}}} in the prompt this model was trained on:\n"
                      f"{escape(str(data.prompt))}\n--raw sends it as it is.[/]")
    history: list[Message] = []
    for typed in [message] if message is not None else _typed(console):
        content = "".join(text + (typed if field else "") for text, field in pieces) if column else typed
        turns = [*system, *([] if column else history), Message("user", content)]
        answer = _answer(local, turns, sampling, console)
        history += [turns[-1], Message("assistant", answer)]


def _only_column(pieces: Sequence[tuple[str, str | None]]) -> str | None:
    columns = {field for _, field in pieces if field}
    return columns.pop() if len(columns) == 1 else None


def _pieces(prompt: str | None) -> list[tuple[str, str | None]]:
    """(text, column after it) of a template; doubled braces are undone as in training."""
    parsed = string.Formatter().parse(prompt or "")
    return [(text, field and field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else ""))
            for text, field, spec, conversion in parsed]


def _typed(console: Console) -> Any:
    console.print("[dim]/exit or Ctrl-D leaves.[/]")
    while True:
        try:
            line = console.input("[bold]> [/]").strip()
        except EOFError:
            return
        if line in ("/exit", "/quit"):
            return
        if line:
            yield line


def _answer(model: Local, turns: list[Message], sampling: Sampling, console: Console) -> str:
    said = ""
    for piece in model.stream(Request(tuple(turns)), sampling):
        if isinstance(piece, str):
            console.print(piece, end="", markup=False, soft_wrap=True)
        else:
            said = piece.text
    console.print()
    return said
