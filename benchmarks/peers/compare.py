"""The peers against ours: each trains in its own process and environment, step by step in turns with ours."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baseline import BETA, EPSILON
from measure import AGREE, Disagreement, Row, interval, row_of
from sides import LEARNING_RATE, Step, base_folder

from peers.install import PEERS, cache_folder, python_of, why_not
from tuneloop.objectives.base import Objective
from tuneloop.types import Group

if TYPE_CHECKING:
    from run import Bench

VARIANTS = {"trl": ("equal", "fastest"), "llamafactory": ("equal", "fastest"), "litgpt": ("equal",)}
KINDS = {"trl": ("sft", "dpo", "grpo"), "llamafactory": ("sft",), "litgpt": ("sft",)}
START_SECONDS = 240.0       # imports, loading, converting; not timed
MOST_ROWS = 8               # of a forward: with 16 rows of 576 tokens peers run out of 24 GB


@dataclass(frozen=True)
class Task:
    """A workload that peers are given.

    `steps` begins with the rows of `warm`: their loss has fallen by then, equally on both sides, or training differs.
    """

    name: str
    kind: str
    objective: Objective
    warm: list[Group]
    steps: list[list[Group]]
    goal: float | None          # against the fastest peer


class Peer:
    """A driver at work. The first step is asked for and thrown away, as ours is."""

    def __init__(self, name: str, variant: str, cache: Path, timeout: float) -> None:
        self.label = f"{name}, {variant} flags"
        self._peer, self._cache, self.variant, self.timeout = name, cache, variant, timeout
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self.log = cache / "jobs" / f"{name}-{variant}.log"

    def start(self, task: Task, model: Any, threads: int) -> None:
        """Write the job and run the driver; `model` holds the initial adapter.

        The job has a step more than will be asked for: a trainer that is done saves and evaluates while we are timed.
        """
        folder = self.log.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model.save_pretrained(folder / "adapter")
        job = {"kind": task.kind, "variant": self.variant, "base": str(base_folder()), "threads": threads,
               "learning_rate": LEARNING_RATE, "constants": {"beta": BETA, "epsilon": EPSILON},
               "accumulate": max(1, sum(len(group.branches) for group in task.warm) // MOST_ROWS),
               "steps": [_rows(groups) for groups in (task.warm, *task.steps, task.warm)]}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        driver = Path(__file__).with_name(f"{self._peer}_driver.py")
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [python_of(self._peer, self._cache), str(driver), str(folder)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()

    def step(self, extra_seconds: float = 0.0) -> Step:
        """One optimizer step; raises TimeoutError, or RuntimeError with the end of the driver's log."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            said = self._answers.get(timeout=self.timeout + extra_seconds)
        except queue.Empty:
            raise TimeoutError from None
        except BrokenPipeError:
            said = ""
        if not said:
            raise RuntimeError(self._last_words())
        told = json.loads(said)
        return Step(told["loss"], None, told["seconds"])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listen(self, lines: Any) -> None:
        for line in lines:
            self._answers.put(line)
        self._answers.put("")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["it ended without a word"])[-1][:300]


def run_all(bench: Bench, tasks: Sequence[Task]) -> None:
    """Every peer on every task that it has a trainer for, then the row against the fastest of them."""
    given = bench.given
    cache = cache_folder(given.cache)
    for task in tasks:
        if given.peer_rows and task.name not in given.peer_rows:
            continue
        rows = []
        for name in given.peer or PEERS:
            if task.kind not in KINDS[name]:
                continue
            reason = why_not(name, cache)
            for variant in VARIANTS[name] if task.kind != "grpo" else ("equal",):
                peer = Peer(name, variant, cache, given.timeout)
                row = (_nothing(task, peer.label, f"not run: {reason}") if reason
                       else _measure(bench, task, peer))
                bench.emit(row)
                rows.append(row)
        if task.goal is not None and (timed := [row for row in rows if row.ratio is not None]):
            best = min(timed, key=lambda row: row.ratio or 0.0)
            bench.emit(Row(task.name, "the fastest peer", best.ratio, best.low, best.high, task.goal, best.other,
                           best.ours, best.loss_difference, best.against))


def _measure(bench: Bench, task: Task, peer: Peer) -> Row:
    """Ours and the peer's steps in turns."""
    ours = bench.ours(task.objective, None if task.kind != "dpo" else f"{peer.label}-{task.name}")
    other, own = [], []
    warming = True
    try:
        peer.start(task, ours.model, bench.given.threads)
        first = peer.step(START_SECONDS)
        warm = ours.step(task.warm)
        if abs(first.loss - warm.loss) > AGREE:
            raise Disagreement(f"losses of the first step differ: {first.loss:.5f} and ours {warm.loss:.5f}")
        warming = False
        for groups in task.steps:
            other.append(peer.step())
            own.append(ours.step(groups))
        if not warm.loss - own[0].loss > 10 * AGREE:
            raise Disagreement(f"one step lowers the loss by no more than {warm.loss - own[0].loss:.1e}")
        return row_of(task.name, peer.label, other, own, None,
                      f"the first step lowers its rows' loss by {first.loss - other[0].loss:.4f}")
    except TimeoutError:
        return _slow(bench, task, peer, ours, warming)
    except (Disagreement, RuntimeError) as error:
        return _nothing(task, peer.label, f"not counted: {error}")
    finally:
        peer.stop()


def _slow(bench: Bench, task: Task, peer: Peer, ours: Any, warming: bool) -> Row:
    """A peer that did not finish a step in time: its ratio is a lower bound."""
    peer.stop()         # or it would slow our own step down
    seconds = peer.timeout + (START_SECONDS if warming else 0.0)
    own = ours.step(task.steps[0]).seconds
    ratio, low, high = interval([peer.timeout / own])
    return Row(task.name, peer.label, ratio, low, high, None, peer.timeout, own,
               note=f"> {peer.timeout:.0f} s a step: stopped after {seconds:.0f} s; the ratio is a lower bound")


def _nothing(task: Task, label: str, note: str) -> Row:
    return Row(task.name, label, None, None, None, None, note=note)


def _rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A step as the drivers read it; branches in order."""
    rows = []
    for group in groups:
        for branch in group.branches:
            row: dict[str, Any] = {"ids": branch.ids.tolist(), "weights": [int(w > 0) for w in branch.weights]}
            if "rewards" in branch.named:
                row["reward"] = float(branch.named["rewards"])
            if "old_logprobs" in branch.named:
                row["old_logprobs"] = branch.named["old_logprobs"].tolist()
            rows.append(row)
    return rows
