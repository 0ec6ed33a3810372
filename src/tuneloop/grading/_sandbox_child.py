"""The process that runs somebody else's program; `sandbox` starts this file with `python -I`, and it imports only the
standard library.

It is told what to do as JSON on stdin. Behind a secret word it says on stderr first how well it is isolated, in one
line, and last how the program ended; the program's own stderr goes where its stdout goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import math
import os
import signal
import sys
import types
from collections.abc import Callable
from os import _exit, write
from typing import Any

_NEW_USER, _NEW_NETWORK, _NEW_PROCESSES, _NEW_MOUNTS, _NEW_IPC = 0x10000000, 0x40000000, 0x20000000, 0x20000, 0x08000000
_PRIVATE, _RECURSIVE, _NO_SUID, _NO_DEVICES = 0x40000, 0x4000, 2, 4         # of mount(2)
_MOUNT_SETATTR, _AT_HERE, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1  # of mount_setattr(2), Linux 5.12
_DIE_WITH_PARENT = 1                                                        # of prctl(2)

_FULL = "namespaces: no network, no other processes, files read-only"
_NO_MOUNTS = "namespaces: no network, no other processes; an audit hook guards files, which native code could pass"
_HOOK = ("audit hook: Python code cannot open sockets, start or signal processes, or write outside its folder; "
         "native code could")

_REFUSED = ("socket.", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.kill",
            "os.startfile", "ctypes.dlsym", "signal.pthread_kill", "pty.spawn", "_winapi.CreateProcess")
_CHANGES_FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
                  "os.chown", "os.utime")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    told = json.loads(sys.stdin.buffer.read())
    report = os.dup(2)
    os.dup2(1, 2)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    isolation = _isolate(told) if told["namespaces"] else _HOOK
    if isolation != _FULL:
        # Windows has no fork, and here no namespace would end what a fork leaves: the program is this very process
        os.chdir(told["folder"])
    _limit(told, in_namespaces=isolation != _HOOK)
    write(report, f"{told['word']} {isolation}\n".encode())
    if isolation != _FULL:
        sys.addaudithook(_guard(os.path.realpath(told["folder"])))
    _run(told["program"], told["tests"], report, told["word"].encode())


def _isolate(told: dict[str, Any]) -> str:
    """Enter new namespaces; returns in the process that is to run the program, and says how far that went."""
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
    if init := os.fork():
        _exit(_wait_for(init))
    # From here on process 1 of its namespace: when it ends, the kernel ends everything that it or its children started
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: _exit(1))
    signal.alarm(int(told["seconds"]) + 60)     # should whoever started it be killed before it heard the prctl
    mounted = _mount(libc, told)
    if program := os.fork():
        _exit(_wait_for(program))
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
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


def _wait_for(child: int) -> int:
    """The exit code of a child, 128 more than the signal that killed it; children of others are reaped meanwhile."""
    while True:
        ended, status = os.wait()
        if ended == child:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _limit(told: dict[str, Any], *, in_namespaces: bool) -> None:
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


def _run(program: str, tests: str, report: int, word: bytes) -> None:
    """Run the program, then its tests in the same module, and report how that ended. Does not return."""
    # What is reported is made before the program runs, for it may leave neither memory nor modules as they were
    passed, no_memory = word + b" passed ", word + b" out of memory it asked for more than it may have"
    module = types.ModuleType("program")
    sys.modules["program"] = module
    said = b""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)     # what it printed is kept when it has to be stopped
    try:
        for text, name in ((program, "program.py"), (tests, "tests.py")):
            exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
        said = passed
    except MemoryError:
        said = no_memory
    except BaseException as error:
        said = b"%s %s" % (word, _told(error, {"program.py": program, "tests.py": tests}).encode("utf-8", "replace"))
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    write(report, said)
    _exit(0)                        # no exit handlers, no waiting for threads


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
