"""Peak memory of a side above the loaded model, each measured in a process of its own, since allocators keep memory.

`python benchmarks/memory.py --side ours` is that process; it prints the bytes as JSON.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from one_side import chosen, parser
from workloads import Shape

SAMPLE_SECONDS = 0.002


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Gives a list whose only entry is, afterwards, the greatest resident size above that at the start, in bytes."""
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    peak = [0]

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def measured(side: str, shape: Shape, steps: int, threads: int) -> int:
    """Peak bytes of `side` above the loaded model over so many steps, by a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--side", side, "--steps", str(steps), "--threads", str(threads),
               "--shape", *(str(n) for n in (shape.prefix, shape.question, shape.answer, shape.rows))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr[-2000:]}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def main() -> None:
    given = parser(__doc__, steps=2).parse_args()
    side, make = chosen(given)
    gc.collect()
    with peak_memory() as peak:
        for step in range(given.steps):
            side.step(make(step))
    print(json.dumps({"peak_bytes": peak[0]}))


if __name__ == "__main__":
    main()
