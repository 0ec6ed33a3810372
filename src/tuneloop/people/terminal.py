"""Judging in a terminal: the same desk and the same keys as on the page."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from tuneloop.errors import UserError
from tuneloop.people.desk import KEYS, Desk, Ranking, key_of
from tuneloop.people.items import Verdict
from tuneloop.people.standing import Standing

QUIT = ("q", "\x03", "\x04")        # Ctrl-C and Ctrl-D arrive as keys
NAMES = {"\x1b[D": "ArrowLeft", "\x1b[C": "ArrowRight", "\r": "Enter", "\n": "Enter", "\x7f": "Backspace",
         "\x08": "Backspace"}
EDITOR = "notepad" if os.name == "nt" else "vi"
COMMON = "u undo, s skip, c comment, e edit, q leave"


@dataclass
class Terminal:
    """One person at a terminal. `read_key` waits for a key and returns its characters, `ask` for a line of text,
    `edit` for a changed text; None where it was not changed.
    """

    desk: Desk
    console: Console
    read_key: Callable[[], str]
    ask: Callable[[str], str]
    edit: Callable[[str], str | None]
    standing: Callable[[], Standing]
    comment: str = ""
    ranking: Ranking = field(default_factory=Ranking)

    def run(self) -> None:
        """Until everything is judged, or the person leaves."""
        while self.desk.showing is not None:
            self._show()
            pressed = self.read_key()
            if pressed.lower() in QUIT:
                break
            self._press(NAMES.get(pressed, pressed))
        progress = self.desk.progress()
        done = "Everything is judged" if self.desk.showing is None else "Kept"
        self.console.print(f"{done}: {progress.done:,} of {progress.total:,}.")

    def _show(self) -> None:
        showing = self.desk.showing
        if showing is None:
            return
        progress = self.desk.progress()
        shared = self.standing().agreements
        told = f"[dim]{escape(shared[0].sentence())}[/]" if shared else ""
        self.console.rule(f"{progress.done:,} of {progress.total:,}", style="dim")
        if told:
            self.console.print(told)
        for turn in self.desk.work.questions[showing.item.question].prompt:
            self.console.print(f"[dim]{turn.role}[/] {_plain(turn.content)}")
        for place, text in enumerate(showing.texts):
            rank = self.ranking.place_of(place)
            self.console.print(Panel(_plain(text), title=str(place + 1) + (f" · place {rank}" if rank else ""),
                                     title_align="left"))
        keys = [f"[bold]{escape(key.keys[0])}[/] {key.label}" for key in KEYS[showing.item.ask]]
        keys += ["numbers in order, the best first; = same place next; Enter saves"] * (showing.item.ask == "order")
        self.console.print("   ".join(keys) + f"   [dim]{COMMON}[/]")

    def _press(self, key: str) -> None:
        showing = self.desk.showing
        if showing is None:
            return
        is_order = showing.item.ask == "order"
        if key.lower() in ("u", "s", "c", "e"):
            {"u": self._undo, "s": self._skip, "c": self._comment, "e": self._edit}[key.lower()]()
        elif is_order and (key in ("=", "Backspace") or key.isdecimal() or (key == "t" and self.ranking.groups)):
            self.ranking = self.ranking.press(key, len(showing.answers))
        elif is_order and key == "Enter":
            verdict = self.ranking.verdict(showing.answers)
            if verdict is None:
                self.console.print("Give every answer a place first.")
            else:
                self._judge(verdict)
        elif found := key_of(showing.item.ask, key):
            self._judge(found.verdict(showing.answers))

    def _judge(self, verdict: Verdict) -> None:
        showing = self.desk.showing
        if showing is not None and self.desk.judge(showing.nonce, verdict, self.comment):
            self.comment, self.ranking = "", Ranking()

    def _undo(self) -> None:
        gone = self.desk.undo()
        self.ranking = Ranking()
        if gone is None:
            self.console.print("There is nothing to undo.")
        else:
            self.comment = gone.comment

    def _skip(self) -> None:
        self.desk.skip()
        self.ranking, self.comment = Ranking(), ""

    def _comment(self) -> None:
        self.comment = self.ask("comment")

    def _edit(self) -> None:
        showing = self.desk.showing
        if showing is None:
            return
        which = self.ask(f"which answer, 1 to {len(showing.answers)}") if len(showing.answers) > 1 else "1"
        if not which.isdecimal() or not 1 <= int(which) <= len(showing.answers):
            self.console.print("No answer was changed.")
            return
        try:
            text = self.edit(self.desk.draft(int(which) - 1))
        except UserError as error:
            self.console.print(escape(error.text))
            return
        kept = text is not None and self.desk.edit(int(which) - 1, text)
        self.console.print("Kept. Now judge the answers as they were." if kept else "No answer was changed.")


def _plain(text: str) -> str:
    """A text that cannot steer the terminal, nor be taken for markup."""
    return escape("".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text))


def edited(text: str) -> str | None:
    """A text after the user's editor; None where it was not changed. Raises a UserError where no editor starts."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.txt"
        file.write_text(text, encoding="utf-8", newline="\n")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            raise UserError(f"The editor {editor} did not work: {error}.",
                            fix="set EDITOR to one that is there") from error
        found = file.read_text(encoding="utf-8").strip()
    return found if found != text.strip() else None
