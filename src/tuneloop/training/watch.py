"""Who looks on while a run goes: the terminal, a test, later a page. The loop tells, watchers show."""

from __future__ import annotations

from typing import Any, Protocol


class Watcher(Protocol):
    """Receives what happens. `entry` is the line that also goes to metrics.jsonl or samples.jsonl."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins; `total` is how many units `advance` will count, if known."""

    def advance(self, units: int) -> None:
        """So many more units of the stage are done."""

    def metric(self, entry: dict[str, Any]) -> None:
        """A training step or a look at the validation loss."""

    def sample(self, entry: dict[str, Any]) -> None:
        """The model's answer to a validation prompt."""

    def say(self, text: str) -> None:
        """Something the user should read."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int | None) -> None: ...
    def advance(self, units: int) -> None: ...
    def metric(self, entry: dict[str, Any]) -> None: ...
    def sample(self, entry: dict[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
