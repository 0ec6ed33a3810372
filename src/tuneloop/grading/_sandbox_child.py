"""The process that runs somebody else's programs; `sandbox` starts this file with `python -I`, and it imports only the
standard library.

It is told what to do as JSON on stdin. It is a server of one request: it loads what the programs share, then forks a
worker for each of them, one after the other, and clears away what each leaves. Behind a secret word it says on stderr
first how well it is isolated, in one line, then when each program begins and how it ended. What a program prints goes
into a pipe of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import math
import os
import select
import shutil
import signal
import sys
import types
from collections.abc import Callable
from os import _exit, write
from typing import Any

_NEW_USER, _NEW_NETWORK, _NEW_PROCESSES, _NEW_MOUNTS, _NEW_IPC = 0x10000000, 0x40000000, 0x20000000, 0x20000, 0x08000000
_PRIVATE, _RECURSIVE, _NO_SUID, _NO_DEVICES = 0x40000, 0x4000, 2, 4         # of mount(2)
_MOUNT_SETATTR, _AT_HERE, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1  # of mount_setattr(2), Linux 5.12
_DIE_WITH_PARENT, _DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38                  # of prctl(2)
_CAPABILITIES_V3 = 0x20080522                                               # of capset(2)

_FULL = "namespaces: no network, no other processes, files read-only"
_NO_MOUNTS = "namespaces: no network, no other processes; an audit hook guards files, which native code could pass"
_HOOK = ("audit hook: Python code cannot open sockets, start or signal processes, or write outside its folder; "
         "native code could")
_LOADING = -1               # in the place of a program's number: what all of them share
_MOST_SAID = 1 << 16        # bytes of a report

_REFUSED = ("socket.", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill",
            "os.startfile", "ctypes.dlsym", "signal.pthread_kill", "pty.spawn", "_winapi.CreateProcess")
_CHANGES_FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
                  "os.chown", "os.utime")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_IPC_TABLES = ("/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem")


def main() -> None:
    told = json.loads(sys.stdin.buffer.read())
    report = os.dup(2)
    os.dup2(1, 2)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    isolation = _isolate(told) if told["namespaces"] else _HOOK
    if isolation != _FULL:
        os.chdir(told["folder"])
    _Server(told, isolation, report).serve()


def _isolate(told: dict[str, Any]) -> str:
    """Enter new namespaces; returns in their process 1, which runs the programs, and says how far that went."""
    if not sys.platform.startswith("linux"):
        return _HOOK
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_PROCESSES | _NEW_MOUNTS | _NEW_IPC):
        return _HOOK
    with contextlib.suppress(OSError):          # without a map, mounts fail and say so
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    # in a namespace of its own a program could mount file systems
    with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    if init := os.fork():
        _exit(_wait_for(init))
    # From here on process 1 of its namespace: when it ends, the kernel ends everything that it or its children started
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: _exit(1))
    mounted = _mount(libc, told)
    _drop_privileges(libc)
    return _FULL if mounted else _NO_MOUNTS


def _mount(libc: ctypes.CDLL, told: dict[str, Any]) -> bool:
    """Make all files read-only, but for the program's folder: there a file system of limited size, which vanishes."""
    folder = told["folder"]
    if libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None):
        return False
    libc.mount(b"proc", b"/proc", b"proc", 0, None)         # hides other processes; some containers refuse it
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
    if libc.syscall(_MOUNT_SETATTR, _AT_HERE, b"/", _AT_RECURSIVE, attributes, ctypes.sizeof(attributes)):
        return False
    size = f"size={told['disk_bytes']},nr_inodes=10000,mode=700".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _NO_SUID | _NO_DEVICES, size):
        return False
    os.chdir(folder)
    return True


def _drop_privileges(libc: ctypes.CDLL) -> None:
    """Nothing that runs here may mount, or look into this process, which speaks for all programs."""
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)())
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)


