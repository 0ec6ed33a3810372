"""The page for whoever runs the judging: progress, agreement, and who clicks at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.people.attention import Attention

if TYPE_CHECKING:
    from tuneloop.people.page import Room

REFRESH_SECONDS = 3
COLUMNS = ("Who", "Judged", "Seconds each", "Took the first", "Reads?")
TONES = {"reads": "reads", "at random": "random", "not known yet": "unknown"}


def show_overview(room: Room) -> None:
    """Kept up to date while it is open."""
    from nicegui import ui

    from tuneloop.people.page import heading

    @ui.refreshable
    def body() -> None:
        found = room.standing()
        heading("Who has judged", top=True)
        if not found.people:
            ui.label("Nobody has judged anything yet.").classes("quiet")
        else:
            _people(found.people, found.items)
            with ui.element("div").style("margin-top: .75rem"):
                for one in found.people:
                    if one.again or one.nonsense:
                        ui.label(one.sentence() + ".").classes("quiet")
        heading("Agreement")
        for told in [one.sentence() for one in found.agreements] or ["Two people have judged nothing in common yet."]:
            ui.label(told + "." * (not told.endswith("."))).classes("said")
        for agreed in found.agreements:
            if len(agreed.people) > 2:
                for b in agreed.between:
                    kappa = "" if b.kappa is None else f", kappa {b.kappa:.2f}"
                    ui.label(f"{b.first} and {b.second}: {b.shared:,} in common, {b.same:.0%} the same{kappa}"
                             ).classes("quiet")
        if found.judges:
            heading("Models that judge")
            for judge in found.judges:
                ui.label(judge.sentence() + ".").classes("said")
        if found.edits or found.comments:
            ui.label(f"Edited answers: {found.edits:,}. Comments: {found.comments:,}.").classes("quiet")

    with ui.element("main").classes("work").style("max-width: 58rem"):
        with ui.element("div").style("display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap"):
            ui.label(room.title).classes("label")
            ui.link("Judge", "/").classes("quiet")
        body()
    ui.timer(REFRESH_SECONDS, body.refresh)


def _people(people: Sequence[Attention], items: int) -> None:
    from nicegui import ui

    with ui.element("div").classes("scroll"), ui.element("table").classes("people wide"):
        with ui.element("thead"), ui.element("tr"):
            for name in COLUMNS:
                with ui.element("th"):
                    ui.label(name)
        with ui.element("tbody"):
            for one in people:
                _row(one, items)


def _row(one: Attention, items: int) -> None:
    from nicegui import ui

    cells = [one.annotator, f"{one.judged:,} of {items:,}",
             "" if one.median_seconds is None else f"{one.median_seconds:.0f}",
             f"{one.first:,} of {one.decided:,}" if one.decided else ""]
    with ui.element("tr"):
        for text in cells:
            with ui.element("td"):
                ui.label(text)
        with ui.element("td"):
            ui.label(one.state).classes(f"state {TONES[one.state]}").style("display: inline-block")
