"""Set up `.venv` with the locked versions: `python3 tools/setup.py dev` (or `eval`, or `dev,parity`).

Runs on any Python 3 with nothing installed, so that it can say what is missing. Does nothing when all is up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "tuneloop-setup.json"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP_INSTALL = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install",
               "-c", str(ROOT / "constraints.txt")]
OLDEST, NEWEST = (3, 11), (3, 14)       # of Python: the locked torch has wheels for these
COMPILERS = ("cc", "gcc", "clang")
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
NEEDED_BYTES = 4 * 10**9
NEEDED_BYTES_CUDA = 12 * 10**9          # the ordinary torch for Linux brings CUDA's libraries with it
INCLUDES = {"dev": {"eval", "constrain", "data", "quant", "hpo", "people"}}     # the extras that an extra contains


def main(wanted: set[str]) -> None:
    """Install these extras, unless they are."""
    installed = installed_extras()
    if wanted and wanted <= installed:
        return
    python = None if works(PYTHON, "pip") else find_python()
    if python:
        check_venv(python)
    check_compiler()
    check_disk(NEEDED_BYTES)
    if python:
        run([python, "-m", "venv", "--clear", str(VENV)], "The virtual environment .venv could not be created.")
    extras = ",".join(sorted(wanted | installed))
    source, large = torch_source()
    check_disk(NEEDED_BYTES_CUDA if large else NEEDED_BYTES)
    announce(extras, large)
    install(extras, source)
    STAMP.write_text(json.dumps({"locked": fingerprint(), "extras": extras}), encoding="utf-8")


def installed_extras() -> set[str]:
    """The extras that are installed at just these locked versions."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if stamp["locked"] != fingerprint() or not works(PYTHON, "pip"):
        return set()
    named = set(filter(None, stamp["extras"].split(",")))
    return named.union(*(INCLUDES.get(extra, set()) for extra in named))


def fingerprint() -> str:
    """Changes when what is to be installed changes."""
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def find_python() -> str:
    """A Python that the locked versions support: this one, else one on PATH."""
    names = [f"python{NEWEST[0]}.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    for candidate in [sys.executable] + [found for found in map(shutil.which, names) if found]:
        if works(candidate):
            return candidate
    raise Missing("Python {}.{} to {}.{} is needed; {} is Python {}, and PATH holds no other."
                  .format(*OLDEST, *NEWEST, sys.executable, platform.python_version()),
                  by_system("brew install python@3.12", "apt install python3 python3-venv",
                            "winget install Python.Python.3.12"))


def works(python: str | Path, modules: str = "sys") -> bool:
    """Whether `python` starts, suits and has the modules; a moved .venv does not start, nor does a stub of pyenv."""
    code = f"import sys, {modules}; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    try:
        return subprocess.call([str(python), "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def check_venv(python: str) -> None:
    """Debian and Ubuntu ship Python without what makes virtual environments."""
    if not works(python, "venv, ensurepip"):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.check_output([python, "-c", code]).decode().strip()
        raise Missing(f"{python} lacks the modules venv and ensurepip.",
                      f"sudo apt install python{version}-venv  (for other systems: the package of that name)")


def check_compiler() -> None:
    """The locked packages have wheels for the usual systems; elsewhere some must be compiled."""
    usual = {"Linux": {"x86_64", "aarch64"}, "Darwin": {"arm64"}, "Windows": {"AMD64"}}
    machine, system = platform.machine(), platform.system()
    covered = machine in usual.get(system, set()) and (system != "Linux" or platform.libc_ver()[0] == "glibc")
    if not covered and not any(map(shutil.which, COMPILERS)):
        raise Missing(f"Some packages must be compiled for {system} on {machine}, and there is no C compiler.",
                      by_system("xcode-select --install", "apt install build-essential  (Alpine: apk add build-base)",
                                "winget install Microsoft.VisualStudio.2022.BuildTools"))


def check_disk(needed: int) -> None:
    """Room for what is unpacked here and on the way there."""
    for folder, fix in ((str(ROOT), "free some"),
                        (tempfile.gettempdir(), "free some, or set TMPDIR to a folder on a larger disk")):
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise Missing(f"{free / 1e9:.1f} GB are free in {folder}; {needed / 1e9:.0f} GB are needed.", fix)


def torch_source() -> tuple[list[str], bool]:
    """pip's options for torch, and whether it brings CUDA: 3 GB, in vain on a Linux machine without an NVIDIA GPU."""
    if platform.system() != "Linux" or works(PYTHON, "torch"):
        return [], False
    if not brings_cuda([]):
        return [], False
    if shutil.which("nvidia-smi"):
        return [], True
    small = ["--index-url", CPU_WHEELS, "--retries", "0", "--timeout", "15"]
    return ([], True) if brings_cuda(small) else (small, False)


def brings_cuda(source: list[str]) -> bool:
    """Whether the torch that pip would take from `source` requires CUDA's libraries; yes if there is no answer."""
    ask = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*PIP_INSTALL, *ask, *source, "torch"], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        return True
    needs = json.loads(done.stdout)["install"][0]["metadata"].get("requires_dist", [])
    return any(name.startswith(("nvidia", "cuda")) for name in needs)


def announce(extras: str, large: bool) -> None:
    """What will be downloaded, before it is."""
    print(f"Setting up {VENV} with tuneloop[{extras}] at the versions of constraints.txt. Downloads:")
    print(f"  torch             about {'3 GB, with CUDA' if large else '0.2 GB'}")
    print("  everything else   about 0.2 GB")
    print("  later, once       the base smollm2-135m-instruct (93 to 271 MB), the demo's film reviews (13 MB)")
    sys.stdout.flush()      # before pip, a process of its own, writes


def install(extras: str, source: list[str]) -> None:
    """Everything at the locked versions; torch first where it alone comes from another index."""
    failed = "The packages could not be installed; pip says above why."
    again = "check the connection and pip's index (`pip config list`), then run the same command again"
    if source:
        run([*PIP_INSTALL, "--no-deps", *source, "torch"], failed, again)
    run([*PIP_INSTALL, "-e", f"{ROOT}[{extras}]" if extras else str(ROOT)], failed, again)


def by_system(mac: str, linux: str, windows: str) -> str:
    """The command of this system."""
    return {"Darwin": mac, "Windows": windows}.get(platform.system(), f"sudo {linux}")


def run(command: list[str], failure: str, fix: str = "run the command by hand to see more") -> None:
    """Run, or stop with what failed."""
    if subprocess.call(command):
        raise Missing(failure, "{}\n  command: {}".format(fix, " ".join(command)))


class Missing(SystemExit):
    """Says what is wrong and what mends it, and stops."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}\n  fix:    {fix}")


if __name__ == "__main__":
    main({extra for extra in ",".join(sys.argv[1:]).split(",") if extra})
