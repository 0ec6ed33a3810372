"""The page on which one person judges. Keys first; every key has a button."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuneloop.errors import UserError
from tuneloop.people.desk import KEYS, Desk, Key, Ranking, Showing, key_of
from tuneloop.people.items import NONSENSE_ANSWER, Verdict

if TYPE_CHECKING:
    from nicegui.events import KeyEventArguments

    from tuneloop.people.page import Room

COMMON = (("u", "undo what was said last"), ("s", "skip: it comes again at the end"),
          ("c", "write a comment; Enter leaves it"), ("e", "edit an answer to what it should have been"),
          ("?", "this help"))
ROWS = {4: "four", 5: "five"}
ARROWS = {"ArrowLeft": "←", "ArrowRight": "→"}


class JudgePage:
    """One tab. The desk decides; this draws what it shows and tells it what was pressed."""

    def __init__(self, room: Room, desk: Desk) -> None:
        self.room, self.desk = room, desk
        self.ranking = Ranking()
        self.comment: Any = None
        self.editing = False

    def build(self) -> None:
        """Draw the page."""
        from nicegui import ui

        self.head = ui.refreshable(self._head)
        self.body = ui.refreshable(self._body)
        self.deck = ui.refreshable(self._deck)
        with ui.element("header").classes("bar"):
            self.head()
        with ui.element("main").classes("work"):
            self.body()
        with ui.element("footer").classes("deck"):
            self.deck()
        self.help = self._help()
        ui.keyboard(on_key=self._key, repeating=False, ignore=["input", "select", "textarea"])
        ui.timer(5, self.head.refresh)

    # --- what is drawn ---

    def _head(self) -> None:
        from nicegui import ui

        progress = self.desk.progress()
        share = progress.done / progress.total if progress.total else 1
        with ui.element("div").classes("inside"):
            ui.label(self.room.title).classes("brand")
            ui.label(f"{progress.done:,} of {progress.total:,}").classes("nowrap").props('aria-label="progress"')
            ui.label(self._agreement()).classes("quiet nowrap wide")
            ui.element("div").classes("grow")
            _small(self.desk.annotator, "person", lambda: ui.navigate.to("/overview"), "overview")
            _small("", "help_outline", lambda: self.help.open(), "help")
        ui.linear_progress(share, show_value=False, size="3px").props('aria-hidden="true"')

    def _agreement(self) -> str:
        """With others, as it stands."""
        found = self.room.standing().agreements
        if not found:
            return ""
        kappa = "" if found[0].kappa is None else f"kappa {found[0].kappa:.2f}, "
        return f"agreement: {kappa}{found[0].shared:,} shared"

    def _body(self) -> None:
        from nicegui import ui

        showing = self.desk.showing
        if showing is None:
            self._finished()
            return
        with ui.element("section").classes("prompt").props('aria-label="prompt"'):
            turns = self.room.work.questions[showing.item.question].prompt
            for turn in turns:
                with ui.element("div").classes("turn"):
                    ui.label("Prompt" if len(turns) == 1 else turn.role.capitalize()).classes("label")
                    _said(turn.content)
        with ui.element("section").classes("answers" + " single" * (len(showing.answers) == 1)):
            for place in range(len(showing.answers)):
                self._answer(showing, place)

    def _answer(self, showing: Showing, place: int) -> None:
        from nicegui import ui

        rank = self.ranking.place_of(place)
        with ui.element("article").classes("answer" + " placed" * (rank is not None)).props(
                f'aria-label="answer {place + 1}"'):
            with ui.element("div").classes("top"):
                if len(showing.answers) > 1:
                    ui.label(str(place + 1)).classes("number")
                else:
                    ui.label("Answer").classes("label").style("margin: 0")
                if showing.item.ask == "order":
                    ui.button("next best" if rank is None else f"place {rank}",
                              on_click=lambda: self._order(str(place + 1))).props(
                        "dense no-caps unelevated padding='xs sm'" + " outline" * (rank is None))
                ui.element("div").classes("grow")
                if self.desk.draft(place) != showing.texts[place]:
                    ui.label("edited").classes("state reads")
                _small("", "edit", lambda: self._edit(place), f"edit answer {place + 1}")
            _said(showing.texts[place])

    def _finished(self) -> None:
        from nicegui import ui

        from tuneloop.people.page import heading

        heading("Everything is judged", top=True)
        ui.label(f"Thank you, {self.desk.annotator}. All of it is kept; close the page whenever you like.")
        for hint in self.room.hints:
            with ui.element("code").classes("command"):
                ui.label(hint)

    def _deck(self) -> None:
        from nicegui import ui

        showing = self.desk.showing
        with ui.element("div").classes("inside"):
            if showing is not None:
                keys = KEYS[showing.item.ask]
                count = len(keys) + (2 if showing.item.ask == "order" else 0)
                with ui.element("div").classes(f"verdicts {ROWS.get(count, '')}"):
                    for key in keys:
                        _button(key.label, key.icon, key.keys[0], lambda key=key: self._judge(key))
                    if showing.item.ask == "order":
                        _button("Same place next", "link", "=", lambda: self._order("="))
                        _button("Save the order", "check", "Enter", self._save_order,
                                main=self.ranking.verdict(showing.answers) is not None)
            with ui.element("div").classes("more"):
                _small("Undo", "undo", self._undo)
                if showing is not None:
                    _small("Skip", "skip_next", self._skip)
                    self.comment = ui.input(placeholder="Comment").props("dense outlined aria-label='comment'").on(
                        "keydown.enter", lambda: self.comment.run_method("blur"))

    def _help(self) -> Any:
        from nicegui import ui

        with ui.dialog() as dialog, ui.card().style("max-width: 30rem; background: var(--card)"):
            ui.label("Keys").classes("label")
            with ui.element("table").classes("people"):
                rows = [(" or ".join(ARROWS.get(name, name) for name in key.keys), key.label)
                        for key in KEYS[self.desk.work.ask]]
                rows += [("1 2 3 …", "the next best answer"), ("=", "the next one is as good as the last"),
                         ("Backspace", "take one back"), ("Enter", "save the order")] * (self.desk.work.ask == "order")
                for keys, what in (*rows, *COMMON):
                    with ui.element("tr"):
                        for text in (keys, what):
                            with ui.element("td"):
                                ui.label(text)
        return dialog

    # --- what is done ---

    async def _key(self, event: KeyEventArguments) -> None:
        held = event.modifiers
        if event.action.keydown and not (self.editing or held.ctrl or held.meta or held.alt):
            self.press(str(event.key.name))

    def press(self, key: str) -> None:
        """What a key means now."""
        showing = self.desk.showing
        acts: dict[str, Callable[[], object]] = {
            "u": self._undo, "s": self._skip, "e": lambda: self._edit(0), "?": self.help.open,
            "c": lambda: self.comment and self.comment.run_method("focus")}
        if key.lower() in acts:
            acts[key.lower()]()
        elif showing is None:
            return
        elif showing.item.ask == "order" and (key in ("=", "Backspace") or key.isdecimal() or (
                key == "t" and self.ranking.groups)):
            self._order(key)
        elif showing.item.ask == "order" and key == "Enter":
            self._save_order()
        elif found := key_of(showing.item.ask, key):
            self._judge(found)

    def _judge(self, key: Key) -> None:
        if self.desk.showing is not None:
            self._say(key.verdict(self.desk.showing.answers))

    def _order(self, key: str) -> None:
        if self.desk.showing is not None:
            self.ranking = self.ranking.press(key, len(self.desk.showing.answers))
            self.body.refresh()
            self.deck.refresh()

    def _save_order(self) -> None:
        from nicegui import ui

        if self.desk.showing is None:
            return
        verdict = self.ranking.verdict(self.desk.showing.answers)
        if verdict is None:
            ui.notify("Give every answer a place first: press their numbers, the best one first.")
        else:
            self._say(verdict)

    def _say(self, verdict: Verdict) -> None:
        showing = self.desk.showing
        if showing is not None and self._kept(lambda: self.desk.judge(
                showing.nonce, verdict, str(self.comment.value or "") if self.comment else "")):
            self._draw()

    def _undo(self) -> None:
        from nicegui import ui

        gone = self._kept(self.desk.undo)
        if gone is None:
            ui.notify("There is nothing to undo.")
            return
        self._draw()
        if gone and self.comment and gone.comment:
            self.comment.value = gone.comment

    def _skip(self) -> None:
        self.desk.skip()
        self._draw()

    def _edit(self, place: int) -> None:
        """A dialog with the answer as it should have been."""
        from nicegui import ui

        showing = self.desk.showing
        if showing is None or self.editing:
            return
        at = place

        def choose(number: str) -> None:
            nonlocal at
            at = int(number) - 1
            text.set_value(self.desk.draft(at))

        def close() -> None:
            self.editing = False
            dialog.close()

        def save() -> None:
            kept = self.desk.showing is showing and self._kept(lambda: self.desk.edit(at, str(text.value or "")))
            changed = kept or showing.answers[at] == NONSENSE_ANSWER        # which tells nobody that it is nonsense
            close()
            ui.notify("Kept. Now judge the answers as they were." if changed else "Nothing was changed.")
            self.body.refresh()

        with ui.dialog().props("persistent") as dialog, ui.card().classes("editing"):
            ui.label("What should the answer have been?").classes("label")
            if len(showing.answers) > 1:
                ui.toggle([str(i + 1) for i in range(len(showing.answers))], value=str(place + 1),
                          on_change=lambda event: choose(event.value)).props("unelevated no-caps padding='xs md'")
            text: ui.textarea = ui.textarea(value=self.desk.draft(place)).props(
                'outlined autogrow autofocus dir="auto" aria-label="ideal answer"').style("width: 100%").on(
                "keydown.ctrl.enter", save)
            with ui.element("div").classes("choices"):
                ui.button("Cancel", on_click=close).props("flat no-caps")
                ui.button("Save", on_click=save).props("unelevated no-caps")
        dialog.on("hide", dialog.delete)
        self.editing = True
        dialog.open()

    def _kept(self, act: Any) -> Any:
        """What `act` returns; an error is shown and stays until it is read."""
        from nicegui import ui

        try:
            return act()
        except UserError as error:
            ui.notify(error.text, type="negative", timeout=0, close_button="Close", multi_line=True)
            return False

    def _draw(self) -> None:
        from nicegui import ui

        self.ranking = Ranking()
        self.head.refresh()
        self.body.refresh()
        self.deck.refresh()
        ui.run_javascript("window.scrollTo(0, 0)")


def _said(text: str) -> None:
    from tuneloop.people.page import said

    said(text)


def _small(label: str, icon: str, act: Callable[[], object], aria: str = "") -> None:
    from nicegui import ui

    ui.button(label, icon=icon, on_click=act, color=None).classes("small").props(
        "flat dense no-caps padding='xs sm'" + (f' aria-label="{aria}"' if aria else ""))


def _button(label: str, icon: str, key: str, act: Any, *, main: bool = False) -> None:
    from nicegui import ui

    with ui.button(on_click=act, color=None).props("unelevated no-caps").classes("main" if main else ""):
        ui.icon(icon)
        ui.label(label)
        with ui.element("kbd").props('aria-hidden="true"'):
            ui.label(key).style("display: inline")
