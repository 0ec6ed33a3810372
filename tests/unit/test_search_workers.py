"""Workers that die are started again, and so are their trials; what a worker refuses ends the search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneloop.errors import UserError
from tuneloop.search_space import Branch, Dimension, Space
from tuneloop.search_study import CUT_OFF, DEFAULTS, DRAWN, UNTUNED, Study
from tuneloop.search_workers import LOG, Team, work

SPACE = Space((), (Branch(None, None, (Dimension("training.warmup", "training.warmup", low=0.1, high=0.9),)),))
WORKER = """
import os, signal, sys
from pathlib import Path
from tuneloop.search_space import Branch, Dimension, Space
from tuneloop.search_study import Study
folder, number, dies = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
space = Space((), (Branch(None, None, (Dimension("training.warmup", "training.warmup", low=0.1, high=0.9),)),))
study = Study(folder)
while (found := study.next(space, 3, number)) is not None:
    if found.kind == "drawn" and dies == "always" or dies == "once" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if dies == "refuses":
        print("The rows are gone.")
        sys.exit(2)
    found.finish(0.5)
"""


class Scripted(Team):
    """Workers that train nothing."""

    def start(self, number: int) -> subprocess.Popen[str]:
        with open(self.folder / LOG.format(number), "a") as log:
            return subprocess.Popen([sys.executable, "-c", WORKER, str(self.folder), str(number), self.told["dies"]],
                                    text=True, stdout=log, stderr=subprocess.STDOUT)


def ended_in(folder: Path, **told: Any) -> tuple[Study, list[int]]:
    study, ended = Study(folder), []
    study.recover(SPACE, {})
    work(Scripted(folder, 1, told), study, ended.append)
    return study, ended


def test_a_worker_that_dies_is_started_again_and_so_is_its_trial(tmp_path: Path) -> None:
    study, ended = ended_in(tmp_path, dies="once")
    trials = study.trials()
    assert [one.kind for one in trials if one.state == "failed" and one.why == CUT_OFF] == ["base"]
    assert {one.kind for one in trials if one.state == "finished"} == {*UNTUNED, DEFAULTS, DRAWN}
    assert ended == [one.number for one in trials]


def test_what_a_worker_refuses_is_said_and_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The rows are gone\."):
        ended_in(tmp_path, dies="refuses")


@pytest.mark.slow
def test_workers_that_die_again_and_again_are_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="die again and again"):
        ended_in(tmp_path, dies="always")