def _wait_for(child: int) -> int:
    """The exit code of a child, 128 more than the signal that killed it."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return _code(status)


def _code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class _Server:
    """Runs the programs that it was told, each in a process that begins as this one is."""

    def __init__(self, told: dict[str, Any], isolation: str, report: int) -> None:
        self.told, self.isolation, self.report = told, isolation, report
        self.word = told["word"].encode()
        self.in_namespaces = isolation != _HOOK
        self.module = types.ModuleType("program")
        sys.modules["program"] = self.module

    def serve(self) -> None:
        """Does not return."""
        self._say(self.isolation)
        if not hasattr(os, "fork"):         # Windows: one program, which is this very process
            self._say("begins 0")
            self._restrict()
            self._run(self.told["tasks"][0], self.report, b"%s ends 0 0 " % self.word)
        if self.told["shared"] and self.isolation == _FULL:      # else a worker loads it, behind the hook
            self._load()
        for number, task in enumerate(self.told["tasks"]):
            self._say(f"begins {number}")
            signal.alarm(int(self.told["seconds"]) + 60)        # should whoever started it not be there any more
            code, said = self._in_worker(task)
            self._say(f"ends {number} {code} {said}")
            if not self._cleared():
                break               # whoever started this starts another, with the programs that are left
        _exit(0)

    def _say(self, what: str) -> None:
        text = memoryview(b"%s %s\n" % (self.word, what.encode("utf-8", "replace")))
        while text:
            text = text[write(self.report, text):]

    def _load(self) -> None:
        """What all programs share; where it fails, none can run. Whoever started this watches its time and memory."""
        self._say(f"begins {_LOADING}")
        try:
            self._execute(self.told["shared"], self.told["shared_name"])
        except BaseException as error:
            self._say(f"ends {_LOADING} 0 {self.told['word']} {_told(error, self._sources({}))}")
            _exit(0)
        self._say("loaded")

    # ── one program ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _in_worker(self, task: dict[str, Any]) -> tuple[int, str]:
        """The exit code of a program, and what it reports in one line."""
        output, said = os.pipe(), os.pipe()
        worker = os.fork()
        if not worker:
            for unused in (output[0], said[0], self.report):
                os.close(unused)
            os.dup2(output[1], 1)
            os.dup2(output[1], 2)
            os.close(output[1])
            signal.alarm(0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if sys.platform.startswith("linux"):
                ctypes.CDLL(None).prctl(_DUMPABLE, 1, 0, 0, 0)
            self._restrict()
            self._run(task, said[1], b"")
        os.close(output[1])
        os.close(said[1])
        return self._gathered(worker, output[0], said[0])

    def _gathered(self, worker: int, output: int, said: int) -> tuple[int, str]:
        """What comes through the pipes of a worker until it ends. What it prints is passed on at once, for it may have
        to be stopped; what it leaves behind is ended.
        """
        printed, told = 0, bytearray()
        waiting, code = {output, said}, None
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], 0.05 if code is None else 0)
            for pipe in ready:
                piece = os.read(pipe, 1 << 16)
                if not piece:
                    waiting.discard(pipe)
                elif pipe == said:
                    told += piece[:_MOST_SAID - len(told)]
                elif printed < self.told["output_bytes"]:
                    piece = piece[:self.told["output_bytes"] - printed]
                    printed += len(piece)
                    self._say("printed " + json.dumps(piece.decode("latin-1")))
            if code is None:
                code = self._ended(worker, os.WNOHANG)
            elif not ready:
                break                       # somebody holds the pipe, who could not be ended
        while code is None:
            code = self._ended(worker, 0)
        os.close(output)
        os.close(said)
        return code, told.decode("utf-8", "replace").replace("\n", " ")

    def _ended(self, worker: int, how: int) -> int | None:
        """The worker's exit code, once it has ended; orphans that have ended are let go meanwhile."""
        while True:
            ended, status = os.waitpid(-1 if self.in_namespaces else worker, how)
            if ended == worker:
                self._end_leftovers()
                return _code(status)
            if not ended:
                return None

    def _end_leftovers(self) -> None:
        """Every process of this namespace but its first, which this is: where it is not, nothing is sent to anybody."""
        if self.in_namespaces and os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()

    def _cleared(self) -> bool:
        """Take away the files of a program; whether nothing of it is left, memory of the kernel's included."""
        folder = self.told["folder"]
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
            for entry in list(os.scandir(folder)):
                if entry.is_dir(follow_symlinks=False):
                    for where, _, _ in os.walk(entry.path):
                        os.chmod(where, 0o700)
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
            return not os.listdir(folder) and not (self.in_namespaces and any(map(_holds_more, _IPC_TABLES)))
        return False

    def _restrict(self) -> None:
        _limit(self.told, self.in_namespaces)
        if self.isolation != _FULL:
            sys.addaudithook(_guard(os.path.realpath(self.told["folder"])))

    def _run(self, task: dict[str, Any], report: int, before: bytes) -> None:
        """Run the program, then its tests in the same module, then what is to be called, and report how that ended.
        Does not return.
        """
        # What is reported is made before the program runs, for it may leave neither memory nor modules as they were
        passed = before + self.word + b" passed "
        no_memory = before + self.word + b" out of memory it asked for more than it may have"
        said = b""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)     # what it printed is kept when it has to be stopped
        try:
            if self.isolation != _FULL:
                self._execute(self.told["shared"], self.told["shared_name"])
            self._execute(task["program"], "program.py")
            self._execute(task["tests"], "tests.py")
            said = passed + (_called(self.module, *task["call"]) if task["call"] else b"")
        except MemoryError:
            said = no_memory
        except BaseException as error:
            told = _told(error, self._sources(task))
            said = b"%s%s %s" % (before, self.word, told.encode("utf-8", "replace"))
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        write(report, said)
        _exit(0)                    # no exit handlers, no waiting for threads

    def _execute(self, text: str, name: str) -> None:
        if text:
            exec(compile(text, name, "exec", dont_inherit=True), self.module.__dict__)

    def _sources(self, task: dict[str, Any]) -> dict[str, str]:
        return {self.told["shared_name"]: self.told["shared"], "program.py": task.get("program", ""),
                "tests.py": task.get("tests", "")}


