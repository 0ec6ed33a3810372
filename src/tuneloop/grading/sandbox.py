"""Run a program that nobody has read, with its tests, in a process of its own.

What it cannot do: reach the network, outlive its time, take more memory or disk than it is given, leave processes
behind, change files. On Linux the kernel sees to that (namespaces); where it refuses them, and on other systems, an
audit hook stops what Python code tries, though not native code, and `Outcome.isolation` says so. What it can do: read
the files that you can read, and look into its own process, so that a program written to deceive this very file could
report that its tests passed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

from tuneloop.errors import UserError

if TYPE_CHECKING:
    import psutil

Status = Literal["passed", "failed", "error", "timed out", "out of memory", "disk full", "too many processes",
                 "crashed", "ended early"]

_CHILD = Path(__file__).with_name("_sandbox_child.py")
_START_SECONDS = 60         # for Python to start on a busy machine, before the program's own time begins
_LOOK_SECONDS = 0.05        # between two looks at what the program and its children use


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use; time on the clock and on the processor alike."""

    seconds: float = 10.0
    memory_bytes: int = 1 << 30         # of each process, and of all together
    disk_bytes: int = 64 << 20
    output_bytes: int = 64 << 10        # what it prints beyond this is dropped
    processes: int = 32
    files: int = 64                     # open at a time

    def __post_init__(self) -> None:
        wrong = [name for name, value in asdict(self).items() if value <= 0]
        if wrong:
            raise UserError(f"A limit of a program must be more than 0: {', '.join(wrong)}.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended."""

    status: Status
    reason: str             # where and why it did not pass
    output: str             # what it printed, to stdout and stderr
    seconds: float          # from its start to its end
    isolation: str          # how it was kept from the rest of the machine

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run(program: str, tests: str = "", limits: Limits | None = None, *, namespaces: bool = True) -> Outcome:
    """Run `program`, then `tests` in its module (named `program`); it passes if both end without an exception.

    `namespaces=False` does without them even where there are some. Raises a UserError if Python cannot be started.
    """
    limits = limits or Limits()
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="tuneloop-", ignore_cleanup_errors=True) as folder:
        told = {"program": program, "tests": tests, "word": word, "folder": folder, "namespaces": namespaces,
                **asdict(limits)}
        process = subprocess.Popen([sys.executable, "-I", str(_CHILD)], cwd=folder, env=_environment(),
                                   start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        output, report = _Reader(process.stdout, limits.output_bytes), _Reader(process.stderr, 1 << 16)
        try:
            with contextlib.suppress(OSError), process.stdin:      # a broken pipe: the report will be missing
                process.stdin.write(json.dumps(told).encode())
            ended = _watch(process, report, limits, folder)
        finally:
            _kill(process)
            output.close()
            report.close()
    first, _, said = report.text.partition("\n")
    if report.began is None or not first.startswith(word):
        raise UserError(f"Python could not be started in a sandbox: {(report.text or output.text)[-300:].strip()}",
                        fix="look at what keeps this process from starting others")
    status, reason = ended or _outcome(process.returncode, said, word)
    return Outcome(status, reason, output.text, time.monotonic() - report.began, first[len(word) + 1:])


def _environment() -> dict[str, str]:
    """None, but for what Windows cannot start a process without."""
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}


class _Reader:
    """Reads a pipe to its end, in a thread, so that a full pipe blocks nobody; keeps the first bytes."""

    def __init__(self, pipe: IO[bytes], most_bytes: int) -> None:
        self.began: float | None = None         # when the first line was complete
        self._pipe, self._most_bytes, self._kept = pipe, most_bytes, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):      # closed while it waited
            while piece := os.read(self._pipe.fileno(), 1 << 16):
                self._kept += piece[:self._most_bytes - len(self._kept)]
                if self.began is None and b"\n" in piece:
                    self.began = time.monotonic()

    def close(self) -> None:
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._pipe.close()

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


def _watch(process: subprocess.Popen[bytes], report: _Reader, limits: Limits,
           folder: str) -> tuple[Status, str] | None:
    """Wait for the end; the status and reason where the program must be stopped."""
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=_LOOK_SECONDS)
            return None
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if report.began is None and now - started > _START_SECONDS:
            return None
        if report.began is not None and now - report.began > limits.seconds:
            return "timed out", f"it ran for more than {limits.seconds:g} s"
        if stopped := _over(process.pid, limits, folder):
            return stopped


def _over(pid: int, limits: Limits, folder: str) -> tuple[Status, str] | None:
    """What the processes take together: limits of the kernel are for each of them."""
    import psutil

    memory = count = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
            count += 1
    if count > limits.processes + 3:            # Python, process 1 of the namespace, and the program
        return "too many processes", f"it started more than {limits.processes}"
    if memory > limits.memory_bytes:
        return "out of memory", f"it and what it started took more than {limits.memory_bytes >> 20} MiB"
    if _size(folder) > limits.disk_bytes:
        return "disk full", f"it wrote more than {limits.disk_bytes >> 20} MiB"
    return None


def _size(folder: str) -> int:
    """Bytes of all files below a folder, links not followed; it may change meanwhile."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it, as far as they still live."""
    import psutil

    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything that it started; with its first process a namespace ends.

    A program that has ended by itself left nothing: its namespace is gone, or the hook refused it children. Its number
    may be another's by now, so no signal is sent to that.
    """
    import psutil

    if process.poll() is not None:
        return
    family = _tree(process.pid)
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()


def _outcome(code: int, said: str, word: str) -> tuple[Status, str]:
    """Status and reason of a program that was not stopped, from its exit code and its report."""
    first, _, rest = said.partition(" ")
    if first == word:
        for status in get_args(Status):
            if rest.startswith(status + " "):
                return status, rest[len(status) + 1:].strip()
    number = -code if code < 0 else code - 128
    if number > 0:
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        if name == "SIGXCPU":
            return "timed out", "it used more processor time than it may"
        return "crashed", f"it was ended by {name}"
    return "ended early", f"it left with exit code {code} before its tests had ended"
