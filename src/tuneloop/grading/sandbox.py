"""Run programs that nobody has read, each in a process of its own.

What it cannot do: reach the network, outlive its time, take more memory or disk than it is given, leave processes
behind, change files. On Linux the kernel sees to that (namespaces); where it refuses them, and on other systems, an
audit hook stops what Python code tries, though not native code, and `Outcome.isolation` says so. What it can do: read
the files that you can read, and look into its own process, so that a program written to deceive this very file could
report that its tests passed.

Starting Python takes far longer than most programs, so many programs are run behind one start: a server in the sandbox
loads what they share (a grader and what it imports), and forks a process for each, one after the other. They share the
kernel's namespaces and one folder, which is emptied between them, and nothing else: each begins from the memory that
the server had after loading, every process that one leaves is ended before the next begins, and where anything else is
left behind, or a limit is passed, a new sandbox is started for the rest. The server has no privileges, and the programs
can neither signal it nor look into it. Without namespaces the shared part is loaded anew for each program.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

from tuneloop.errors import UserError

if TYPE_CHECKING:
    import psutil

Status = Literal["passed", "failed", "error", "timed out", "out of memory", "disk full", "too many processes",
                 "crashed", "ended early"]

_CHILD = Path(__file__).with_name("_sandbox_child.py")
_START_SECONDS = 60         # for Python to start on a busy machine, and to load what programs share
_LOOK_SECONDS = 0.05        # between two looks at what the program and its children use
_LOADING = -1
_FORKS = hasattr(os, "fork")
_REPORT_BYTES = 1 << 22     # of the report on one program


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
    value: float | None = None          # what was called returned

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True, slots=True)
class Task:
    """A program, then its tests in the same module, then perhaps a function of the module, called with JSON values.

    It passes if all end without an exception, and the function returns a number.
    """

    program: str = ""
    tests: str = ""
    call: tuple[str, Sequence[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """A program that runs before each task in its module (named `program`), once for all of them where that is safe."""

    program: str = ""
    name: str = "shared.py"         # of the program, in reasons


def run(program: str, tests: str = "", limits: Limits | None = None, *, namespaces: bool = True) -> Outcome:
    """Run `program`, then `tests` in its module; see `run_all`."""
    [outcome] = run_all([Task(program, tests)], limits, namespaces=namespaces)
    return outcome


def run_all(tasks: Sequence[Task], limits: Limits | None = None, *, shared: Shared | None = None,
            workers: int | None = None, namespaces: bool = True) -> list[Outcome]:
    """How every task ended, in order; `limits` are those of each. `workers` tasks run at once: all cores' unless given.

    `namespaces=False` does without them even where there are some. Raises a UserError if Python cannot be started.
    """
    limits, shared = limits or Limits(), shared or Shared()
    lanes = max(1, min(len(tasks), workers or os.cpu_count() or 1))
    with ThreadPoolExecutor(lanes) as pool:
        found = list(pool.map(lambda lane: _run_lane(tasks[lane::lanes], limits, shared, namespaces), range(lanes)))
    return [found[i % lanes][i // lanes] for i in range(len(tasks))]


def _run_lane(tasks: Sequence[Task], limits: Limits, shared: Shared, namespaces: bool) -> list[Outcome]:
    """One after the other, in as few sandboxes as that takes."""
    outcomes: list[Outcome] = []
    at_once = len(tasks) if _FORKS else 1
    while len(outcomes) < len(tasks):
        rest = tasks[len(outcomes):][:at_once]
        outcomes += _Sandbox(rest, limits, shared, namespaces).outcomes()
    return outcomes


class _Sandbox:
    """One child that runs tasks until one has to be stopped."""

    def __init__(self, tasks: Sequence[Task], limits: Limits, shared: Shared, namespaces: bool) -> None:
        self.tasks, self.limits, self.shared, self.namespaces = tasks, limits, shared, namespaces
        self.word = secrets.token_hex(16)
        self.isolation = ""
        self.done: list[Outcome] = []
        self.current: int | None = None         # the task under way, or what all share
        self.printed = bytearray()              # by it
        self.strange = ""                       # what no program reports
        self.began = time.monotonic()

    def outcomes(self) -> list[Outcome]:
        """Of at least the first task. Raises a UserError if Python cannot be started."""
        with tempfile.TemporaryDirectory(prefix="tuneloop-", ignore_cleanup_errors=True) as folder:
            told = {"tasks": [asdict(task) for task in self.tasks], "shared": self.shared.program,
                    "shared_name": self.shared.name, "word": self.word, "folder": folder,
                    "namespaces": self.namespaces, **asdict(self.limits)}
            process = subprocess.Popen([sys.executable, "-I", str(_CHILD)], cwd=folder, env=_environment(),
                                       start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            output = _Reader(process.stdout, self.limits.output_bytes)
            report = _Lines(process.stderr, _REPORT_BYTES)
            try:
                with contextlib.suppress(OSError), process.stdin:      # a broken pipe: the report will be missing
                    process.stdin.write(json.dumps(told).encode())
                stopped = self._watch(process, report, folder)
                stopped_in = self.current
            finally:
                _kill(process)
                output.close()
                report.close()
        for line in report.rest():
            self._hear(line)
        if self.current is not None and (not stopped or self.current == stopped_in):    # the next may have begun since
            self._end(*(stopped or _outcome(process.returncode, "", self.word)))
        if not self.done:
            raise UserError(f"Python could not be started in a sandbox: {(self.strange or output.text)[-300:].strip()}",
                            fix="look at what keeps this process from starting others")
        return self.done if _FORKS else [replace(outcome, output=output.text) for outcome in self.done]

    def _watch(self, process: subprocess.Popen[bytes], report: _Lines, folder: str) -> tuple[Status, str] | None:
        """Hear what the child reports until it ends; the status and reason where it must be stopped."""
        looked = time.monotonic()
        while True:
            line = report.next(_LOOK_SECONDS)
            if line is not None:
                self._hear(line)
            elif report.ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                return None
            now = time.monotonic()
            waited = now - self.began
            if self.current is None or self.current == _LOADING:
                if waited > max(_START_SECONDS, self.limits.seconds):
                    return "timed out", f"{self.shared.name} took more than {waited:.0f} s to load"
            elif waited > self.limits.seconds:
                return "timed out", f"it ran for more than {self.limits.seconds:g} s"
            if min(now - looked, waited) > _LOOK_SECONDS:       # looking at all processes costs more than most tasks
                looked = now
                if self.isolation and (stopped := _over(process.pid, self.limits, folder)):
                    return stopped

    def _hear(self, line: str) -> None:
        """One line of the report; what does not begin with the word is none."""
        word, _, said = line.partition(" ")
        what, _, rest = said.partition(" ")
        if word != self.word:
            self.strange = f"{self.strange}{line}\n"[-2000:]
        elif not self.isolation:
            self.isolation = said
        elif what == "loaded":
            self.current = None
        elif what == "begins":
            self.current, self.began = int(rest), time.monotonic()
            self.printed.clear()
        elif what == "printed":
            self.printed += json.loads(rest).encode("latin-1")
        elif what == "ends" and self.current is not None:
            _, code, told = rest.split(" ", 2)
            self._end(*_outcome(int(code), told, self.word))

    def _end(self, status: Status, reason: str) -> None:
        """The end of the task under way; where what they share cannot be loaded, of all."""
        value = None
        if status == "passed" and reason:
            value, reason = float(reason), ""
        now = time.monotonic()
        outcome = Outcome(status, reason, self.printed.decode("utf-8", "replace"), now - self.began, self.isolation,
                          value)
        self.done += [outcome] * (len(self.tasks) if self.current == _LOADING else 1)
        self.current, self.began = None, now


def _environment() -> dict[str, str]:
    """None, but for one thread for libraries, and what Windows cannot start a process without."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class _Reader:
    """Reads a pipe to its end, in a thread, so that a full pipe blocks nobody; keeps the first bytes."""

    def __init__(self, pipe: IO[bytes], most_bytes: int) -> None:
        self._pipe, self._most_bytes, self._kept = pipe, most_bytes, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):      # closed while it waited
            while piece := os.read(self._pipe.fileno(), 1 << 16):
                self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        self._kept += piece[:self._most_bytes - len(self._kept)]

    def close(self) -> None:
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._pipe.close()

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


class _Lines(_Reader):
    """The same, line by line: the bytes that it keeps are those of a line that is not complete."""

    def __init__(self, pipe: IO[bytes], most_bytes: int) -> None:
        self._lines: Queue[str | None] = Queue()
        self.ended = False
        super().__init__(pipe, most_bytes)

    def next(self, seconds: float) -> str | None:
        """The next line; None where there is none yet, or `ended`."""
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            return None
        self.ended = line is None
        return line

    def rest(self) -> list[str]:
        """The lines that are left, after its end, and what came of another."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return [line for line in [*lines, self.text] if line]

    def _read(self) -> None:
        super()._read()
        self._lines.put(None)

    def _keep(self, piece: bytes) -> None:
        *whole, last = piece.split(b"\n")
        for line in whole:
            super()._keep(line)
            self._lines.put(self.text)
            self._kept.clear()
        super()._keep(last)


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
    """Status and reason of a program that was not stopped, from its exit code and its report. The reason of one that
    passed is what was returned.
    """
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