def _holds_more(table: str) -> bool:
    """Whether a table of the kernel has a line below its heading."""
    try:
        with open(table) as file:
            return len(file.readlines()) > 1
    except OSError:
        return False


def _called(module: types.ModuleType, name: str, arguments: list[Any]) -> bytes:
    """What a function of the module returns, as JSON. Raises TypeError where it is no number."""
    value = getattr(module, name)(*arguments)
    if hasattr(value, "item"):
        value = value.item()            # numpy's and torch's
    if not isinstance(value, int | float):
        raise TypeError(f"{name} returned {type(value).__name__}, and a number is wanted")
    return json.dumps(float(value)).encode()


def _limit(told: dict[str, Any], in_namespaces: bool) -> None:
    try:
        import resource
    except ImportError:             # Windows: whoever started this process watches its memory and time
        return
    limits = {resource.RLIMIT_CPU: math.ceil(told["seconds"]), resource.RLIMIT_AS: told["memory_bytes"],
              resource.RLIMIT_FSIZE: told["disk_bytes"], resource.RLIMIT_NOFILE: told["files"],
              resource.RLIMIT_CORE: 0}
    if in_namespaces and os.getuid():           # it does not bind root, and counts all of a user's outside of them
        limits[resource.RLIMIT_NPROC] = told["processes"]
    for what, most in limits.items():
        with contextlib.suppress(ValueError, OSError):      # macOS refuses some
            resource.setrlimit(what, (most, most + (what == resource.RLIMIT_CPU)))


def _guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook: sockets, processes and changes outside `folder` are refused."""
    def inside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return True             # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or real == folder or real.startswith(folder + os.sep)

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        refused = event.startswith(_REFUSED) or (event == "ctypes.dlopen" and args[0] is not None)
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            # an open directory would let later calls name files from there
            refused = not inside(args[0]) and bool(flags & _WRITES or os.path.isdir(args[0]))
        elif event in _CHANGES_FILES:
            paths = args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]
            refused = not all(map(inside, paths))
        if refused:
            raise PermissionError(errno.EPERM, f"the sandbox refuses {event}")

    return refuse


def _told(error: BaseException, sources: dict[str, str]) -> str:
    """Status, a space, and the reason."""
    where, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name in sources:
            line = sources[name].splitlines()[trace.tb_lineno - 1:trace.tb_lineno]
            where = f"{name} line {trace.tb_lineno}: {line[0].strip()}" if line else name
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename in sources:
        where = f"{error.filename} line {error.lineno}"
    if isinstance(error, SystemExit):
        return f"ended early it left before its tests had ended, at {where}"
    status = "error"
    if isinstance(error, AssertionError):
        status = "failed"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
        status = "disk full"
    try:
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    except BaseException:
        what = "an error that cannot be printed"
    return f"{status} {what[:500].rstrip(': ')}" + (f" ({where[:200]})" if where else "")


if __name__ == "__main__":
    main()
