"""Several workers of a search, each a process of its own: `python -m tuneloop.search_workers FOLDER NUMBER`, with what
they may spend on standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import UserError

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60       # after Ctrl-C, until a step and its checkpoint are done
MOST_CRASHES = 3
LOG = "worker-{}.log"


@dataclass(frozen=True)
class Team:
    """How many workers there are, and what each is told."""

    folder: Path
    count: int
    told: dict[str, Any]        # purse, limit, memory_gb

    def start(self, number: int) -> subprocess.Popen[str]:
        """A worker, with its share of the machine's cores."""
        with open(self.folder / LOG.format(number), "a", encoding="utf-8") as log:
            process = subprocess.Popen([sys.executable, "-m", __name__, str(self.folder), str(number)], text=True,
                                       stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                       env={"OMP_NUM_THREADS": str(max(1, cores() // self.count))} | os.environ)
        assert process.stdin
        process.stdin.write(json.dumps(self.told))
        process.stdin.close()
        return process


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(team: Team, study: Any, ended: Callable[[int], None]) -> None:
    """All trials of a search. A worker that dies is started again, and so is its trial; `ended` hears of every trial
    that ends. Raises a UserError where a worker does, or where workers die again and again.
    """
    told = {one.number for one in study.trials() if one.state not in ("running", "waiting")}
    crashes = 0
    with _stopped_at_the_end({number: team.start(number) for number in range(team.count)}) as running:
        while running:
            time.sleep(POLL_SECONDS)
            over = [number for number, process in running.items() if process.poll() is not None]
            for one in study.trials():
                if one.number not in told and one.state not in ("running", "waiting"):
                    told.add(one.number)
                    ended(one.number)
            for number in over:
                code = running.pop(number).returncode
                if code == 0:
                    continue
                crashes += 1
                if code == UserError.exit_code or crashes > MOST_CRASHES:
                    raise _told(team.folder, number, code)
                for trial in study.cut_off(number):
                    study.again(trial)
                running[number] = team.start(number)


@contextmanager
def _stopped_at_the_end(running: dict[int, subprocess.Popen[str]]) -> Iterator[dict[int, subprocess.Popen[str]]]:
    """No worker outlives its search. A terminal's Ctrl-C reaches them too, and they finish their step first."""
    try:
        yield running
    except KeyboardInterrupt:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in running.values()):
            time.sleep(POLL_SECONDS)
        raise
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()


def _told(folder: Path, number: int, code: int) -> UserError:
    """What a worker said last, or that it died."""
    log = folder / LOG.format(number)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = "\n".join(lines[-5:]) or "it said nothing"
    if code == UserError.exit_code:
        return UserError(said)
    return UserError(f"Workers of the search die again and again, the last with exit code {code}: {said}",
                     fix=f"read {log}; go on with `tuneloop search --resume {folder}`")


def main() -> None:
    """A worker, started by `Team`."""
    from tuneloop.search import worker_of

    folder, number, told = Path(sys.argv[1]), int(sys.argv[2]), json.load(sys.stdin)
    import torch

    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        worker_of(folder, number=number, **told).run()
    except UserError as error:
        sys.stderr.write(f"{error.text}\n")
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
