"""Programs that misbehave are contained, with namespaces and without, and it is said how they ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuneloop.errors import UserError
from tuneloop.grading.metrics import METRICS, Options, View
from tuneloop.grading.programs import pass_at_k, python_in, run_all
from tuneloop.grading.sandbox import Limits, Outcome, run
from tuneloop.types import Answers

LIMITS = Limits(seconds=5, memory_bytes=400 << 20, disk_bytes=8 << 20, processes=8)
SHORT = Limits(seconds=0.5)
TESTS = "assert 1 + 1 == 2"


@pytest.fixture(params=[True, False], ids=["namespaces", "hook"])
def namespaces(request: pytest.FixtureRequest) -> bool:
    if request.param and not run("").isolation.startswith("namespaces"):
        pytest.skip("this kernel refuses namespaces")
    return bool(request.param)


def full_isolation() -> None:
    if not run("").isolation.startswith("namespaces"):
        pytest.skip("this kernel refuses namespaces")


def sandboxed(program: str, namespaces: bool = True, limits: Limits = LIMITS) -> Outcome:
    return run(program, TESTS, limits, namespaces=namespaces)


def test_it_says_how_a_program_is_kept_apart(namespaces: bool) -> None:
    found = sandboxed("", namespaces)
    assert found.passed
    assert found.isolation.startswith("namespaces" if namespaces else "audit hook")


def test_passing_and_failing(namespaces: bool) -> None:
    program = "def double(x):\n    print('called')\n    return 2 * x\n"
    right = run(program, "assert double(2) == 4", LIMITS, namespaces=namespaces)
    wrong = run(program, "assert double(2) == 4\nassert double(3) == 9", LIMITS, namespaces=namespaces)
    assert (right.status, right.reason, right.output) == ("passed", "", "called\n")
    assert (wrong.status, wrong.output) == ("failed", "called\ncalled\n")
    assert wrong.reason == "AssertionError (tests.py line 2: assert double(3) == 9)"


@pytest.mark.parametrize(("program", "reason"), [
    ("def f(:\n", "SyntaxError: invalid syntax (program.py line 1)"), ("x = 1 / 0", "ZeroDivisionError: division by"),
    ("import sys\nprint(open('/none'))", "program.py line 2"), ("def f(): f()\nf()", "RecursionError"),
    ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "cannot be printed"),
    ("x = '\ud800'\nraise KeyError(x)", "Error"), ("input()", "EOFError")])
def test_errors_are_told(program: str, reason: str) -> None:
    found = sandboxed(program)
    assert found.status == "error"
    assert reason in found.reason


def test_the_program_does_not_see_this_environment(monkeypatch: pytest.MonkeyPatch, namespaces: bool) -> None:
    monkeypatch.setenv("SECRET_OF_THIS_TEST", "s3cret")
    found = sandboxed("import os\nprint(dict(os.environ), os.listdir())", namespaces)
    assert "SECRET" not in found.output
    assert "[]" in found.output         # an empty folder of its own


@pytest.mark.parametrize("program", [
    "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)",
    "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=2)"])
def test_no_network(program: str, namespaces: bool) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        found = sandboxed(program.format(port=server.getsockname()[1]), namespaces)
        assert found.status == "error"
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("program", ["while True: pass", "import time\ntime.sleep(60)",
                                     "import signal, time\nfor s in (2, 15, 24): signal.signal(s, signal.SIG_IGN)\n"
                                     "time.sleep(60)"])
def test_loops_end(program: str, namespaces: bool) -> None:
    began = time.monotonic()
    found = sandboxed(program, namespaces, SHORT)
    assert found.status == "timed out"
    assert time.monotonic() - began < 10


def test_endless_output_is_cut(namespaces: bool) -> None:
    found = sandboxed("while True: print('x' * 1000)", namespaces, Limits(seconds=0.5, output_bytes=5000))
    assert found.status == "timed out"
    assert len(found.output) == 5000


@pytest.mark.parametrize("program", ["x = bytearray(10**9)", "x = []\nwhile True: x.append('x' * 10**7)"])
def test_memory_is_bounded(program: str, namespaces: bool) -> None:
    assert sandboxed(program, namespaces).status == "out of memory"


@pytest.mark.parametrize("program", [
    "f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**6)",
    "import time\nfor i in range(30): open(f'part{i}', 'wb').write(b'x' * 10**6)\ntime.sleep(4)"])
def test_disk_is_bounded(program: str, namespaces: bool) -> None:
    assert sandboxed(program, namespaces).status == "disk full"


@pytest.mark.parametrize("program", [
    "open({path!r}, 'w').write('x')", "import os\nos.remove({path!r})", "import os\nos.rename({path!r}, 'here')",
    "import os\nos.truncate({path!r}, 0)", "import shutil, os\nshutil.rmtree(os.path.dirname({path!r}))",
    "import os\nos.symlink({path!r}, 'link')\nopen('link', 'a').write('x')",
    "import os\nos.unlink('kept', dir_fd=os.open(os.path.dirname({path!r}), os.O_RDONLY))"])
def test_files_elsewhere_stay(program: str, namespaces: bool, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("content")
    found = sandboxed(program.format(path=str(kept)), namespaces)
    assert found.status == "error"
    assert kept.read_text() == "content"


def test_a_program_gets_no_namespace_of_its_own() -> None:
    """There it could mount file systems, whose memory no limit counts."""
    full_isolation()
    found = sandboxed("import ctypes\nprint(ctypes.CDLL(None).unshare(0x10000000))")
    assert found.output.strip() == "-1"


def test_its_own_folder_can_be_used(namespaces: bool) -> None:
    program = ("import os, shutil, tempfile\nos.mkdir('d'); open('d/f', 'w').write('hi'); os.rename('d/f', 'g')\n"
               "print(open('g').read(), os.listdir())\nshutil.rmtree('d')\n"
               "with tempfile.TemporaryDirectory() as t: open(t + '/x', 'w')")
    found = sandboxed(program, namespaces)
    assert (found.status, found.reason) == ("passed", "")
    assert found.output.startswith("hi ")


def test_closed_outputs_do_no_harm(namespaces: bool) -> None:
    assert sandboxed("import os, sys\nsys.stdout.close()\nos.close(1)\nos.close(2)", namespaces).passed


@pytest.mark.parametrize("program", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit",
                                     "import os\nos.closerange(3, 1000)"])
def test_leaving_early_is_not_passing(program: str, namespaces: bool) -> None:
    found = sandboxed(program, namespaces)
    assert found.status == "ended early"
    assert "before its tests had ended" in found.reason


def test_a_crash_is_named(namespaces: bool) -> None:
    found = sandboxed("import ctypes\nctypes.string_at(0)", namespaces)
    assert (found.status, found.reason) == ("crashed", "it was ended by SIGSEGV")


# A test must do no harm when the sandbox is broken: what is sent to outsiders is signal 0, which only asks whether one
# could be sent, or goes to a process that the test itself started for it.


def test_no_signal_reaches_others(namespaces: bool) -> None:
    everyone = sandboxed("import os\nos.kill(-1, 0)", namespaces)
    assert everyone.status == "error"
    assert ("ProcessLookupError" if namespaces else "refuses os.kill") in everyone.reason
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = sandboxed(f"import os\nos.kill({victim.pid}, 9)", namespaces)
        assert found.status == "error"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_killing_its_own_parent_ends_nobody_else() -> None:
    full_isolation()
    # process 1 of its namespace is its parent there, which signals from inside do not reach
    assert sandboxed("import os\nassert os.getppid() == 1\nos.kill(1, 9)").passed
    without = sandboxed("import os\nos.kill(os.getppid(), 0)", namespaces=False)
    assert "refuses os.kill" in without.reason


def test_a_fork_bomb_is_stopped() -> None:
    full_isolation()
    began = time.monotonic()
    found = sandboxed("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert found.status in ("too many processes", "out of memory")
    assert time.monotonic() - began < 20


def test_children_take_from_one_purse() -> None:
    full_isolation()
    found = sandboxed("import os, time\nfor i in range(6):\n    if os.fork() == 0:\n"
                      "        x = b'x' * (100 << 20); time.sleep(4)\ntime.sleep(4)")
    assert found.status == "out of memory"


@pytest.mark.parametrize("how", ["passes", pytest.param("is stopped", marks=pytest.mark.slow)])
def test_nothing_outlives_a_program(how: str) -> None:
    """A child that left its session and its parent, under a name by which this test can find it."""
    full_isolation()
    mark = f"outlives-{time.monotonic_ns()}"
    program = ("import os, sys, time\nr, w = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
               "        os.set_inheritable(w, True)\n"
               f"        code = 'import os, time; os.write(%d, b\"y\"); time.sleep(60)' % w\n"
               f"        os.execv(sys.executable, [sys.executable, '-c', code, {mark!r}])\n    os._exit(0)\n"
               f"os.read(r, 1)\nprint('started')\ntime.sleep({0 if how == 'passes' else 60})")
    found = sandboxed(program, limits=Limits(seconds=3))
    assert found.output == "started\n"
    assert found.status == ("passed" if how == "passes" else "timed out")
    until = time.monotonic() + 5
    while alive := [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def test_processes_are_refused_without_namespaces() -> None:
    for program in ("import os\nos.fork()", "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])",
                    "import os\nos.system('true')", "import os, sys\nos.execv(sys.executable, ['x'])"):
        found = sandboxed(program, namespaces=False)
        assert (found.status, "the sandbox refuses" in found.reason) == ("error", True)


def test_a_report_cannot_be_guessed(namespaces: bool) -> None:
    forged = "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'passed passed ')\n    except OSError: pass\n"
    assert sandboxed(forged + "os._exit(0)", namespaces).status == "ended early"
    assert not sandboxed(forged + "assert False", namespaces).passed


def test_python_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "child.py"
    broken.write_text("raise RuntimeError('no sandbox today')")
    monkeypatch.setattr("tuneloop.grading.sandbox._CHILD", broken)
    with pytest.raises(UserError, match="no sandbox today"):
        run("")


def test_limits_are_positive() -> None:
    with pytest.raises(UserError, match="seconds, processes"):
        Limits(seconds=0, processes=-1)


def test_code_metric() -> None:
    tests = ["```python\nassert add(1, 2) == 3\n```", "assert add(1, 2) == 3", "assert add(1, 2) == 3"]
    answers = ["Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nUse it so:\n```\nadd(1, x)\n```",
               "def add(a, b): return a - b", "I cannot."]
    assert METRICS["code"].value(tests, answers) == pytest.approx(1 / 3)
    statuses = [outcome.status for outcome in run_all(answers, tests, Limits())]
    assert statuses == ["passed", "failed", "error"]
    view = View(tests[:1], Answers("tuned", ["while True: pass"]), options=Options(limits=SHORT))
    assert METRICS["code"].value_of(view) == 0
    with pytest.raises(UserError, match="the reference of test row 2 holds none"):
        METRICS["code"].value(["assert True", " "], ["", ""])


@pytest.mark.parametrize(("text", "code"), [
    ("x = 1", "x = 1"), ("```py\nx = 1\n```", "x = 1\n"), ("a\n```\nx = 1", "x = 1"),
    ("```bash\npip install x\n```\n```Python\nx = 1\n```", "x = 1\n"), ("```python\n```", "")])
def test_the_program_in_a_text(text: str, code: str) -> None:
    assert python_in(text) == code


def test_pass_at_k_is_the_chance_of_a_draw() -> None:
    from itertools import combinations

    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations(range(n), k))         # samples 0 to c - 1 pass
                assert pass_at_k(n, c, k) == pytest.approx(sum(min(d) < c for d in draws) / len(draws), abs=1e-12)
    assert pass_at_k(200, 1, 1) == pytest.approx(1 / 200)
    for n, c, k in ((5, 6, 1), (5, 2, 0), (5, 2, 6), (5, -1, 1)):
        with pytest.raises(ValueError, match="wanted 0 <= c"):
            pass_at_k(n, c, k)


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_numpy_runs(namespaces: bool) -> None:
    assert run("import numpy", "assert numpy.ones(3) @ numpy.ones(3) == 3", namespaces=namespaces).passed
