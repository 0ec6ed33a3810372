"""10,000 pairs, two annotators at once, killed and started again: nothing lost, nothing counted twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from judging import rows, store

from toy import write_jsonl
from tuneloop.people.standing import standing_of

PAIRS = 10_000
HAND = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from judging import Judgements, desk, knows, work
folder, name = Path(sys.argv[1]), sys.argv[2]
at = desk(work(folder, read_only=True), Judgements(folder / "said.sqlite"), name)
log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while at.showing is not None:
    showing = at.showing
    assert at.judge(showing.nonce, knows(showing))
    os.write(log, f"{showing.item.id} {showing.nonce}\\n".encode())      # only now it is acknowledged
"""


@pytest.fixture
def fast_disk() -> Iterator[Path]:
    """Every row waits for the disk; that it does is not what is tested here."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def hands(folder: Path) -> list[subprocess.Popen[bytes]]:
    here = Path(__file__).parent
    return [subprocess.Popen([sys.executable, "-c", HAND, folder, name, here, here.parents[1]])
            for name in ("ann", "bob")]


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_counts_twice(fast_disk: Path) -> None:
    write_jsonl(fast_disk / "collected.jsonl", rows(PAIRS, ("poor", "good")))
    for wanted in (1_500, 4_000, 7_000):            # judgements of both together, before the next kill
        working = hands(fast_disk)
        while _logged(fast_disk) < wanted:
            assert all(one.poll() is None for one in working)
            time.sleep(0.02)
        for one in working:
            one.kill()
            one.wait()
    assert [one.wait() for one in hands(fast_disk)] == [0, 0]
    kept = store(fast_disk)
    every = kept.all()
    for name in ("ann", "bob"):
        mine = [said for said in every if said.annotator == name]
        items = Counter(said.item for said in mine)
        assert len(items) == PAIRS + PAIRS // 10
        assert set(items.values()) == {1}
        acknowledged = (fast_disk / f"{name}.log").read_text().split("\n")
        assert acknowledged.pop() == ""
        known = {f"{said.item} {said.nonce}" for said in mine}
        assert set(acknowledged) <= known
        assert len(known) - len(set(acknowledged)) <= 3     # one in flight at each kill
    found = standing_of(PAIRS, kept)
    assert [one.judged for one in found.people] == [PAIRS, PAIRS]
    assert found.agreements[0].shared == PAIRS
    assert found.agreements[0].kappa == 1


def _logged(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.log"))
