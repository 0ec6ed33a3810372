"""Many programs behind one start: each begins clean, one that misbehaves costs itself alone, and the server is safe."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tuneloop.errors import UserError
from tuneloop.grading import sandbox
from tuneloop.grading.sandbox import Limits, Outcome, Shared, Task, run, run_all

LIMITS = Limits(seconds=5, memory_bytes=400 << 20, disk_bytes=8 << 20, processes=8)
SHORT = Limits(seconds=0.5, memory_bytes=400 << 20)


@pytest.fixture(params=[True, False], ids=["namespaces", "hook"])
def namespaces(request: pytest.FixtureRequest) -> bool:
    if request.param and not run("").isolation.startswith("namespaces"):
        pytest.skip("this kernel refuses namespaces")
    return bool(request.param)


def in_one(programs: Sequence[str], namespaces: bool = True, limits: Limits = LIMITS) -> list[Outcome]:
    """All in one lane, so that they come one after the other."""
    return run_all([Task(program) for program in programs], limits, workers=1, namespaces=namespaces)


def statuses(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def full_isolation() -> None:
    if not run("").isolation.startswith("namespaces: no network, no other processes, files"):
        pytest.skip("this kernel refuses namespaces")


def test_outcomes_come_in_order_whatever_the_lanes() -> None:
    for workers in (1, 2, 3, 9):
        found = run_all([Task(f"print({i})\nassert {i} != 4") for i in range(7)], LIMITS, workers=workers)
        assert [outcome.output.strip() for outcome in found] == [str(i) for i in range(7)]
        assert statuses(found) == ["passed"] * 4 + ["failed"] + ["passed"] * 2
    assert run_all([]) == []


def test_nothing_reaches_the_next_program(namespaces: bool) -> None:
    leaving = ("import builtins, os, sys\nbuiltins.left = 1\nsys.modules['left'] = sys\nopen('f', 'w').write('x')\n"
               "os.mkdir('d'); open('d/g', 'w').write('x'); os.chmod('d/g', 0)\nleft = 1\nsys.argv.append('left')")
    looking = ("import builtins, os, sys\nassert not hasattr(builtins, 'left') and 'left' not in globals()\n"
               "assert 'left' not in sys.modules and 'left' not in sys.argv\nassert os.listdir() == [], os.listdir()")
    found = in_one([leaving, looking], namespaces)
    assert [(outcome.status, outcome.reason) for outcome in found] == [("passed", "")] * 2


def test_processes_and_kernel_objects_of_one_program_are_gone_for_the_next() -> None:
    full_isolation()
    stays = ("import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n"
             "    os._exit(0)\n")
    shared_memory = "import ctypes\nassert ctypes.CDLL(None).shmget(42, 4096, 0o{}) >= 0"
    found = in_one([stays, "import os\nassert sorted(p for p in os.listdir('/proc') if p.isdigit())[0] == '1'\n"
                    "assert len([p for p in os.listdir('/proc') if p.isdigit()]) == 2",
                    shared_memory.format(1600), shared_memory.format(600)])
    assert statuses(found) == ["passed", "passed", "passed", "failed"]


@pytest.mark.parametrize(("program", "status"), [
    ("while True: pass", "timed out"), ("x = bytearray(10**9)", "out of memory"),
    ("import ctypes\nctypes.string_at(0)", "crashed"), ("import os\nos._exit(0)", "ended early"),
    ("raise SystemExit", "ended early"), ("import os\nos.closerange(3, 1000)", "ended early"),
    ("x = []\nwhile True: x.append('x' * 10**8)", "out of memory"), ("f(", "error")])
def test_one_that_misbehaves_costs_itself_alone(program: str, status: str, namespaces: bool) -> None:
    found = in_one(["print(1)", program, "print(2)"], namespaces, SHORT)
    assert statuses(found) == ["passed", status, "passed"]
    assert [found[0].output, found[2].output] == ["1\n", "2\n"]


def test_each_that_hangs_is_stopped_by_its_own_clock() -> None:
    began = time.monotonic()
    found = in_one(["while True: pass", "print('a')", "import time\ntime.sleep(60)"], limits=SHORT)
    assert statuses(found) == ["timed out", "passed", "timed out"]
    assert time.monotonic() - began < 15
    assert all(0.5 <= outcome.seconds < 5 for outcome in (found[0], found[2]))


def test_a_fork_bomb_ends_with_its_own_sandbox() -> None:
    full_isolation()
    found = in_one(["import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "print('after')"])
    assert found[0].status in ("too many processes", "out of memory")
    assert (found[1].status, found[1].output) == ("passed", "after\n")


@pytest.mark.parametrize("attack", [
    "open('/proc/1/mem', 'rb')", "open('/proc/1/environ').read()",
    "import os\nfor fd in os.listdir('/proc/1/fd'):\n    try: open(f'/proc/1/fd/{fd}', 'wb')\n"
    "    except PermissionError: pass\n    else: raise SystemExit\nraise PermissionError",
    "import ctypes\nif ctypes.CDLL(None).ptrace(16, 1, 0, 0): raise PermissionError",
    "import ctypes\nlibc = ctypes.CDLL(None)\n"
    "if libc.mount(None, b'/', None, 0x1020, None) and libc.umount2(b'.', 2): raise PermissionError",
    "import subprocess\nout = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout\n"
    "if 'CapEff:\\t0000000000000000' in out: raise PermissionError"])
def test_the_server_cannot_be_looked_into(attack: str) -> None:
    full_isolation()
    [found] = in_one([attack])
    assert found.status == "error"
    assert "PermissionError" in found.reason


def test_killing_the_server_is_without_effect() -> None:
    full_isolation()
    found = in_one(["import os\nassert os.getppid() == 1\nos.kill(1, 9)", "print('alive')"])
    assert statuses(found) == ["passed", "passed"]


def test_a_report_cannot_be_forged_for_another() -> None:
    forged = ("import os\nfor fd in range(20):\n    try: os.write(fd, b'ends 1 0 passed passed \\n' * 3)\n"
              "    except OSError: pass\n")
    for namespaces in (True, False):
        found = in_one([forged + "os._exit(0)", "assert False"], namespaces)
        assert statuses(found) == ["ended early", "failed"]


# ── what programs share ──────────────────────────────────────────────────────────────────────────────────────────────

def called(source: str, arguments: Sequence[Sequence[object]], namespaces: bool = True, limits: Limits = LIMITS,
           name: str = "grade") -> list[Outcome]:
    return run_all([Task(call=(name, given)) for given in arguments], limits, shared=Shared(source, "reward.py"),
                   workers=1, namespaces=namespaces)


def test_what_a_function_returns(namespaces: bool) -> None:
    found = called("def grade(text, of):\n    return len(text) / of['words']", [["ab", {"words": 4}], ["é" * 3, {
        "words": 1}]], namespaces)
    assert [(outcome.status, outcome.value) for outcome in found] == [("passed", 0.5), ("passed", 3.0)]


def test_every_call_begins_from_the_memory_after_loading(namespaces: bool) -> None:
    source = "seen = []\ndef grade(x):\n    seen.append(x)\n    return len(seen)"
    assert [outcome.value for outcome in called(source, [[i] for i in range(3)], namespaces)] == [1.0] * 3


def test_it_is_loaded_once_where_that_is_safe() -> None:
    full_isolation()
    source = "import time\nloaded = time.monotonic_ns()\ndef grade(x):\n    return loaded % 10**9"
    found = called(source, [[i] for i in range(3)])
    assert len({outcome.value for outcome in found}) == 1


@pytest.mark.parametrize(("returned", "value"), [("True", 1), ("float('inf')", math.inf), ("-2", -2), (
    "__import__('numpy').float32(0.5)", 0.5)])
def test_numbers_of_any_kind(returned: str, value: float) -> None:
    assert called(f"def grade(x): return {returned}", [[1]])[0].value == value


def test_nan_is_passed_on() -> None:
    [found] = called("def grade(x): return float('nan')", [[1]])
    assert found.value is not None
    assert math.isnan(found.value)


@pytest.mark.parametrize(("body", "reason"), [
    ("return 'a'", "TypeError: grade returned str, and a number is wanted"), ("pass", "grade returned NoneType"),
    ("return 1 / 0", "ZeroDivisionError: division by zero (reward.py line 2: return 1 / 0)"),
    ("raise KeyError('x\\ny')", "KeyError"), ("import nothing_like_it", "No module named 'nothing_like_it'")])
def test_what_is_no_number_is_an_error(body: str, reason: str, namespaces: bool) -> None:
    [found] = called(f"def grade(x):\n    {body}", [[1]], namespaces)
    assert (found.status, found.value) == ("error", None)
    assert reason in found.reason


@pytest.mark.parametrize(("source", "status"), [
    ("1 / 0", "error"), ("def grade(", "error"), ("import sys\nsys.exit()", "ended early")])
def test_what_cannot_be_loaded_fails_for_all(source: str, status: str, namespaces: bool) -> None:
    found = called(source, [[1], [2]], namespaces)
    assert statuses(found) == [status] * 2
    assert "reward.py" in found[0].reason


def test_loading_that_hangs_is_stopped_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    full_isolation()
    monkeypatch.setattr("tuneloop.grading.sandbox._START_SECONDS", 1)
    found = called("while True: pass", [[1], [2]], limits=SHORT)
    assert statuses(found) == ["timed out"] * 2
    assert "reward.py took more than" in found[0].reason


def test_loading_that_takes_all_memory_is_stopped_for_all() -> None:
    full_isolation()
    found = called("import time\nx = b'x' * (600 << 20)\ntime.sleep(60)", [[1], [2]])
    assert statuses(found) == ["out of memory"] * 2


def test_a_server_that_dies_before_anything_ran_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "child.py"
    broken.write_text("import sys, json\nprint(json.load(sys.stdin)['word'], 'namespaces', file=sys.stderr)")
    monkeypatch.setattr("tuneloop.grading.sandbox._CHILD", broken)
    with pytest.raises(UserError, match="could not be started"):
        run_all([Task("x = 1")])


def test_where_nothing_can_be_forked_each_task_has_a_process_from_the_start(monkeypatch: pytest.MonkeyPatch,
                                                                            tmp_path: Path) -> None:
    """As on Windows: what forks is taken away from the child."""
    child = tmp_path / "child.py"
    child.write_text("import os\ndel os.fork\n" + sandbox._CHILD.read_text().replace("from __future__", "# "))
    monkeypatch.setattr(sandbox, "_CHILD", child)
    monkeypatch.setattr(sandbox, "_FORKS", False)
    programs = ["print('a')", "while True: pass", "assert False", "import os\nos._exit(0)", "print('b')"]
    found = in_one(programs, False, SHORT)
    assert statuses(found) == ["passed", "timed out", "failed", "ended early", "passed"]
    assert (found[0].output, found[4].output) == ("a\n", "b\n")
    source = "seen = []\ndef grade(x):\n    seen.append(x)\n    return len(seen) / x"
    assert [outcome.value for outcome in called(source, [[1], [2]], False)] == [1, 0.5]
