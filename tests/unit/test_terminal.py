"""The live terminal takes every line of metrics.jsonl, those that are no step included."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tuneloop.terminal import Terminal
from tuneloop.training.memory import Governor

STEP = {"event": "step", "step": 1, "loss": 0.5, "learning_rate": 1e-4, "tokens_per_second": 10.0,
        "memory_bytes": 2**30}


def test_a_limit_that_is_crossed_is_said() -> None:
    written = io.StringIO()
    watch = Terminal(Console(file=written, width=200))
    watch.stage("training", 3)
    watch.metric(STEP)
    Governor(2048, 10**6, watch.metric).learn(1, 2048, 0, 2 * 10**6)
    watch.metric({"event": "validation", "step": 1, "loss": 0.4, "best": True})
    assert "crossed the limit" in written.getvalue()
    assert "tokens at once, with the same result" in written.getvalue()


@pytest.mark.parametrize("event", ["step", "validation", "memory"])
def test_every_event_is_known(event: str) -> None:
    entry: dict[str, Any] = STEP | {"event": event, "best": False, "why": "memory ran out", "token_budget": 64}
    written = io.StringIO()
    watch = Terminal(Console(file=written, width=200))
    watch.stage("training", 3)
    watch.metric(entry)
    told = written.getvalue() + watch.now.plain     # above the live line, or in it
    assert {"step": "loss 0.5000", "validation": "validation loss 0.5000", "memory": "memory ran out"}[event] in told
